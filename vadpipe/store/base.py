"""What all stores have in common: a kind in their metadata, clips, and rows a frame in row groups."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vadpipe.errors import UserError

# Rows a row group: what is held in memory at once, whatever the length of a clip.
ROWS = 32
SPLITS = ("train", "test")

Number = TypeVar("Number", bound=np.generic)
ItemT = TypeVar("ItemT")


def regroup(chunks: Iterable[npt.NDArray[Number]], size: int) -> Iterator[npt.NDArray[Number]]:
    """Regroup arrays along their first axis into arrays of `size`; the last one may be smaller."""
    held: list[npt.NDArray[Number]] = []
    count = 0
    for chunk in chunks:
        held.append(chunk)
        count += len(chunk)
        while count >= size:
            joined = np.concatenate(held) if len(held) > 1 else held[0]
            yield joined[:size]
            held, count = [joined[size:]], count - size
    if count:
        yield np.concatenate(held)


def parts(items: Iterable[ItemT], size: int) -> Iterator[list[ItemT]]:
    """Yield the items in lists of `size`; the last one may be shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def with_metadata(schema: pa.Schema, **values: object) -> pa.Schema:
    """Return the schema with JSON values as metadata."""
    return schema.with_metadata({key: json.dumps(value) for key, value in values.items()})


def metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that `with_metadata` gave to a Parquet file.

    Raises:
        UserError: the file is no Parquet of ours.
    """
    return _decode(open_parquet(path).schema_arrow.metadata)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        UserError: the file is missing, cut off or no Parquet.
    """
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise UserError(f"{path} is not here; run `dvc repro` or `dvc pull`") from None
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is no whole Parquet file ({error}); remove it and run `dvc repro`") from None


def _decode(values: dict[bytes, bytes] | None) -> dict[str, Any]:
    return {key.decode(): json.loads(value) for key, value in (values or {}).items() if key != b"ARROW:schema"}


class ClipFile:
    """A clip in a file of its own, a row a frame.

    Attributes:
        split: `train` or `test`.
        name: the clip's name.
        length: number of frames.
        info: the file's metadata.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.split = path.parent.name
        self.name = path.stem
        file = open_parquet(path)
        self.length: int = file.metadata.num_rows
        self.info = _decode(file.schema_arrow.metadata)

    def rows(self, columns: list[str]) -> Iterator[pa.Table]:
        """Yield the columns, a row group at a time."""
        file = open_parquet(self.path)
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns)

    def column(self, name: str) -> list[Any]:
        """Return a small column whole."""
        values: list[Any] = open_parquet(self.path).read([name])[name].to_pylist()
        return values


def clip_files(folder: Path, split: str) -> list[Path]:
    """Return the files of a split's clips, sorted by name."""
    return sorted((folder / split).glob("*.parquet"))
