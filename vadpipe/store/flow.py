"""The flow store: `data/flow/NAME/{train,test}/CLIP.parquet`, the motion into each frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadpipe.store.base import ROWS, ClipFile, open_writer, with_metadata

KIND = "flow"

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
    # Flow hardly compresses: zstd saves a tenth of the space and takes as long as the flow itself.
    with open_writer(path, schema) as writer:
        for chunk in chunks:
            columns = {
                "frame": list(range(count, count + len(chunk))),
                "flow": [None if flow is None else flow.tobytes() for flow in chunk],
            }
            writer.write_table(pa.table(columns, schema=schema), row_group_size=ROWS)
            count += len(chunk)


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
        return np.frombuffer(data.as_buffer(), np.float16).reshape(shape)
