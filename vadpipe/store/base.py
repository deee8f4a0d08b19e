"""What all stores have in common: `NAME/{train,test}/CLIP.parquet`, a row a frame, in row groups.

Each split has a manifest, `clips.json`, of its clips and their lengths, and each page of a file a checksum: a clip that
is gone and a byte that is flipped are found, not computed with.
"""

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
from vadpipe.files import read_json
from vadpipe.store.atomic import write_json

# Rows a row group: what is held in memory at once, whatever the length of a clip.
ROWS = 32
SPLITS = ("train", "test")
_MANIFEST = "clips.json"

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
    return pq.ParquetWriter(path, schema, compression=compression, use_dictionary=False, write_page_checksum=True)


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
        return pq.ParquetFile(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise UserError(f"{path} is not here; run `dvc repro` or `dvc pull`") from None
    except (pa.ArrowInvalid, OSError) as error:
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
    try:
        return file.read_row_group(group, columns)
    except (pa.ArrowInvalid, OSError) as error:
        raise damaged(path, error) from None


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


def write_manifests(folder: Path) -> None:
    """Write down which clips each split of a finished store has, and how long they are."""
    for split in SPLITS:
        (folder / split).mkdir(exist_ok=True)
        files = sorted((folder / split).glob("*.parquet"))
        lengths = {file.stem: open_parquet(file).metadata.num_rows for file in files}
        write_json(folder / split / _MANIFEST, {"clips": lengths})


def listed_clips(folder: Path, split: str) -> dict[str, int]:
    """Return the clips that a split's manifest lists, by name, and their lengths.

    Raises:
        UserError: there is no manifest, or other files than it lists.
    """
    manifest = folder / split / _MANIFEST
    if not manifest.exists():
        raise UserError(f"{manifest} is not here; run `dvc repro` or `dvc pull`")
    again = f"run `dvc checkout {folder}`, or remove it and run `dvc repro`"
    listed = read_json(manifest, again).get("clips")
    if not isinstance(listed, dict):
        raise UserError(f"{manifest} lists no clips; {again}")
    there = {file.stem for file in (folder / split).glob("*.parquet")}
    if there != listed.keys():
        odd = min(there ^ listed.keys())
        what = "is missing" if odd in listed else "does not belong there"
        raise UserError(f"{folder / split / odd}.parquet {what}, by {manifest}; {again}")
    return listed
