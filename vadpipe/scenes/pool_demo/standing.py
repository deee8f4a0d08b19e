"""What stands around the pool or hangs over it: starting blocks, ladders, officials, pennants."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Colour, Floats
from vadpipe.scenes.pool_demo.painter import Painter
from vadpipe.scenes.pool_demo.people import CLOTHES, SKINS
from vadpipe.scenes.pool_demo.views import LANE, View

_WHITE, _DARK, _STEEL = (226.0, 228.0, 228.0), (34.0, 36.0, 44.0), (188.0, 194.0, 200.0)


def draw(painter: Painter, view: View, rng: Generator) -> None:
    """Draw all of it, from far to near."""
    people = _places(view, rng)
    ends = [(-0.75, view.blocks == 0), (view.length + 0.75, view.blocks == 1)]
    for lane in reversed(range(view.lanes)):
        v = view.rope(lane) + LANE / 2
        for u, here in ends:
            if here:
                _block(painter, u, v, lane + 1)
    for u in (3.0, view.length - 3.0):
        for v in (view.breadth, 0.0):
            _ladder(painter, u, v)
    for place in people[np.argsort(-people[:, 1])]:
        person(painter, place, rng)
    for u in (5.0, view.length - 5.0):
        _pennants(painter, view, u, rng)


def person(painter: Painter, place: Floats, rng: Generator) -> None:
    """Draw somebody who stands at u, v (2,), in white and dark as officials do, or in any clothes."""
    official = rng.random() < 0.7
    shirt = _WHITE if rng.random() < 0.5 else _DARK
    trousers = _DARK if shirt == _WHITE or rng.random() < 0.3 else _WHITE
    if not official:
        shirt, trousers = (CLOTHES[rng.integers(len(CLOTHES))] for _ in range(2))
    skin, tall = SKINS[rng.integers(len(SKINS))], rng.uniform(0.92, 1.06)
    at, turn = np.array((*place, 0.0)), rng.uniform(0, np.pi)
    across = np.array((np.cos(turn), np.sin(turn), 0.0))
    light = float(rng.uniform(0.75, 1.0))
    for side in (-1.0, 1.0):
        hip, foot = at + 0.09 * side * across + (0, 0, 0.9 * tall), at + 0.12 * side * across
        painter.line(np.stack((hip, foot)), 0.17, _dim(trousers, light * (0.95 + 0.05 * side)))
    painter.line(at[None] + np.array(((0, 0, 0.98 * tall), (0, 0, 1.36 * tall))), 0.36, _dim(shirt, light))
    painter.line(at[None] + 0.05 * across + np.array(((0, 0, 1.1 * tall), (0, 0, 1.34 * tall))), 0.16,
                 _dim(shirt, light * 1.12))  # fmt: skip
    for side in (-1.0, 1.0):
        shoulder = at + 0.2 * side * across + (0, 0, 1.42 * tall)
        hand = shoulder + 0.06 * side * across + (0.1 * rng.normal(), 0.1 * rng.normal(), -0.55)
        painter.line(np.stack((shoulder, hand)), 0.11, _dim(shirt, light * 0.85))
        painter.line(hand[None], 0.1, _dim(skin, light))
    painter.line(at[None] + (0, 0, 1.64 * tall), 0.21, _dim(skin, light))
    painter.line(at[None] + (0, 0.02, 1.69 * tall), 0.2, _dim((54, 42, 36), light))


def _places(view: View, rng: Generator) -> Floats:
    """Return u and v (n, 2) of people on the deck at the far side, at the blocks and near the camera."""
    far = [(rng.uniform(0, view.length), view.breadth + rng.uniform(1, 4)) for _ in range(rng.integers(6, 14))]
    end = -2.4 if view.blocks == 0 else view.length + 2.4
    starters = [(end + rng.normal(0, 0.5), view.rope(lane) + rng.uniform(0.5, 2)) for lane in range(view.lanes)]
    near = [(rng.uniform(0, view.length), -rng.uniform(1.2, 2.4)) for _ in range(rng.integers(0, 4))]
    kept = [place for place in starters if rng.random() < 0.5]
    return np.array([*far, *kept, *near])


def _dim(colour: Colour, factor: float) -> Colour:
    """Return a colour, lighter or darker."""
    red, green, blue = (min(244.0, part * factor) for part in colour)
    return red, green, blue


def _block(painter: Painter, u: float, v: float, number: int) -> None:
    """Draw the starting block of a lane."""
    inwards = 1.0 if u < 0 else -1.0
    low, high = np.array((u - 0.35, v - 0.28)), np.array((u + 0.35, v + 0.28))
    corners = np.array(((low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])))
    top = np.column_stack((corners, 0.72 - 0.1 * inwards * np.sign(corners[:, 0] - u)))
    base = np.column_stack((corners, np.zeros(4)))
    for first, after, light in ((2, 3, 0.5), (1, 2, 0.65), (3, 0, 0.65), (0, 1, 0.85)):
        side = np.stack((base[first], base[after], top[after], top[first]))
        painter.polygon(side, _dim(_WHITE, light))
    painter.polygon(top, _dim((70, 76, 84), 1.0))
    at = painter.camera.project(np.array(((u, v - 0.29, 0.28),)))[0]
    size = 0.32 * painter.camera.focal / max(float(at[2]), 1.0) * painter.scale
    if at[2] > 1 and size > 7:
        origin = ((at[:2] + 0.5) * painter.scale - (0.4 * size, -0.3 * size)).astype(int).tolist()
        ink = (20, 30, 70, 255)
        cv2.putText(
            painter.canvas, str(number), origin, cv2.FONT_HERSHEY_SIMPLEX, size / 22, ink, max(1, int(size / 9))
        )


def _ladder(painter: Painter, u: float, v: float) -> None:
    """Draw the two rails of a ladder at the rim of the pool."""
    out = 1.0 if v > 0 else -1.0
    for along in (-0.28, 0.28):
        bend = np.array(((0.6, 0.0), (0.55, 0.7), (0.25, 0.9), (-0.05, 0.7), (-0.08, -0.05)))
        points = np.column_stack((np.full(5, u + along), v + out * bend[:, 0], bend[:, 1]))
        painter.line(points, 0.06, _STEEL)


def _pennants(painter: Painter, view: View, u: float, rng: Generator) -> None:
    """Draw the line of pennants that hangs over the pool near an end."""
    v = np.arange(-1.0, view.breadth + 1.0, 0.6)
    span = (v - v[0]) / (v[-1] - v[0])
    z = 1.8 - 0.7 * span * (1 - span)
    painter.line(np.column_stack((np.full_like(v, u), v, z)), 0.02, (210, 210, 210), 0.7)
    colours = (view.ropes.ends, *view.ropes.middles[0], _WHITE)
    for index, (place, up) in enumerate(zip(v.tolist(), z.tolist(), strict=True)):
        sway = 0.1 * rng.normal()
        corners = np.array(((u, place, up), (u, place + 0.25, up), (u + sway, place + 0.12, up - 0.4)))
        painter.polygon(corners, _dim(colours[index % len(colours)], float(rng.uniform(0.7, 1.0))))
