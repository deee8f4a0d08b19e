"""Cutouts in a frame: scaled, mirrored, made grey where the frame is, with a soft edge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.prepare.composite.cutting import Sequence as Cut
from vadpipe.prepare.composite.cutting import decoded
from vadpipe.prepare.composite.planning import Placed
from vadpipe.prepare.composite.walkers import Walkers
from vadpipe.store.composites import Bools
from vadpipe.store.images import Image

Floats = npt.NDArray[np.float32]

_CONTRAST = (0.5, 2.0)  # smallest and largest factor by which contrast is matched
_COVERED = 0.25  # share of a pixel that an object covers, at least, to be seen in it: limbs are thin


class Tone(NamedTuple):
    """What is done to grey levels: gain * level + offset."""

    gain: float
    offset: float


AS_IT_IS = Tone(1.0, 0.0)


def levels(sequences: Sequence[Cut]) -> tuple[float, float]:
    """Return mean and deviation of the grey levels of objects, medians over sequences."""
    found = []
    for sequence in sequences:
        there = [one for one in sequence.cutouts if one is not None]
        pixels = decoded(there[len(there) // 2])
        grey = cv2.cvtColor(pixels[..., :3], cv2.COLOR_RGB2GRAY)[pixels[..., 3] > 127]
        found.append((grey.mean(), grey.std()) if len(grey) else (127.0, 1.0))
    mean, deviation = np.median(found, axis=0).tolist()
    return mean, deviation


def matched(objects: tuple[float, float], walkers: Walkers) -> Tone:
    """Return what gives objects, of some mean and deviation, brightness and contrast of the people of the target."""
    if walkers.few:
        return AS_IT_IS
    mean, deviation = np.median(walkers.grey, axis=0).tolist()
    gain = float(np.clip(deviation / max(objects[1], 1.0), *_CONTRAST))
    return Tone(gain, mean - gain * objects[0])


def pasted(frame: Image, placed: Sequence[Placed], tone: Tone | None, edge: float) -> tuple[Image, Bools]:
    """Return a frame, uint8 (H, W) or (H, W, 3), with cutouts in it, and the pixels that show them (H, W).

    Args:
        tone: makes the cutouts grey; None = in their colours, for a frame in colour only.
        edge: sigma of the Gaussian that softens the edge, pixels; 0 = hard.
    """
    composite, shown = frame.copy(), np.zeros(frame.shape[:2], np.bool_)
    for one in placed:
        colours, alpha, shape = _drawn(one, tone, edge)
        height, width = alpha.shape
        top, left = round(one.origin.y - height / 2 - _half(one)), round(one.origin.x - width / 2)
        rows = slice(max(top, 0), max(0, min(top + height, frame.shape[0])))
        columns = slice(max(left, 0), max(0, min(left + width, frame.shape[1])))
        inner = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        weight = alpha[inner] if frame.ndim == 2 else alpha[inner][..., None]
        colour = colours[inner] if frame.ndim == colours.ndim else colours[inner][..., None]
        under = composite[rows, columns].astype(np.float32)
        composite[rows, columns] = (under + (colour - under) * weight).round()
        shown[rows, columns] |= shape[inner]
    return composite, shown


def _half(one: Placed) -> float:
    """Return half the height of a cutout in the target, pixels."""
    return one.cutout.height * one.origin.scale / 2


def _drawn(one: Placed, tone: Tone | None, edge: float) -> tuple[Floats, Floats, Bools]:
    """Return colours (h, w, 3), or grey levels (h, w), opacity (h, w) in 0..1, and shape (h, w), with room around.

    The shape is that before the edge was softened: of thin limbs it leaves little.
    """
    pixels, (left, top, right, bottom) = decoded(one.cutout), one.cutout.box
    size = [max(1, round(side * one.origin.scale)) for side in (right - left, bottom - top)]
    smaller = size[0] < pixels.shape[1]
    pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR).astype(np.uint8)
    if one.origin.mirrored:
        pixels = pixels[:, ::-1]
    around = int(np.ceil(3 * edge))
    colours = cv2.copyMakeBorder(pixels[..., :3], around, around, around, around, cv2.BORDER_REPLICATE)
    alpha = np.pad(pixels[..., 3].astype(np.float32) / np.float32(255), around)
    shape = alpha >= _COVERED
    if edge > 0:
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), edge), np.float32)
    if tone is None:
        return colours.astype(np.float32), alpha, shape
    grey = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return (grey * np.float32(tone.gain) + np.float32(tone.offset)).clip(0, 255), alpha, shape
