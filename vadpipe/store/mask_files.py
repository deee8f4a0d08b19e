"""Masks of users: which pixels are abnormal. One rule each.

- A pixel is abnormal where any channel is not zero: 0 and 255, 0 and 1, ids of 8, 16 or 32 bit, colours, and numbers
  with a point. In an image with a palette the colour counts, not the index: black is normal. Where the palette's
  index 0 is another colour, and used, that is told, because then the background may be coloured.
- Alpha. Where all pixels have one colour and alpha is not the same everywhere, or 0 everywhere, the mask is in the
  alpha channel, which is told. Else, where alpha varies, a wholly transparent pixel is normal. Alpha that is the same
  everywhere is ignored.
- Soft edges, of a mask that was drawn smoothly, scaled or blurred, are cut at half of the range: abnormal is what
  lies above half of the largest value. At a soft edge the values step up from pixel to pixel, while an id fills an
  area: a pixel is between if it has a lower and a higher neighbour (of eight) and lies in no square of 2 by 2 equal
  pixels, and the edges are soft if more than an eighth of the pixels with a lower neighbour are between. Whole
  numbers up to 15 are always ids. A JPEG with more than two values is always cut at half, since it blurs all edges.
  Of a colour its largest channel is looked at. A cut is told, and so is a mask of several values that is not cut.
- The EXIF orientation is applied, as to pictures. What `image_files` refuses is refused, but for numbers of 32 bit.
- A `.npy` holds uint8, bool, integers or numbers with a point, (T, H, W) or (T, H, W, C), where each channel counts
  as a colour does. Numbers below zero, NaN and infinity are refused.
"""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.errors import UserError
from vadpipe.files import reading
from vadpipe.store.image_files import PICTURE_MODES, Numbers, read_planes

Mask = npt.NDArray[np.bool_]

_SOFT = frozenset({"soft edges, cut at half of the range"})
_SEVERAL = frozenset({"several values, each above zero abnormal"})
# What `image_files` tells of pictures and does not matter in a mask.
_HARMLESS = {"palette expanded", "alpha dropped"}
_IDS = 15  # whole numbers up to here are ids
# What NumPy raises on a damaged header, which it reads as Python.
_NO_ARRAY = (ValueError, TypeError, EOFError, ArithmeticError, SyntaxError, tokenize.TokenError, RecursionError)
_SQUARE, _AROUND = np.ones((2, 2), np.uint8), np.ones((3, 3), np.uint8)


def read_mask(data: bytes) -> tuple[Mask, frozenset[str]]:
    """Return bool (H, W), true = abnormal, of an image file, and what was done that matters.

    Raises:
        ValueError: it is no image, damaged, or of a kind that is refused.
    """
    planes = read_planes(data, PICTURE_MODES | {"I", "F"})
    values, alpha, notes = _one_channel(planes.colour), planes.alpha, set(planes.notes) - _HARMLESS
    if planes.palette is not None and planes.palette[1] and any(planes.palette[0]):
        notes.add(f"index 0 of the palette is the colour {planes.palette[0]} and counts as abnormal")
    if alpha is not None:
        varies = bool((alpha != alpha[0, 0]).any())
        flat = bool((planes.colour == planes.colour[0, 0]).all())
        if flat and (varies or alpha[0, 0] == 0):
            values = alpha
            notes.add("taken from the alpha channel")
        elif varies:
            values = np.where(alpha > 0, values, 0)
    mask, told = _cut(_checked(values), lossy=planes.format in {"JPEG", "MPO"})
    return mask, told | notes


def mask_of(values: Numbers) -> tuple[Mask, frozenset[str]]:
    """Return bool (H, W), true = abnormal, of the numbers (H, W) or (H, W, C) of a mask, and what was done.

    Raises:
        ValueError: a number is negative, not finite, or the array is no mask.
    """
    return _cut(_checked(np.asarray(values)))


def _checked(values: Numbers) -> Numbers:
    """Return the numbers of a mask, its largest channel, (H, W)."""
    if values.ndim not in {2, 3} or values.dtype.kind not in "buif":
        raise ValueError(f"{values.dtype} numbers of the shape {values.shape} are no mask")
    values = _one_channel(values)
    # NaN makes a comparison false.
    if values.size and not (values.min() >= 0 and values.max() < np.inf):
        raise ValueError("it holds numbers below zero, infinite or NaN, of which nobody knows what they mean")
    return values


def _cut(values: Numbers, lossy: bool = False) -> tuple[Mask, frozenset[str]]:
    """Return bool (H, W) of numbers (H, W), and how they were cut."""
    top = values.max(initial=0)
    if ((values == 0) | (values == top)).all():
        return values > 0, frozenset()
    if lossy or _is_soft(values):
        return values > top / 2, _SOFT
    return values > 0, _SEVERAL


def open_npy_masks(path: Path) -> Numbers:
    """Open the masks of a clip, (T, H, W) or (T, H, W, C), mapped, not read; `mask_of` makes a mask of each.

    Raises:
        UserError: as `open_npy`, or it has another shape.
    """
    volume = open_npy(path)
    if volume.ndim not in {3, 4} or 0 in volume.shape:
        raise UserError(
            f"{path} has the shape {volume.shape}; expected (frames, height, width), or with channels as a fourth axis"
        )
    return volume


def open_npy(path: Path) -> Numbers:
    """Open an array of labels, mapped, not read.

    Raises:
        UserError: the file is no .npy, cut off, or holds something else than numbers.
    """
    with reading(path):
        with path.open("rb") as file:
            if file.read(2) == b"PK":
                raise UserError(f"{path} is an .npz (or another zip), not an .npy; save its array with numpy.save")
        try:
            with np.errstate(over="ignore"):  # of the product of a giant shape
                volume = np.load(path, mmap_mode="r", allow_pickle=False)
        except _NO_ARRAY as error:
            raise UserError(f"{path} is no whole .npy file of numbers ({error}); save it anew") from None
    if volume.dtype.kind not in "buif":
        raise UserError(f"{path} holds {volume.dtype} and not numbers; save the masks as uint8")
    return volume  # type: ignore[no-any-return]


def _one_channel(values: Numbers) -> Numbers:
    """Return the largest channel of each pixel, (H, W)."""
    return np.asarray(values.max(2)) if values.ndim == 3 else values


def _is_soft(values: npt.NDArray[Any]) -> bool:
    """Say whether the edges of a mask, (H, W), are soft, by the rule above."""
    if values.dtype.kind != "f" and values.max() <= _IDS:
        return False
    # Only the order matters, and OpenCV takes no integers of 32 bit.
    if values.dtype not in (np.uint8, np.uint16):
        values = np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.float32)
    rising = (values > 0) & (cv2.erode(values, _AROUND) < values)
    # Where a pixel and those above, left, and above left of it are equal; spread to all four.
    square = (cv2.erode(values, _SQUARE) == cv2.dilate(values, _SQUARE)).astype(np.uint8)
    square[0], square[:, 0] = 0, 0
    in_area = cv2.dilate(square, _SQUARE, anchor=(0, 0)) > 0
    between = rising & (cv2.dilate(values, _AROUND) > values) & ~in_area
    return bool(np.count_nonzero(between) * 8 > np.count_nonzero(rising))
