"""The composite store, `data/composites/NAME`: clips beside copies of them into which virtual anomalies were pasted.

The column `image` holds the clean frames, so that the store serves wherever clips are wanted and nobody takes what was
pasted for data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadpipe.parallel import ordered_map
from vadpipe.store import images
from vadpipe.store.base import with_metadata, write_rows
from vadpipe.store.clips import SCHEMA, Clip

KIND = "composites"
VERSION = 1

Bools = npt.NDArray[np.bool_]


class Origin(NamedTuple):
    """Where something that was pasted comes from, and where it went.

    Attributes:
        source: name of the video that it was cut from.
        track: number of the object in it.
        frame: of the video, from 0.
        x: of the middle of its lower edge, pixels of the frame that it was pasted into.
        y: of its lower edge.
        scale: pixels of the frame a pixel of the source.
        mirrored: whether left and right were exchanged.
    """

    source: str
    track: int
    frame: int
    x: float
    y: float
    scale: float
    mirrored: bool


_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("composite", pa.binary()),
        pa.field("pasted", pa.binary()),
        pa.field(
            "provenance",
            pa.list_(
                pa.struct(
                    [
                        ("source", pa.string()),
                        ("track", pa.int32()),
                        ("frame", pa.int32()),
                        ("x", pa.float32()),
                        ("y", pa.float32()),
                        ("scale", pa.float32()),
                        ("mirrored", pa.bool_()),
                    ]
                )
            ),
        ),
    ]
)


@dataclass(frozen=True)
class Composite:
    """A frame on its way into the store.

    Attributes:
        image: the clean frame, encoded.
        composite: with what was pasted, encoded; None = nothing was.
        pasted: pixels that were pasted, a mask encoded.
        origins: of what was pasted, in the order in which it was.
    """

    name: str
    image: bytes
    composite: bytes | None = None
    pasted: bytes | None = None
    origins: list[Origin] = field(default_factory=list)

    def row(self) -> dict[str, object]:
        """Return the row of the store."""
        return {
            "image": self.image,
            "name": self.name,
            "composite": self.composite,
            "pasted": self.pasted,
            "provenance": [origin._asdict() for origin in self.origins],
        }


def write_clip(path: Path, source: Clip, frames: Iterable[Composite], **info: object) -> None:
    """Write the frames of a clip, in their order, with the metadata of the clip that they come from."""
    schema = with_metadata(_SCHEMA, **{**source.info, "kind": KIND, "version": VERSION, **info})
    write_rows(path, schema, (frame.row() for frame in frames))


class CompositeClip(Clip):
    """A clip with its composites; where nothing was pasted, the composite is the frame."""

    def composites(self) -> Iterator[images.Image]:
        """Yield frames with what was pasted, uint8 (n, H, W, 3) RGB, decoded ahead in threads."""

        def decode(rows: pa.Table) -> images.Image:
            pairs = zip(rows["composite"].to_pylist(), rows["image"].to_pylist(), strict=True)
            return np.stack([images.decode(composite or image) for composite, image in pairs])

        return ordered_map(decode, self.rows(["image", "composite"]))

    def pasted(self) -> Iterator[Bools]:
        """Yield which pixels were pasted, (n, H, W), a row group at a time."""
        return self.masks("pasted", missing=False)

    def composite(self, index: int) -> images.Image:
        """Return one frame with what was pasted, uint8 (H, W, 3) RGB."""
        composite = self.row(index, "composite").as_py()
        return self.frame(index) if composite is None else images.decode(composite)

    def pasted_into(self, index: int) -> Bools:
        """Return which pixels of one frame were pasted, (H, W)."""
        mask = self.row(index, "pasted").as_py()
        shape = self.info["height"], self.info["width"]
        return np.zeros(shape, np.bool_) if mask is None else images.decode_grey(mask) > 0

    @property
    def has_composites(self) -> bool:
        """Return whether anything was pasted into any of the frames."""
        return any(self.column("provenance"))
