"""Foreign pieces pasted onto normal images: what a network can learn to find before it has seen anything abnormal.

As in CutPaste (Li et al., CVPR 2021) and DRAEM (Zavrtanik et al., ICCV 2021), but with pieces for objects instead of
scratches: bodies made of ellipses along a line, in a few colours or cut from another image, half transparent as
what is under water is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.training.augment import Sample

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# By argument; nothing here knows what a swimmer looks like.
_MOST = 4  # pieces an image
_SLIM = (1.5, 5.0)  # length over breadth
_OPAQUE = (0.35, 1.0)
_LEAST_CHANGE = 6.0  # grey levels: a piece that changes less is not there
_INSIDE = 0.7  # share of a piece that must lie in the region
_TURN = 25  # hue either way, of 180


@dataclass(frozen=True)
class Pasted:
    """An image with foreign pieces.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        foreign: (H, W), the pieces.
        counts: (H, W), pixels to learn from: those of the region that were not made up, and the pieces.
    """

    image: Image
    foreign: Bools
    counts: Bools


def pasted(
    sample: Sample, others: Sequence[Sample], size: tuple[float, float], generator: np.random.Generator
) -> Pasted:
    """Return the sample with up to four pieces, in another hue.

    Args:
        others: images of the sample's size, whose pixels pieces may show.
        size: shortest and longest piece, shares of the image's width.
    """
    image, height_width = sample.image.astype(np.float32), sample.region.shape
    foreign = np.zeros(height_width, np.bool_)
    for _ in range(generator.integers(0, _MOST + 1)):
        piece = _piece(height_width, size, generator)
        inside = piece & sample.region
        if not piece.any() or inside.sum() < _INSIDE * piece.sum():
            continue
        texture = _texture(piece, others, generator)
        alpha = cv2.GaussianBlur(piece.astype(np.float32), (0, 0), generator.uniform(0.4, 1.2))
        alpha = np.asarray(alpha, np.float32)[..., None] * np.float32(generator.uniform(*_OPAQUE))
        changed = image + (texture - image) * alpha
        if np.abs(changed - image).mean(-1)[piece].mean() >= _LEAST_CHANGE:
            image, foreign = changed, foreign | piece
    coloured = _turned(image.round().clip(0, 255).astype(np.uint8), int(generator.integers(-_TURN, _TURN + 1)))
    return Pasted(coloured, foreign, (sample.region & ~sample.filled) | foreign)


def _piece(shape: tuple[int, ...], size: tuple[float, float], generator: np.random.Generator) -> Bools:
    """Return a body of two to four ellipses along a line, most of them lying, (H, W)."""
    height, width = shape
    mask = np.zeros((height, width), np.uint8)
    length = width * np.exp(generator.uniform(*np.log(size)))
    breadth = length / generator.uniform(*_SLIM)
    angle = generator.normal(0, 0.35) if generator.random() < 0.6 else generator.uniform(0, np.pi)
    middle = generator.uniform(0, 1, 2) * (width, height)
    count = int(generator.integers(2, 5))
    for along in np.linspace(-0.5, 0.5, count) * length:
        centre = middle + along * np.array([np.cos(angle), np.sin(angle)])
        axes = np.maximum(1, (length / count, breadth / 2) * generator.uniform(0.5, 1.25, 2)).astype(int)
        tilt = np.degrees(angle) + generator.normal(0, 25)
        cv2.ellipse(mask, tuple(map(int, centre)), tuple(map(int, axes)), tilt, 0, 360, 1, -1)
    return mask > 0


def _texture(piece: Bools, others: Sequence[Sample], generator: np.random.Generator) -> Floats:
    """Return what a piece shows, (H, W, 3): one to three colours side by side, or a part of another image."""
    height, width = piece.shape
    if generator.random() < 0.5:
        other = others[int(generator.integers(len(others)))].image
        texture = np.roll(other, generator.integers(0, (height, width)), (0, 1)).astype(np.float32)
        if generator.random() < 0.5:
            texture = texture * np.float32(generator.uniform(0.3, 1.4)) + generator.uniform(-60, 60, 3).astype(
                np.float32
            )
        return np.asarray(texture.clip(0, 255), np.float32)
    columns = np.flatnonzero(piece.any(0))
    coloured: Floats = np.empty((height, width, 3), np.float32)
    coloured[:] = generator.uniform(0, 255, 3)
    for _ in range(generator.integers(0, 3)):
        coloured[:, generator.integers(columns[0], columns[-1] + 1) :] = generator.uniform(0, 255, 3)
    noise = generator.standard_normal((height, width, 1), np.float32) * np.float32(generator.uniform(0, 12))
    return np.asarray((coloured + noise).clip(0, 255), np.float32)


def _turned(image: Image, hue: int) -> Image:
    """Turn all hues alike, so that no colour means foreign by itself."""
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    turned[..., 0] = (turned[..., 0].astype(np.int16) + hue) % 180
    return np.asarray(cv2.cvtColor(turned, cv2.COLOR_HSV2RGB), np.uint8)
