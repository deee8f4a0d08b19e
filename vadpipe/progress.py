"""Progress of work that comes one by one or in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm import tqdm

ItemT = TypeVar("ItemT")
ChunkT = TypeVar("ChunkT", bound=Sized)


def counted(items: Iterable[ItemT], bar: tqdm[Any]) -> Iterator[ItemT]:
    """Yield the items and move the bar by one for each, once it is dealt with."""
    for item in items:
        yield item
        bar.update()


def advancing(chunks: Iterable[ChunkT], bar: tqdm[Any]) -> Iterator[ChunkT]:
    """Yield the chunks and move the bar by the length of each, once it is dealt with."""
    for chunk in chunks:
        yield chunk
        bar.update(len(chunk))
