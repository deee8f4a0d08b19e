"""Colours of people, and rows of them in the stands, painted on a texture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Bytes, Colour
from vadpipe.scenes.pool_demo.texture import PIXELS, rectangle, shade
from vadpipe.scenes.pool_demo.views import Hall

SKINS: tuple[Colour, ...] = ((236, 196, 168), (218, 168, 134), (186, 132, 98), (138, 94, 66), (92, 62, 46))
CLOTHES: tuple[Colour, ...] = (
    (30, 32, 40),
    (228, 230, 232),
    (40, 70, 150),
    (180, 36, 44),
    (60, 150, 190),
    (226, 190, 50),
    (90, 92, 96),
    (34, 110, 80),
    (220, 120, 150),
    (20, 30, 70),
    (240, 130, 40),
    (110, 80, 140),
)


def stands(rng: Generator, texture: Bytes, metres: float, hall: Hall) -> None:
    """Paint rows of seats and of people who sit there."""
    floor = shade(hall.wall, 0.45)
    for step in range(2 if hall.outdoors else 4):
        z = 1.2 + 0.8 * step
        rectangle(texture, 0, z, metres, 0.8, shade(floor, 1 + 0.12 * step))
        for x in np.arange(0.3, metres - 0.5, 0.55):
            if rng.random() < 0.62:
                _sitting(rng, texture, float(x + rng.uniform(-0.08, 0.08)), z + 0.15)


def _sitting(rng: Generator, texture: Bytes, x: float, z: float) -> None:
    """Paint somebody who sits at x, z in metres."""
    column, row = round(x * PIXELS), texture.shape[0] - round(z * PIXELS)
    light = float(rng.uniform(0.3, 0.8))
    body, skin = CLOTHES[rng.integers(len(CLOTHES))], SKINS[rng.integers(len(SKINS))]
    cv2.ellipse(texture, (column, row - 3), (4, 8), 0, 0, 360, shade(body, light), -1)
    cv2.circle(texture, (column, row - 13), 3, shade(skin, light), -1)
    cv2.ellipse(texture, (column, row - 15), (3, 2), 0, 0, 360, shade((60, 44, 34), light), -1)
