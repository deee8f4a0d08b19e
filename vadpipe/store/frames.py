"""Frames on their way into the store: read, checked, scaled and encoded, ahead in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.errors import UserError
from vadpipe.files import read_bytes
from vadpipe.parallel import ordered_map
from vadpipe.store import images
from vadpipe.store.base import parts
from vadpipe.store.counts import Counts, scale16
from vadpipe.store.image_files import Numbers, Pixels, read_image
from vadpipe.store.mask_files import mask_of, read_mask

# Frames that a thread takes at once: enough to hide its start, few enough when they are decoded video.
_TASK = 8

Bools = npt.NDArray[np.bool_]
Boxes = list[dict[str, int]]


@dataclass(frozen=True)
class Frame:
    """A frame as a reader gives it.

    Attributes:
        name: where it comes from, for messages and for the column `name`.
        image: an encoded file, or decoded pixels, uint8 (H, W, 3) RGB or (H, W), or counts, uint16 (H, W).
        mask: an encoded file or numbers (H, W) or (H, W, C), not zero = abnormal; None where there is none.
        label: 1 abnormal, 0 normal, None unknown.
        boxes: abnormal boxes, pixels, x_max and y_max exclusive; None where there are none.
        time: seconds from the beginning of the source; None = the frame has no place in time.
    """

    name: str
    image: Path | Pixels
    mask: Path | Numbers | None = None
    label: int | None = None
    boxes: Boxes | None = None
    time: float | None = None


@dataclass(frozen=True)
class Storing:
    """How frames are stored.

    Attributes:
        quality: of JPEG, for what has to be encoded; None = PNG. Whole JPEG and PNG files are taken over.
        side: longest side, pixels; larger frames are made smaller, with their masks and boxes. None = as they are.
        size: height and width, pixels, that frames of several sizes are brought to before.
        counts: lowest and highest count of the training frames, where frames have 16 bit.
    """

    quality: int | None
    side: int | None = None
    size: tuple[int, int] | None = None
    counts: tuple[int, int] | None = None


@dataclass(frozen=True)
class Checked:
    """A frame that is right.

    Attributes:
        name: as in `Frame`, and likewise label and time.
        pixels: as they are stored, uint8 (H, W, 3) RGB or (H, W).
        kept: bytes that can be stored for them as they are, None = encode.
        mask: (H, W), True = abnormal.
        boxes: in pixels of what is stored.
        notes: what was done to it that matters.
    """

    name: str
    pixels: images.Image
    kept: bytes | None
    mask: Bools | None
    label: int | None
    boxes: Boxes | None
    time: float | None
    notes: frozenset[str]

    @property
    def size(self) -> images.Size:
        """Return the size."""
        return images.size_of(self.pixels)


def checked(frames: Iterable[Frame], storing: Storing) -> Iterator[Checked]:
    """Yield frames read and checked, in order.

    Raises:
        UserError: a frame is cut off, no image, of 16 bit where training frames are not, or of another size than the
            first; a mask has another size than its frame; a mask or a box marks a frame labelled normal.
    """
    return _one_size(_in_threads(lambda frame: check(frame, storing), frames))


def encoded(frames: Iterable[Frame], storing: Storing) -> Iterator[Encoded]:
    """Yield frames read, checked and encoded, in order.

    Raises:
        UserError: as `checked`.
    """
    return _one_size(_in_threads(lambda frame: encode(check(frame, storing), storing.quality), frames))


class _Sized(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def size(self) -> images.Size: ...


T = TypeVar("T")
SizedT = TypeVar("SizedT", bound=_Sized)


def _in_threads(work: Callable[[Frame], T], frames: Iterable[Frame]) -> Iterator[T]:
    return chain.from_iterable(ordered_map(lambda part: [work(frame) for frame in part], parts(frames, _TASK)))


def _one_size(frames: Iterator[SizedT]) -> Iterator[SizedT]:
    first: images.Size | None = None
    for frame in frames:
        first = first or frame.size
        if frame.size[:2] != first[:2]:
            raise UserError(
                f"{frame.name} is {frame.size.height}x{frame.size.width} pixels (height x width) but the clip began "
                f"with {first.height}x{first.width}; a clip has one size, split it or resize its frames"
            )
        yield frame


def check(frame: Frame, storing: Storing) -> Checked:
    """Return a frame as it is to be stored.

    Raises:
        UserError: as `checked`, sizes of several frames aside.
    """
    kept, pixels, notes = _read(frame)
    image = _of_8_bit(pixels, frame.name, storing.counts)
    mask = None
    if frame.mask is not None:
        mask, told = _read_mask(frame, frame.mask, images.size_of(image))
        notes |= {f"mask: {note}" for note in told}
    boxes = frame.boxes
    if boxes and frame.label == 0:
        raise UserError(
            f"{frame.name} has a box around something abnormal but the labels call it normal; "
            "extend the interval or remove the box"
        )
    height, width = image.shape[:2]
    wanted = _size(height, width, storing)
    if wanted != (width, height):
        # What is larger in one direction and smaller in the other shrinks by its area all the same.
        shrinks = wanted[0] * wanted[1] < width * height
        way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        kept, image = None, cv2.resize(image, wanted, interpolation=way).astype(np.uint8)
        mask = None if mask is None else _resized(mask, wanted)
        boxes = None if boxes is None else [_scaled(box, wanted[0] / width, wanted[1] / height) for box in boxes]
    return Checked(frame.name, image, kept, mask, frame.label, boxes, frame.time, notes)


def _size(height: int, width: int, storing: Storing) -> tuple[int, int]:
    """Return width and height that a frame is stored with."""
    height, width = storing.size or (height, width)
    if storing.side is None or max(height, width) <= storing.side:
        return width, height
    scale = storing.side / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _resized(mask: Bools, size: tuple[int, int]) -> Bools:
    """Return a mask of another size; a pixel is abnormal if half of it is, so that areas keep their share."""
    shrinks = size[0] * size[1] < mask.size
    share = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(share >= 0.5)


def _scaled(box: dict[str, int], across: float, down: float) -> dict[str, int]:
    """Return a box in a smaller picture: every pixel that it touches."""
    return {
        **box,
        "x_min": int(np.floor(box["x_min"] * across)),
        "y_min": int(np.floor(box["y_min"] * down)),
        "x_max": int(np.ceil(box["x_max"] * across)),
        "y_max": int(np.ceil(box["y_max"] * down)),
    }


@dataclass(frozen=True)
class Encoded:
    """A frame as it is written: the row of its image and of its labels."""

    row: dict[str, Any]
    size: images.Size
    notes: frozenset[str]

    @property
    def name(self) -> str:
        """Return where the frame comes from."""
        return str(self.row["name"])


def encode(frame: Checked, quality: int | None) -> Encoded:
    """Encode a frame and its mask."""
    data = frame.kept
    if data is None:
        data = images.encode_png(frame.pixels) if quality is None else images.encode_jpeg(frame.pixels, quality)
    mask = None if frame.mask is None else images.encode_mask(frame.mask)
    row: dict[str, Any] = {"image": data, "name": frame.name, "time": frame.time}
    row |= {"label": frame.label, "mask": mask, "boxes": frame.boxes}
    return Encoded(row, frame.size, frame.notes)


def _read(frame: Frame) -> tuple[bytes | None, Pixels, frozenset[str]]:
    """Return bytes that can be kept, pixels, and what was done to them."""
    if not isinstance(frame.image, Path):
        return None, frame.image, frozenset()
    data = read_bytes(frame.image)
    try:
        loaded = read_image(data)
    except ValueError as error:
        raise UserError(f"{frame.name}: {error}; replace the file or remove its clip") from None
    pixels = loaded.pixels
    if not loaded.kept and pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0].copy()
    return data if loaded.kept else None, pixels, loaded.notes


def _of_8_bit(pixels: Pixels, name: str, counts: tuple[int, int] | None) -> images.Image:
    if pixels.dtype == np.uint8:
        return cast(images.Image, pixels)
    if counts is None:
        raise UserError(
            f"{name} has 16 bit, but the training clips begin with frames of 8; the range of 16-bit frames is taken "
            "from training, so give both the same depth"
        )
    return scale16(cast(Counts, pixels), *counts)


def _read_mask(frame: Frame, mask: Path | Numbers, size: images.Size) -> tuple[Bools, frozenset[str]]:
    """Return which pixels are abnormal, (H, W), and what was done."""
    name = mask if isinstance(mask, Path) else f"the mask of {frame.name}"
    try:
        marked, notes = read_mask(read_bytes(mask)) if isinstance(mask, Path) else mask_of(mask)
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
    return marked, notes
