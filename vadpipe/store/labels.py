"""The label store, `data/labels/NAME`: when the frames of the clip store were taken, and what is abnormal in
them, by frame, pixel and box.

It lies beside the clips, not in them, so that a corrected label computes no flow and no feature again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadpipe.store.base import ROWS, ClipFile, open_writer, with_metadata

KIND = "labels"

BOX = pa.struct([("track", pa.int32()), *((side, pa.int32()) for side in ("x_min", "y_min", "x_max", "y_max"))])
SCHEMA = pa.schema(
    [
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("time", pa.float64()),
        pa.field("label", pa.int8()),
        pa.field("mask", pa.binary()),
        pa.field("boxes", pa.list_(BOX)),
    ]
)


class LabelWriter:
    """Writes what is known of a clip's frames, in their order."""

    def __init__(self, path: Path, **info: object) -> None:
        self.writer = open_writer(path, with_metadata(SCHEMA, **{**info, "kind": KIND}))
        self.count = 0

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows of `time` (s), `label` (1, 0, None = unknown), `mask` (PNG or None), `boxes` (a list or None)."""
        columns: dict[str, Any] = {name: [row[name] for row in rows] for name in ("time", "label", "mask", "boxes")}
        columns["frame"] = list(range(self.count, self.count + len(rows)))
        self.writer.write_table(pa.table(columns, schema=self.writer.schema), row_group_size=ROWS)
        self.count += len(rows)

    def close(self) -> None:
        """Finish the file."""
        self.writer.close()


class LabelClip(ClipFile):
    """What is known of the frames of a clip; its metadata are those of the clip.

    Attributes:
        category: for which it is asked; None = for no certain one.
    """

    category: str | None = None

    def column(self, name: str) -> list[Any]:
        """Return a column whole; of a clip that is abnormal for the category as such, all labels are 1."""
        if name == "label" and self.category in self.info.get("abnormal", []):
            return [1] * self.length
        return super().column(name)

    def labels(self) -> npt.NDArray[np.int8] | None:
        """Return int8 (T,), 1 = abnormal, or None where the clip has no labels."""
        labels = self.column("label")
        return None if any(label is None for label in labels) else np.array(labels, np.int8)
