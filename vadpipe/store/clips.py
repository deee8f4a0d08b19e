"""The clip store: `data/clips/NAME/{train,test}/CLIP.parquet`, a row a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vadpipe.errors import UserError
from vadpipe.parallel import ordered_map
from vadpipe.store import images
from vadpipe.store.base import ROWS, ClipFile, open_parquet, parts, with_metadata
from vadpipe.store.counts import Counts, scale16
from vadpipe.store.files import read_file
from vadpipe.store.image_files import Numbers, Pixels, read_image
from vadpipe.store.mask_files import mask_of, read_mask

KIND = "clips"
VERSION = 1
# Frames that a thread takes at once: enough to hide its start, few enough when they are decoded video.
_TASK = 8

BOX = pa.struct([("track", pa.int32()), *((side, pa.int32()) for side in ("x_min", "y_min", "x_max", "y_max"))])
SCHEMA = pa.schema(
    [
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("mask", pa.binary()),
        pa.field("label", pa.int8()),
        pa.field("name", pa.string(), nullable=False),
        pa.field("boxes", pa.list_(BOX)),
    ]
)


@dataclass(frozen=True)
class Frame:
    """A frame on its way into the store.

    Attributes:
        name: where it comes from, for messages and for the column `name`.
        image: an encoded file, or decoded pixels, uint8 (H, W, 3) RGB or (H, W), or counts, uint16 (H, W).
        mask: an encoded file or numbers (H, W) or (H, W, C), not zero = abnormal; None where there is none.
        label: 1 abnormal, 0 normal, None unknown.
        boxes: abnormal boxes, pixels, x_max and y_max exclusive; None where there are none.
    """

    name: str
    image: Path | Pixels
    mask: Path | Numbers | None = None
    label: int | None = None
    boxes: list[dict[str, int]] | None = None
    time: float | None = None  # seconds from the beginning of the source


def checked_rows(frames: Iterable[Frame], quality: int | None) -> Iterator[list[dict[str, Any]]]:
    """Check and encode frames in threads, and yield the rows of each row group (with the frame's `size`).

    The bytes of JPEG and PNG files are taken over; other frames become PNG, or JPEG of `quality`.

    Raises:
        UserError: a frame is cut off, no image, or of another size than the first; a mask has another
            size than its frame or marks pixels of a frame labelled normal.
    """
    encoded = ordered_map(lambda part: [_encode(frame, quality) for frame in part], parts(frames, _TASK))
    first: images.Size | None = None
    for rows in parts(chain.from_iterable(encoded), ROWS):
        for row in rows:
            first = first or row["size"]
            _check_size(row, first)
        yield rows


def write_clip(path: Path, frames: Iterable[Frame], quality: int | None, **info: object) -> int:
    """Write a clip and return its number of frames.

    Raises:
        UserError: as `checked_rows`, or the clip is empty.
    """
    writer: pq.ParquetWriter | None = None
    count = 0
    try:
        for rows in checked_rows(frames, quality):
            if writer is None:
                size = rows[0]["size"]._asdict()
                schema = with_metadata(SCHEMA, kind=KIND, version=VERSION, **size, **info)
                # JPEG and PNG do not compress further; the small columns are not worth it.
                writer = pq.ParquetWriter(path, schema, compression="none", use_dictionary=False)
            columns = {name: [row[name] for row in rows] for name in SCHEMA.names if name != "frame"}
            columns["frame"] = list(range(count, count + len(rows)))
            writer.write_table(pa.table(columns, schema=writer.schema), row_group_size=ROWS)
            count += len(rows)
    finally:
        if writer is not None:
            writer.close()
    if count == 0:
        raise UserError(f"the clip '{path.stem}' has no frames; remove it or add its frames")
    return count


def _encode(frame: Frame, quality: int | None, counts: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the row of a frame, its size under `size`, and what was done to it under `notes`."""
    image, size, notes = _encode_image(frame, quality, counts)
    mask = None
    if frame.mask is not None:
        mask, told = _encode_mask(frame, frame.mask, size)
        notes |= {f"mask: {note}" for note in told}
    return {
        "image": image,
        "size": size,
        "notes": notes,
        "mask": mask,
        "label": frame.label,
        "name": frame.name,
        "boxes": frame.boxes,
    }


def _encode_image(
    frame: Frame, quality: int | None, counts: tuple[int, int] | None
) -> tuple[bytes, images.Size, frozenset[str]]:
    """Return a frame's bytes as they are stored, its size, and what was done.

    Args:
        frame: the frame.
        quality: of JPEG, or None for PNG; bytes that can be kept are taken over.
        counts: the range of the training set, for frames of 16 bit.

    Raises:
        UserError: the file is none that is read.
        ValueError: a frame has 16 bit and there is no range.
    """
    pixels, notes = frame.image, frozenset[str]()
    if isinstance(pixels, Path):
        data = read_file(pixels)
        try:
            loaded = read_image(data)
        except ValueError as error:
            raise UserError(f"{frame.name}: {error}; replace the file or remove its clip") from None
        if loaded.kept:
            return data, loaded.size, loaded.notes
        pixels, notes = loaded.pixels, loaded.notes
        if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
            pixels = pixels[..., 0].copy()
    image = _of_8_bit(pixels, frame.name, counts)
    data = images.encode_png(image) if quality is None else images.encode_jpeg(image, quality)
    return data, images.size_of(image), notes


def _of_8_bit(pixels: Pixels, name: str, counts: tuple[int, int] | None) -> images.Image:
    if pixels.dtype == np.uint8:
        return cast(images.Image, pixels)
    if counts is None:
        raise ValueError(f"{name} has 16 bit, but no range of counts to scale it by")
    return scale16(cast(Counts, pixels), *counts)


def _encode_mask(frame: Frame, mask: Path | Numbers, size: images.Size) -> tuple[bytes, frozenset[str]]:
    """Return a mask as PNG, 0 and 255, and what was done."""
    name = mask if isinstance(mask, Path) else f"the mask of {frame.name}"
    try:
        marked, notes = read_mask(read_file(mask)) if isinstance(mask, Path) else mask_of(mask)
    except ValueError as error:
        raise UserError(f"{name}: {error}; replace the mask") from None
    if marked.shape != size[:2]:
        raise UserError(
            f"{name} is {marked.shape[0]}x{marked.shape[1]} pixels (height x width) but its frame {frame.name} is "
            f"{size.height}x{size.width}; make the mask of the frame's size"
        )
    if frame.label == 0 and marked.any():
        raise UserError(
            f"{name} marks abnormal pixels but the labels call {frame.name} normal; "
            "extend the interval or empty the mask"
        )
    return images.encode_png(marked.astype(np.uint8) * np.uint8(255)), notes


def _check_size(row: dict[str, Any], first: images.Size) -> None:
    if row["size"][:2] != first[:2]:
        raise UserError(
            f"{row['name']} is {row['size'].height}x{row['size'].width} pixels (height x width) but the clip began "
            f"with {first.height}x{first.width}; a clip has one size, split it or resize its frames"
        )


class Clip(ClipFile):
    """A clip of the store."""

    def labels(self) -> npt.NDArray[np.int8] | None:
        """Return int8 (T,), 1 = abnormal, or None where the clip has no labels."""
        labels = self.column("label")
        return None if any(label is None for label in labels) else np.array(labels, np.int8)

    def chunks(self, grey: bool = False) -> Iterator[images.Image]:
        """Yield decoded frames, uint8 (n, H, W, 3) RGB or with `grey` (n, H, W), decoded ahead in threads."""
        decode = images.decode_grey if grey else images.decode
        return ordered_map(lambda group: np.stack([decode(data) for data in group]), self.encoded())

    def encoded(self) -> Iterator[list[bytes]]:
        """Yield encoded frames, a row group at a time."""
        for rows in self.rows(["image"]):
            yield rows["image"].to_pylist()

    def frame(self, index: int) -> images.Image:
        """Return one frame, uint8 (H, W, 3) RGB."""
        rows = open_parquet(self.path).read_row_group(index // ROWS, ["image"])
        return images.decode(rows["image"][index % ROWS].as_py())
