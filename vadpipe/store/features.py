"""The feature store, `data/features/NAME`: a vector a frame; maps of layers, one behind the other, have 16 bits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadpipe.errors import UserError
from vadpipe.store.base import ClipFile, open_writer, regroup, with_metadata

KIND = "features"
# Rows and floats of a row group, at most. 256 vectors of 2,048 floats are 2 MB.
ROWS, FLOATS = 256, 2**22

Vectors = npt.NDArray[np.float32]
Halves = npt.NDArray[np.float16]


def write_clip(
    path: Path, dim: int, chunks: Iterable[Vectors | Halves], regions: Iterable[Vectors] | None = None, **info: object
) -> None:
    """Write a clip's vectors, (n, D) chunks in the order of the frames.

    Args:
        regions: what share of each cell matters, float32 (n, cells) chunks; None = every cell.

    Raises:
        UserError: a vector holds NaN or infinity.
    """
    fields = [
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("vector", pa.list_(pa.float16() if info.get("maps") else pa.float32(), dim), nullable=False),
        pa.field("region", pa.list_(pa.float32())),
    ]
    schema = with_metadata(pa.schema(fields), **info, kind=KIND, dim=dim)
    start = 0
    size = max(1, min(ROWS, FLOATS // dim))
    shares = repeat(None) if regions is None else regroup(regions, size)
    kept = np.float16 if info.get("maps") else np.float32
    with open_writer(path, schema) as writer:
        for computed, region in zip(regroup(chunks, size), shares, strict=False):
            with np.errstate(over="ignore"):  # what becomes infinite is refused
                vectors = computed.astype(kept, copy=False)
            bad = ~np.isfinite(vectors).all(1)
            if bad.any():
                raise UserError(
                    f"the features of {path.parent.name}/{path.stem} hold NaN or infinity from frame "
                    f"{start + int(bad.argmax())}; use precision: fp32, or other weights"
                )
            count = len(vectors)
            columns = {
                "frame": pa.array(range(start, start + count), pa.int32()),
                "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1]),
                "region": [None] * count if region is None else list(region),
            }
            writer.write_table(pa.table(columns, schema=schema), row_group_size=size)
            start += count


class FeatureClip(ClipFile):
    """The vectors of a clip."""

    def chunks(self) -> Iterator[Vectors]:
        """Yield float32 (n, D).

        Raises:
            UserError: a vector holds NaN or infinity.
        """
        start = 0
        for rows in self.rows(["vector"]):
            column = rows["vector"].combine_chunks()
            vectors = column.flatten().to_numpy().reshape(len(column), -1).astype(np.float32, copy=False)
            if not np.isfinite(vectors).all():
                frame = start + int((~np.isfinite(vectors).all(1)).argmax())
                raise UserError(
                    f"{self.path}: frame {frame} holds NaN or infinity; remove the file and run `dvc repro`"
                )
            yield vectors
            start += len(vectors)

    def regions(self) -> Iterator[Vectors]:
        """Yield what share of each cell matters, float32 (n, rows x columns), beside `chunks`; 1 where not told."""
        for rows in self.rows(["region"]):
            column = rows["region"].combine_chunks()
            shape = len(column), self.grid[0] * self.grid[1]
            # A clip has regions or has none.
            yield np.ones(shape, np.float32) if column.null_count else column.flatten().to_numpy().reshape(shape)

    def vectors(self) -> Vectors:
        """Return all vectors, float32 (T, D)."""
        return np.concatenate(list(self.chunks()))

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of the cells whose vectors stand one behind the other in a frame's vector.

        Raises:
            UserError: it holds maps.
        """
        grid = self.info.get("grid", (1, 1))
        if grid is None:
            raise UserError(
                f"{self.path.parent.parent} holds maps of layers, but vectors are wanted; give features with a grid"
            )
        rows, columns = grid
        return rows, columns

    def layers(self, wanted: Sequence[int]) -> list[int]:
        """Return where the maps of layers of the backbone stand among those that are stored.

        Raises:
            UserError: it holds no maps, or not of one of these layers.
        """
        there = self.info["computed"]["layers"] if self.info.get("maps") else []
        for layer in wanted:
            if layer not in there:
                has = f"those of layers {', '.join(map(str, there))}" if there else "vectors"
                raise UserError(
                    f"{self.path.parent.parent} holds {has}, but the map of layer {layer} is wanted; give features "
                    "of that layer, with `grid:` null"
                )
        return [there.index(layer) for layer in wanted]

    def maps(self, vectors: Vectors, layers: Sequence[int]) -> list[Vectors]:
        """Return the maps of layers, (n, h, w, channels) each, in vectors (n, D).

        Raises:
            UserError: as `layers`.
        """
        places = self.layers(layers)
        ends = np.cumsum([height * width * channels for height, width, channels in self.info["maps"]])
        parts = np.split(vectors, ends[:-1], axis=1)
        return [parts[place].reshape(-1, *self.info["maps"][place]) for place in places]

    def cells(self, vectors: Vectors) -> Vectors:
        """Return frame vectors (n, rows x columns x D) as vectors of cells, (n, rows x columns, D)."""
        return vectors.reshape(len(vectors), self.grid[0] * self.grid[1], -1)
