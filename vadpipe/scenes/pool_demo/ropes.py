"""Lane ropes: rows of floats on the water, bowed and washed over by waves."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Colour, Floats, Image
from vadpipe.scenes.pool_demo.camera import Ground
from vadpipe.scenes.pool_demo.painter import Painter
from vadpipe.scenes.pool_demo.views import LANE, MARGIN, View

OWNER = 1  # of the pixels of a rope
_FLOAT, _THICK = 0.14, 0.12  # metres from one float to the next, and across it
_ENDS, _MARK = 5.0, 15.0  # metres from the ends: sections in another colour, and single marked floats


def bows(view: View, rng: Generator) -> Floats:
    """Return metres (ropes, 3) by which each rope bows aside once, twice and thrice along its length."""
    return rng.normal(0, (0.07, 0.05, 0.03), (view.lanes + 1, 3))


def aside(view: View, bow: Floats, u: Floats) -> Floats:
    """Return the metres by which a rope of bows (3,) lies aside at u (n,)."""
    return np.asarray(sum(part * np.sin((turn + 1) * np.pi * u / view.length) for turn, part in enumerate(bow)))


def draw(painter: Painter, view: View, number: int, bow: Floats, rng: Generator) -> None:
    """Draw the rope `number`, 0..lanes, bowed aside by (3,) metres."""
    u = np.arange(0, view.length, _FLOAT)
    swell = np.convolve(rng.normal(0, 1, len(u) + 24), np.hanning(25) / 6, "valid")
    points = np.stack((u, view.rope(number) + aside(view, bow, u), 0.03 + 0.018 * swell), axis=1)
    seen = painter.camera.project(points)
    shown = (seen[:, 2] > 0.5) & (np.abs(seen[:, 0] - painter.camera.width / 2) < painter.camera.width)
    if shown.sum() < 2:
        return
    seen, u, swell = seen[shown], u[shown], swell[shown]
    travelled = np.cumsum(np.hypot(*np.diff(seen[:, :2], axis=0, prepend=seen[:1, :2]).T)) * painter.scale
    _, firsts = np.unique(np.floor(travelled / 1.7), return_index=True)  # floats finer than the canvas are joined
    firsts, thick = firsts[:-1], _THICK * painter.camera.focal / seen[:, 2]
    ends = np.stack((seen[firsts, :2], seen[np.append(firsts[1:], len(u) - 1), :2]), axis=1)
    # few shades, so that floats of one look are drawn at once
    shades = np.rint(3 * np.clip(0.15 * swell + rng.normal(0, 0.3, len(u)) + 0.5 * (np.arange(len(u)) % 2), -1, 1))
    sunk = np.rint(2 * np.clip(-swell - 0.3, 0, 1))  # a wave stands before a sunken float
    looks: dict[tuple[Colour, float, float, int], list[int]] = defaultdict(list)
    for place, first in enumerate(firsts.tolist()):
        colour = _colour(view, number, float(u[first]), round(u[first] / _FLOAT))
        size = max(1, round(float(thick[first]) * painter.scale))
        looks[colour, float(shades[first]), float(sunk[first]), size].append(place)
    for (colour, level, depth, size), places in looks.items():
        red, green, blue = (min(240.0, part * (0.9 + 0.08 * level)) for part in colour)
        painter.flat_lines(ends[places], size / painter.scale, (red, green, blue), 1 - 0.28 * depth, OWNER)
        if size > 3:
            light = (min(red * 1.2 + 16, 250.0), min(green * 1.2 + 16, 250.0), min(blue * 1.2 + 16, 250.0))
            thin = size / painter.scale
            painter.flat_lines(ends[places] - (0, 0.24 * thin), 0.3 * thin, light, 1 - 0.28 * depth)


def shade(view: View, ground: Ground, bow: Floats, waves: Image) -> Image:
    """Return the part (h, w) of its light that the water loses to the mirrored and cast dark of the ropes.

    Args:
        view: with the ropes.
        ground: the surface.
        bow: metres by which each rope bows aside (ropes, 3).
        waves: slopes and height (h, w, 3), which make it wobble.
    """
    v = ground.v + np.float32(0.13) * waves[..., 1] + np.float32(0.16)  # before the rope, or it would hide it
    nearest = np.clip(np.rint((v - np.float32(MARGIN)) / np.float32(LANE)), 0, view.lanes)
    middle = np.float32(MARGIN) + np.float32(LANE) * nearest
    number = nearest.astype(np.intp)
    for turn, parts in enumerate(bow.T.astype(np.float32)):
        middle += parts[number] * np.sin(np.float32((turn + 1) * np.pi / view.length) * ground.u)
    lost = np.clip((0.26 - np.abs(v - middle)) / (ground.span_v + 0.16) + 0.2, 0, 1)
    lost *= np.minimum(0.4 / ground.span_v, 1)
    return np.asarray(lost * ground.between("u", 0, view.length), np.float32)


def _colour(view: View, number: int, u: float, index: int) -> Colour:
    """Return the colour of the float `index` at u metres."""
    to_end = min(u, view.length - u)
    if to_end < _ENDS or abs(to_end - _MARK) < _FLOAT:
        return view.ropes.ends
    mirrored = min(number, view.lanes - number)  # ropes are coloured from both sides to the middle
    colours = view.ropes.middles[mirrored % len(view.ropes.middles)]
    return colours[(index // 6) % len(colours)]
