"""Progress of work that comes in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm import tqdm

ChunkT = TypeVar("ChunkT", bound=Sized)


def advancing(chunks: Iterable[ChunkT], bar: tqdm[Any]) -> Iterator[ChunkT]:
    """Yield the chunks and move the bar by the length of each, once it is dealt with."""
    for chunk in chunks:
        yield chunk
        bar.update(len(chunk))
