"""Textures of the walls and the roof: banners, spectators, windows and lamps, or trees and the sky."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Bytes, Colour
from vadpipe.scenes.pool_demo.people import stands
from vadpipe.scenes.pool_demo.texture import PIXELS, rectangle, shade
from vadpipe.scenes.pool_demo.views import Hall

LAMP = (255, 255, 255)  # nothing else is painted as bright

_WORDS = ("SWIM", "AQUA", "OPEN 26", "FINAL", "CLUB", "LANE 8", "H2O", "WAVE", "TEAM", "SPRINT", "BLUE", "CITY CUP")


def height(hall: Hall) -> float:
    """Return the metres up to the roof, or up to where the sky has one colour."""
    return 22.0 if hall.outdoors else 16.0


def wall(rng: Generator, hall: Hall, metres: float, number: int) -> Bytes:
    """Return the texture (rows, columns, 3) of a wall so many metres long; wall 0 has the stands."""
    texture = np.empty((round(height(hall) * PIXELS), round(metres * PIXELS), 3), np.uint8)
    if hall.outdoors:
        _garden(rng, texture, hall)
    else:
        texture[:] = shade(hall.wall, 1.0)
        for x in range(0, texture.shape[1], 6 * PIXELS):
            rectangle(texture, x / PIXELS, 0, 0.5, 16, shade(hall.wall, 0.8))
        _windows(rng, texture, metres)
        apart, _, up = hall.lamps
        for metre in np.arange(apart / 2, metres, apart):
            rectangle(texture, float(metre), up, 1.5, 0.7, LAMP)
    if number == 0 or hall.outdoors:
        stands(rng, texture, metres, hall)
    if number != 0:
        _board(rng, texture, metres, hall)
    for bottom, high in ((0.1, 1.0), (4.4, 0.9)) if not hall.outdoors else ((0.1, 1.0),):
        _banners(rng, texture, bottom, high, hall.banners)
    grime = rng.normal(1, 0.06, (texture.shape[0] // 30 + 1, texture.shape[1] // 30 + 1)).astype(np.float32)
    smooth = np.asarray(cv2.resize(grime, texture.shape[1::-1], interpolation=cv2.INTER_CUBIC))[..., None]
    lamps = (texture == 255).all(axis=2, keepdims=True)
    return np.where(lamps, 255, np.clip(texture * smooth, 0, 238)).astype(np.uint8)


def roof(rng: Generator, hall: Hall, along: float, across: float) -> Bytes:
    """Return the texture (rows, columns, 3) of the roof, or of the sky."""
    texture = np.empty((round(across * PIXELS), round(along * PIXELS), 3), np.uint8)
    texture[:] = shade(hall.roof, 1.0)
    if hall.outdoors:
        return texture
    for x in np.arange(2, along, 5.0):
        cv2.rectangle(
            texture, (int(x * PIXELS), 0), (int(x * PIXELS) + 12, texture.shape[0]), shade(hall.roof, 0.6), -1
        )
    for y in np.arange(1, across, 2.4):
        cv2.line(texture, (0, int(y * PIXELS)), (texture.shape[1], int(y * PIXELS)), shade(hall.roof, 1.25), 3)
    spacing, line, _ = hall.lamps
    for x in np.arange(spacing / 2, along, spacing):
        corner = (int(x * PIXELS), int(line * across * PIXELS))
        cv2.rectangle(texture, corner, (corner[0] + 26, corner[1] + 46), LAMP, -1)
    return texture


def _windows(rng: Generator, texture: Bytes, metres: float) -> None:
    """Paint a band of bright windows under the roof, not all along the wall."""
    sky = (214, 226, 236) if rng.random() < 0.65 else (70, 84, 104)  # by day or by night
    start, end = np.sort(rng.uniform(0, metres, 2))
    for x in np.arange(start, max(end, start + 10), 2.0):
        rectangle(texture, x, 7.2, 1.8, 3.6, shade(sky, float(rng.uniform(0.85, 1.05))))


def _banners(rng: Generator, texture: Bytes, bottom: float, high: float, colours: tuple[Colour, ...]) -> None:
    """Paint a row of advertising banners."""
    x = 0.0
    while x < texture.shape[1] / PIXELS:
        wide = float(rng.uniform(2.5, 6.0))
        colour = colours[rng.integers(len(colours))]
        rectangle(texture, x, bottom, wide - 0.1, high, shade(colour, float(rng.uniform(0.8, 1.0))))
        ink = (236, 236, 236) if sum(colour) < 420 else (24, 30, 60)
        row = texture.shape[0] - round((bottom + 0.28 * high) * PIXELS)
        origin = (round((x + 0.3) * PIXELS), row)
        cv2.putText(texture, str(rng.choice(_WORDS)), origin, cv2.FONT_HERSHEY_SIMPLEX, 0.026 * PIXELS * high, ink, 2)
        x += wide


def _board(rng: Generator, texture: Bytes, metres: float, hall: Hall) -> None:
    """Paint a lit scoreboard with lines of text."""
    x, ink = float(rng.uniform(0.45, 0.7)) * metres, (232, 236, 238) if sum(hall.board) < 520 else (20, 30, 60)
    rectangle(texture, x - 0.2, 2.6, 6.4, 3.4, (18, 18, 22))
    rectangle(texture, x, 2.8, 6.0, 3.0, shade(hall.board, 1.0))
    for line in range(6):
        row = texture.shape[0] - round((5.4 - 0.45 * line) * PIXELS)
        text = f"{line + 1} {rng.choice(_WORDS)} {rng.uniform(20, 60):.2f}"
        cv2.putText(texture, text, (round((x + 0.2) * PIXELS), row), cv2.FONT_HERSHEY_SIMPLEX, 0.32, ink, 1)


def _garden(rng: Generator, texture: Bytes, hall: Hall) -> None:
    """Paint the sky, paler near the ground, and trees before it."""
    rows = np.linspace(0, 1, texture.shape[0])[:, None, None]
    texture[:] = np.clip(np.array(hall.roof) + rows**3 * (238 - np.array(hall.roof)) * 0.75, 0, 238)
    ground = texture.shape[0]
    for x in np.arange(0, texture.shape[1], 34):
        middle, high = x + rng.uniform(-30, 30), rng.uniform(4, 8.5) * PIXELS
        for _ in range(70):
            up, aside = rng.uniform(0.05, 1) * high, rng.normal(0, 34)
            colour = shade(hall.wall, float(rng.uniform(0.5, 0.9) + 0.35 * up / high))
            cv2.circle(texture, (int(middle + aside), int(ground - up)), int(rng.integers(4, 14)), colour, -1)
