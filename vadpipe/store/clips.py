"""The clip store, `data/clips/NAME`: encoded frames, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadpipe.errors import UserError
from vadpipe.parallel import ordered_map
from vadpipe.store import images
from vadpipe.store.base import ROWS, ClipFile, open_writer, parts, with_metadata
from vadpipe.store.frames import Frame, Storing, encoded
from vadpipe.store.labels import LabelWriter

KIND = "clips"
VERSION = 2

SCHEMA = pa.schema(
    [
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
    ]
)


def write_clip(
    path: Path,
    truth: Path,
    frames: Iterable[Frame],
    storing: Storing,
    known: Mapping[str, object] | None = None,
    **info: object,
) -> int:
    """Write the frames of a clip to `path`, what is known of them to `truth`, and return their number.

    Args:
        known: metadata of `truth` alone; `info` goes to both.

    Raises:
        UserError: as `frames.checked`, or the clip is empty.
    """
    count = 0
    with ExitStack() as files:
        for group in parts(encoded(frames, storing), ROWS):
            if count == 0:
                about = {"kind": KIND, "version": VERSION, **group[0].size._asdict(), **info}
                writer = files.enter_context(open_writer(path, with_metadata(SCHEMA, **about)))
                labels = files.enter_context(closing(LabelWriter(truth, **about, **(known or {}))))
            columns = {
                "frame": list(range(count, count + len(group))),
                "image": [frame.row["image"] for frame in group],
                "name": [frame.name for frame in group],
            }
            writer.write_table(pa.table(columns, schema=writer.schema), row_group_size=ROWS)
            labels.write([frame.row for frame in group])
            count += len(group)
    if count == 0:
        raise UserError(f"the clip '{path.stem}' has no frames; remove it or add its frames")
    return count


class Clip(ClipFile):
    """A clip of the store."""

    def chunks(self, grey: bool = False) -> Iterator[images.Image]:
        """Yield decoded frames, uint8 (n, H, W, 3) RGB or with `grey` (n, H, W), decoded ahead in threads."""
        decode = images.decode_grey if grey else images.decode
        return ordered_map(lambda group: np.stack([decode(data) for data in group]), self.encoded())

    def encoded(self) -> Iterator[list[bytes]]:
        """Yield encoded frames, a row group at a time."""
        for rows in self.rows(["image"]):
            yield rows["image"].to_pylist()

    def masks(self, column: str, missing: bool) -> Iterator[npt.NDArray[np.bool_]]:
        """Yield the masks of a column, (n, H, W), a row group at a time; `missing` where a frame has none."""
        shape = self.info["height"], self.info["width"]

        def decode(group: list[bytes | None]) -> npt.NDArray[np.bool_]:
            return np.stack(
                [np.full(shape, missing) if data is None else images.decode_grey(data) > 0 for data in group]
            )

        return ordered_map(decode, (rows[column].to_pylist() for rows in self.rows([column])))

    def frame(self, index: int) -> images.Image:
        """Return one frame, uint8 (H, W, 3) RGB."""
        return images.decode(self.row(index, "image").as_py())
