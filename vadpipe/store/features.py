"""The feature table: `data/features/NAME.parquet`, a vector a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vadpipe.errors import UserError
from vadpipe.store.base import open_parquet, regroup, with_metadata

KIND = "features"
# Rows and floats of a row group, at most; never across a clip's border. 256 vectors of 2,048 floats are 2 MB.
ROWS, FLOATS = 256, 2**22

Vectors = npt.NDArray[np.float32]


class FeatureWriter:
    """Writes vectors clip after clip."""

    def __init__(self, path: Path, dim: int, **info: object) -> None:
        schema = pa.schema(
            [
                pa.field("split", pa.string(), nullable=False),
                pa.field("clip", pa.string(), nullable=False),
                pa.field("frame", pa.int32(), nullable=False),
                pa.field("vector", pa.list_(pa.float32(), dim), nullable=False),
                pa.field("region", pa.list_(pa.float32())),
            ]
        )
        self.dim = dim
        self.schema = with_metadata(schema, kind=KIND, dim=dim, **info)
        self.writer = pq.ParquetWriter(path, self.schema, compression="none", use_dictionary=["split", "clip"])

    def write(self, split: str, clip: str, chunks: Iterable[Vectors], regions: Iterable[Vectors] | None = None) -> None:
        """Write a clip's vectors, float32 (n, D) chunks in the order of the frames.

        Args:
            regions: what share of each cell matters, float32 (n, cells) chunks; None = every cell.

        Raises:
            UserError: a vector holds NaN or infinity.
        """
        start = 0
        size = max(1, min(ROWS, FLOATS // self.dim))
        shares = repeat(None) if regions is None else regroup(regions, size)
        for vectors, region in zip(regroup(chunks, size), shares, strict=False):
            bad = ~np.isfinite(vectors).all(1)
            if bad.any():
                raise UserError(
                    f"the features of {split}/{clip} hold NaN or infinity from frame {start + int(bad.argmax())}; "
                    "use precision: fp32, or other weights"
                )
            count = len(vectors)
            columns = {
                "split": [split] * count,
                "clip": [clip] * count,
                "frame": pa.array(range(start, start + count), pa.int32()),
                "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
                "region": [None] * count if region is None else list(region),
            }
            self.writer.write_table(pa.table(columns, schema=self.schema), row_group_size=size)
            start += count

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()


@dataclass(frozen=True)
class FeatureClip:
    """The vectors of a clip."""

    path: Path
    split: str
    name: str
    length: int
    groups: tuple[int, ...]
    info: dict[str, Any]

    def chunks(self) -> Iterator[Vectors]:
        """Yield float32 (n, D).

        Raises:
            UserError: a vector holds NaN or infinity.
        """
        file = open_parquet(self.path)
        start = 0
        for group in self.groups:
            column = file.read_row_group(group, ["vector"])["vector"].combine_chunks()
            vectors = column.flatten().to_numpy().reshape(len(column), -1)
            if not np.isfinite(vectors).all():
                frame = start + int((~np.isfinite(vectors).all(1)).argmax())
                raise UserError(
                    f"{self.path}: clip {self.split}/{self.name}, frame {frame} holds NaN or infinity; "
                    "remove the file and run `dvc repro`"
                )
            yield vectors
            start += len(vectors)

    def regions(self) -> Iterator[Vectors]:
        """Yield what share of each cell matters, float32 (n, rows x columns), beside `chunks`; 1 where not told."""
        file = open_parquet(self.path)
        for group in self.groups:
            column = file.read_row_group(group, ["region"])["region"].combine_chunks()
            shape = len(column), self.grid[0] * self.grid[1]
            # A clip has regions or has none.
            yield np.ones(shape, np.float32) if column.null_count else column.flatten().to_numpy().reshape(shape)

    def vectors(self) -> Vectors:
        """Return all vectors, float32 (T, D)."""
        return np.concatenate(list(self.chunks()))

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of the cells whose vectors stand one behind the other in a frame's vector."""
        rows, columns = self.info.get("grid", (1, 1))
        return rows, columns

    def cells(self, vectors: Vectors) -> Vectors:
        """Return frame vectors (n, rows x columns x D) as vectors of cells, (n, rows x columns, D)."""
        return vectors.reshape(len(vectors), self.grid[0] * self.grid[1], -1)


def feature_clips(path: Path, info: dict[str, Any]) -> list[FeatureClip]:
    """Return the clips of a table in the order in which they stand there."""
    file = open_parquet(path)
    groups: dict[tuple[str, str], list[int]] = {}
    for group in range(file.num_row_groups):
        row = file.read_row_group(group, ["split", "clip"]).slice(0, 1).to_pylist()[0]
        groups.setdefault((row["split"], row["clip"]), []).append(group)
    return [
        FeatureClip(path, *key, sum(file.metadata.row_group(g).num_rows for g in of), tuple(of), info)
        for key, of in groups.items()
    ]
