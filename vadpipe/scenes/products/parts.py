"""What the products are made of: parts in the coordinates of the product, 0 to 1, painted one over the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from vadpipe.scenes.arrays import Bytes, Colour, Image

_FINER = 3  # pixels are painted so many times as fine, and averaged


class Part(NamedTuple):
    """A part of a product.

    Attributes:
        outline: corners, x and y from 0 to 1; one corner = the middle of a disc.
        radius: of the disc, or of rounded corners.
        paint: its colour, RGB.
        loose: whether it can be missing.
    """

    outline: tuple[tuple[float, float], ...]
    radius: float
    paint: Colour
    loose: bool


@dataclass(frozen=True)
class Pose:
    """How a product lies: turned by an angle (radians), shifted (shares of the side), lit from an angle."""

    angle: float
    shift: tuple[float, float]
    light: float

    @classmethod
    def at_random(cls, chance: np.random.Generator) -> Pose:
        """Return a pose close to upright."""
        x, y = chance.normal(0, 0.008, 2).tolist()
        return cls(float(chance.normal(0, 0.03)), (x, y), float(chance.normal(0.8, 0.2)))

    def placed(self, points: np.ndarray, side: int) -> np.ndarray:
        """Return points (n, 2) of the product in pixels of the picture."""
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        turned = (points - 0.5) @ np.array([[cosine, sine], [-sine, cosine]])
        moved: np.ndarray = (turned + 0.5 + self.shift) * side
        return moved


def _disc(x: float, y: float, radius: float, paint: Colour, loose: bool = False) -> Part:
    return Part(((x, y),), radius, paint, loose)


def _box(x0: float, y0: float, x1: float, y1: float, paint: Colour, loose: bool = False) -> Part:
    return Part(((x0, y0), (x1, y0), (x1, y1), (x0, y1)), 0.0, paint, loose)


def _around(count: int, far: float, radius: float, paint: Colour) -> list[Part]:
    angles = np.arange(count) * 2 * np.pi / count
    return [_disc(0.5 + far * np.cos(a), 0.5 + far * np.sin(a), radius, paint, loose=True) for a in angles.tolist()]


_STEEL, _DARK, _BRASS, _GREEN, _CHIP = (168, 172, 178), (46, 46, 52), (196, 160, 84), (38, 104, 66), (34, 34, 38)
_SILVER, _RED, _BLUE, _CREAM = (206, 208, 212), (176, 52, 44), (52, 84, 160), (222, 208, 178)

PRODUCTS: dict[str, list[Part]] = {
    # A flange with bolts, a circuit board with its chips, a tin of sweets.
    "flange": [
        _disc(0.5, 0.5, 0.42, _STEEL),
        _disc(0.5, 0.5, 0.14, _DARK),
        *_around(6, 0.29, 0.055, _BRASS),
    ],
    "board": [
        _box(0.1, 0.14, 0.9, 0.86, _GREEN),
        _box(0.2, 0.26, 0.46, 0.5, _CHIP, loose=True),
        _box(0.58, 0.24, 0.8, 0.38, _CHIP, loose=True),
        *(_box(0.56 + 0.09 * i, 0.5, 0.61 + 0.09 * i, 0.62, _CREAM, loose=True) for i in range(3)),
        *(_disc(0.2 + 0.1 * i, 0.72, 0.035, _SILVER, loose=True) for i in range(7)),
    ],
    "sweets": [
        _box(0.08, 0.08, 0.92, 0.92, _SILVER),
        _box(0.13, 0.13, 0.87, 0.87, _CREAM),
        *(
            _disc(0.26 + 0.24 * column, 0.26 + 0.24 * row, 0.085, (_RED, _BLUE)[(row + column) % 2], loose=True)
            for row in range(3)
            for column in range(3)
        ),
    ],
}


def drawn(name: str, pose: Pose, side: int, paint: np.random.Generator, without: int | None = None) -> Image:
    """Return a product without noise, (side, side, 3) RGB.

    Args:
        paint: of which the shades of the parts are drawn: equal ones for equal generators.
        without: index of a part that is missing.
    """
    fine = side * _FINER
    canvas = np.empty((fine, fine, 3), np.float32)
    canvas[:] = np.array((92, 88, 84), np.float32) + paint.normal(0, 3)
    shades = paint.normal(1, 0.025, len(PRODUCTS[name]))
    for index, (part, shade) in enumerate(zip(PRODUCTS[name], shades, strict=True)):
        if index != without:
            inside = covered(part, pose, fine)
            canvas[inside > 0] = np.array(part.paint, np.float32) * np.float32(shade)
    small: Image = cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    return small * _light(pose, side)


def covered(part: Part, pose: Pose, side: int) -> Bytes:
    """Return the pixels that a part covers, uint8 (side, side), 1 = covered."""
    mask = np.zeros((side, side), np.uint8)
    points = pose.placed(np.array(part.outline), side).round().astype(np.int32)
    if len(points) == 1:
        cv2.circle(mask, tuple(points[0].tolist()), round(part.radius * side), 1, -1)
    else:
        cv2.fillPoly(mask, [points], 1)
    return mask


def _light(pose: Pose, side: int) -> Image:
    """Return the light that falls on each pixel, (side, side, 1), 1 in the middle."""
    along = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    fall = np.cos(pose.light) * along[None] + np.sin(pose.light) * along[:, None]
    return np.asarray(1 + 0.16 * fall, np.float32)[..., None]
