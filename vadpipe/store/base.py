"""What all stores have in common: `NAME/{train,test}/CLIP.parquet`, a row a frame, in row groups.

Each split has a manifest, `clips.json`, of its clips and their lengths, and every byte that is read has a checksum:
that of a page lies in the file, that of all else in the manifest. A clip that is gone and a byte that is flipped are
found, not computed with.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vadpipe.errors import UserError
from vadpipe.files import read_json, reading, there
from vadpipe.store.atomic import write_json

# Rows a row group: what is held in memory at once, whatever the length of a clip.
ROWS = 32
SPLITS = ("train", "test")
_MANIFEST = "clips.json"
# A column of a row group is one page, whose header, without statistics, is smaller than this, bytes.
_PAGE = 2**30
_HEADER = 64

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


def open_writer(path: Path, schema: pa.Schema, compression: str = "none") -> pq.ParquetWriter:
    """Open a Parquet file for writing, with checksums; images, flow and vectors do not compress further."""
    return pq.ParquetWriter(
        path,
        schema,
        compression=compression,
        use_dictionary=False,
        write_statistics=False,
        data_page_size=_PAGE,
        write_page_checksum=True,
    )


def write_rows(path: Path, schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows, a frame each, numbered in the column `frame`, and return their number."""
    count = 0
    with open_writer(path, schema) as writer:
        for group in parts(rows, ROWS):
            numbered = [{"frame": count + index, **row} for index, row in enumerate(group)]
            writer.write_table(pa.Table.from_pylist(numbered, schema=schema), row_group_size=ROWS)
            count += len(group)
    return count


def metadata(path: Path) -> dict[str, Any]:
    """Return the metadata that `with_metadata` gave to a Parquet file.

    Raises:
        UserError: the file is no Parquet of ours.
    """
    return _decode(open_parquet(path).schema_arrow.metadata)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        UserError: the file is missing, may not be read, is cut off or no Parquet.
    """
    if not there(path):
        raise UserError(f"{path} is not here; run `dvc repro` or `dvc pull`")
    with _reading(path):
        return pq.ParquetFile(path, page_checksum_verification=True)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Say in a sentence why a Parquet file cannot be read.

    Raises:
        UserError: as `files.reading`, or a part of it is damaged.
    """
    with reading(path):
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            # Arrow takes the same kind of error for what the system refuses, with a number, and for damage.
            if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
                raise
            raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """Return what to say of a file of a store that cannot be read whole."""
    return UserError(
        f"{path} is no whole Parquet file ({' '.join(str(error).split())[:200]}); run `dvc checkout {path.parent}`, "
        "or remove it and run `dvc repro`"
    )


def read_group(file: pq.ParquetFile, path: Path, group: int, columns: list[str]) -> pa.Table:
    """Read columns of a row group.

    Raises:
        UserError: a page is damaged.
    """
    with _reading(path):
        return file.read_row_group(group, columns)


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

    @property
    def origin(self) -> dict[str, Any]:
        """Return of the metadata what stores that are made of this one say too."""
        return {name: self.info[name] for name in ("dataset", "fps", "ordered", "categories") if name in self.info}

    def rows(self, columns: list[str]) -> Iterator[pa.Table]:
        """Yield the columns, a row group at a time."""
        file = open_parquet(self.path)
        for group in range(file.num_row_groups):
            yield read_group(file, self.path, group, columns)

    def row(self, index: int, column: str) -> pa.Scalar:
        """Return the value of one frame."""
        return read_group(open_parquet(self.path), self.path, index // ROWS, [column])[column][index % ROWS]

    def column(self, name: str) -> list[Any]:
        """Return a small column whole."""
        return [value for rows in self.rows([name]) for value in rows[name].to_pylist()]


def clip_file(folder: Path, split: str, clip: str) -> Path:
    """Return the file of a clip in a store that is written, its folder made."""
    (folder / split).mkdir(exist_ok=True)
    return folder / split / f"{clip}.parquet"


class Listed(NamedTuple):
    """A clip as its manifest lists it: its number of frames, and the crc32 of its footer and of its page headers."""

    frames: int
    footer: int
    headers: int


def write_manifests(folder: Path) -> None:
    """Write down which clips each split of a finished store has, and how long they are."""
    for split in SPLITS:
        (folder / split).mkdir(exist_ok=True)
        files = sorted((folder / split).glob("*.parquet"))
        clips = {file.stem: _listed(file)._asdict() for file in files}
        write_json(folder / split / _MANIFEST, {"clips": clips, "crc32": _crc32_of(clips)})


def listed_clips(folder: Path, split: str) -> dict[str, Listed]:
    """Return the clips that a split's manifest lists, by name.

    Raises:
        UserError: there is no manifest, it is damaged, or there are other files than it lists.
    """
    manifest = folder / split / _MANIFEST
    if not manifest.exists():
        raise UserError(f"{manifest} is not here; run `dvc repro` or `dvc pull`")
    again = f"run `dvc checkout {folder}`, or remove it and run `dvc repro`"
    values = read_json(manifest, again)
    listed = values.get("clips")
    if not isinstance(listed, dict) or values.get("crc32") != _crc32_of(listed):
        raise UserError(f"{manifest} is not what was written: its checksum differs; {again}")
    there = {file.stem for file in (folder / split).glob("*.parquet")}
    if there != listed.keys():
        odd = min(there ^ listed.keys())
        what = "is missing" if odd in listed else "does not belong there"
        raise UserError(f"{folder / split / odd}.parquet {what}, by {manifest}; {again}")
    return {name: Listed(**clip) for name, clip in listed.items()}


def check_listed(path: Path, listed: Listed) -> None:
    """Compare a clip's file with what its manifest says of it; pages are compared as they are read.

    Raises:
        UserError: the file is missing, damaged, or of another length.
    """
    with reading(path):
        if _footer(path) == listed.footer and _listed(path) == listed:
            return
    raise UserError(
        f"{path} is not what was written, {listed.frames} frames: its checksum differs; "
        f"run `dvc checkout {path.parent.parent}`, or remove it and run `dvc repro`"
    )


def _listed(path: Path) -> Listed:
    about = open_parquet(path).metadata
    headers = 0
    with path.open("rb") as file:
        for group in range(about.num_row_groups):
            for column in range(about.num_columns):
                file.seek(about.row_group(group).column(column).data_page_offset)
                headers = zlib.crc32(file.read(_HEADER), headers)
    return Listed(about.num_rows, _footer(path), headers)


def _footer(path: Path) -> int:
    """Return the crc32 of the end of a Parquet file: its metadata, their length in 4 bytes, and 4 bytes `PAR1`."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little") + 8
        file.seek(max(0, size - length))
        return zlib.crc32(file.read())


def _crc32_of(values: object) -> int:
    return zlib.crc32(json.dumps(values).encode())
