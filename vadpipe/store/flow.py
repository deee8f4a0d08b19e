"""The flow store, `data/flow/NAME`: the motion into each frame.

Vectors are kept to a 32nd of a pixel, far below what an estimator is sure of, as whole numbers that zstd makes an
eleventh of on UCSD Ped2 (docs/performance.md); as floats they hardly compress.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadpipe.store.base import ROWS, ClipFile, open_writer, with_metadata

KIND = "flow"
# Steps a pixel; an int16 then holds motion of up to 1,023 pixels a frame.
_STEPS = 32
# Of a vector, compressed: 0.4 bytes on UCSD Ped2, where most is still; with a noisy camera more.
BYTES = 1.0
_CODEC = "zstd"
_LEVEL = 1

SCHEMA = pa.schema([pa.field("frame", pa.int32(), nullable=False), pa.field("flow", pa.binary())])

FlowField = npt.NDArray[np.float16]


def write_clip(path: Path, chunks: Iterable[list[FlowField | None]], height: int, width: int, **info: object) -> None:
    """Write the flow of a clip.

    Args:
        chunks: row groups of flow into each frame, float16 (height, width, 2) in x and y, in pixels of the
            clip's frames a frame; None for the first frame, which has no predecessor.
    """
    schema = with_metadata(SCHEMA, kind=KIND, height=height, width=width, **info)
    count = 0
    with open_writer(path, schema) as writer:
        for chunk in chunks:
            columns = {
                "frame": list(range(count, count + len(chunk))),
                "flow": [None if flow is None else _encode(flow) for flow in chunk],
            }
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROWS)
            count += len(chunk)


def _encode(flow: FlowField) -> bytes:
    """Return the planes of x and y, one behind the other, compressed."""
    limits = np.iinfo(np.int16)
    steps = np.round(flow.astype(np.float32) * _STEPS).clip(limits.min, limits.max).astype(np.int16)
    compressed: bytes = pa.Codec(_CODEC, _LEVEL).compress(np.moveaxis(steps, -1, 0).tobytes(), asbytes=True)
    return compressed


class FlowClip(ClipFile):
    """The flow of a clip."""

    def cell(self, side: int) -> tuple[int, int]:
        """Return height and width in grid points of a square of `side` pixels of the frame, at least 1."""
        return (
            max(1, round(side * self.info["height"] / self.info["frame_height"])),
            max(1, round(side * self.info["width"] / self.info["frame_width"])),
        )

    def chunks(self) -> Iterator[npt.NDArray[np.float16]]:
        """Yield float16 (n, h, w, 2): x and y in pixels of the clip's frames a frame; NaN for the first frame."""
        for rows in self.rows(["flow"]):
            yield np.stack([self._field(data) for data in rows["flow"]])

    def field(self, index: int) -> FlowField:
        """Return the flow into one frame, float16 (h, w, 2)."""
        return self._field(self.row(index, "flow"))

    def _field(self, data: pa.Scalar) -> FlowField:
        shape = (self.info["height"], self.info["width"], 2)
        if not data.is_valid:
            return np.full(shape, np.nan, np.float16)
        size = math.prod(shape) * np.dtype(np.int16).itemsize
        planes = np.frombuffer(pa.Codec(_CODEC).decompress(data.as_buffer(), size), np.int16)
        return np.moveaxis(planes.reshape(2, *shape[:2]) / np.float32(_STEPS), 0, -1).astype(np.float16)
