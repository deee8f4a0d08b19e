"""What stands between the camera and the pool: the backs of spectators and a railing with banners."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Colour, Floats
from vadpipe.scenes.pool_demo.painter import Painter
from vadpipe.scenes.pool_demo.people import CLOTHES, SKINS
from vadpipe.scenes.pool_demo.views import View

_HAIR: tuple[Colour, ...] = ((38, 28, 22), (70, 48, 32), (24, 22, 24), (150, 116, 70), (110, 106, 104))


def draw(painter: Painter, view: View, rng: Generator) -> None:
    """Draw the railing at the front of the stands, and the people behind it, out of focus."""
    if view.audience == 0:
        return
    camera = painter.camera
    ahead = camera.axes[2, :2] / np.linalg.norm(camera.axes[2, :2])
    across = np.array((-ahead[1], ahead[0]))
    near = Painter(camera)
    _railing(near, view, ahead, across)
    for metres in np.sort(rng.uniform(2.8, 5.5, rng.integers(max(1, view.audience - 3), view.audience + 3)))[::-1]:
        at = camera.position[:2] + metres * ahead + rng.uniform(-0.62, 0.62) * metres * across
        # heads reach over the lower border of the picture
        top = camera.position[2] - metres * _slope(camera.axes[2], rng.uniform(0.42, 0.56) / view.focal * 0.5625)
        _back(near, np.array((*at, top)), np.array((*across, 0.0)), rng)
    sigma = 0.0022 * camera.height * near.scale
    near.canvas = np.asarray(cv2.GaussianBlur(near.canvas, (0, 0), sigma))
    painter.lay(near, 0)


def _slope(axis: Floats, below: float) -> float:
    """Return the metres down for a metre ahead of a ray so much `below` the camera's axis (3,)."""
    return float(np.tan(np.arcsin(-axis[2]) + np.arctan(below)))


def _back(painter: Painter, head: Floats, across: Floats, rng: Generator) -> None:
    """Draw somebody from behind whose head is at a world point (3,)."""
    hair, skin = _HAIR[rng.integers(len(_HAIR))], SKINS[rng.integers(len(SKINS))]
    shirt, light = CLOTHES[rng.integers(len(CLOTHES))], float(rng.uniform(0.3, 0.7))
    down = np.array((0.0, 0.0, 1.0))
    for inset, factor in ((0.0, 0.75), (0.05, 0.88), (0.1, 1.0)):  # darker towards the outline
        half = np.array((0.07, 0.16, 0.235, 0.25, 0.22, 0.2)) - inset
        drop = np.array((0.17, 0.2, 0.27, 0.4, 0.75, 1.4)) + 0.6 * inset
        sides = [head + side * half[:, None] * across - drop[:, None] * down for side in (1.0, -1.0)]
        painter.polygon(np.concatenate((sides[0], sides[1][::-1])), _lit(shirt, light * factor))
    painter.line(np.stack((head, head - 0.2 * down)), 0.12, _lit(skin, light))
    painter.line(np.stack((head + 0.02 * down, head - 0.06 * down)), 0.185, _lit(hair, light))
    painter.line((head - 0.1 * across)[None], 0.05, _lit(skin, light))
    painter.line((head + 0.1 * across)[None], 0.05, _lit(skin, light))
    painter.line((head + 0.05 * down - 0.03 * across)[None], 0.1, _lit(hair, light * 1.3))
    if rng.random() < 0.35:  # a tail
        painter.line(np.stack((head, head - 0.28 * down)), 0.09, _lit(hair, light * 0.9))


def _railing(painter: Painter, view: View, ahead: Floats, across: Floats) -> None:
    """Draw bars and posts across the view, low in the picture, with banners on them."""
    camera, metres = painter.camera, 6.0
    top = camera.position[2] - metres * _slope(camera.axes[2], 0.4 / view.focal * 0.5625)
    reach = np.linspace(-7, 7, 71)
    line = camera.position[:2] + metres * ahead + reach[:, None] * across
    for index in range(0, 70, 14):
        ends = line[[index, min(index + 12, 70)]]
        corners = np.array([(*ends[i], top - down) for i, down in ((0, 1.0), (1, 1.0), (1, 0.12), (0, 0.12))])
        banner = view.hall.banners[(index // 14) % len(view.hall.banners)]
        painter.polygon(corners, _lit(banner, 0.5))
    for place in line[::2]:
        painter.line(np.array(((*place, top - 1.0), (*place, top))), 0.025, (72, 74, 80))
    painter.line(np.column_stack((line, np.full(len(line), top))), 0.06, (128, 132, 138))


def _lit(colour: Colour, light: float) -> Colour:
    """Return a colour in the dimmer light of the stands."""
    red, green, blue = (min(240.0, part * light) for part in colour)
    return red, green, blue
