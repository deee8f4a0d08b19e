"""What swimmers do to the water: rough trails, foam, and splashes of drops around arms and feet."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Floats, Image
from vadpipe.scenes.pool_demo.arrays import ramp
from vadpipe.scenes.pool_demo.camera import Camera, Ground
from vadpipe.scenes.pool_demo.noise import grain
from vadpipe.scenes.pool_demo.painter import SCALE, Painter
from vadpipe.scenes.pool_demo.swimmers import Swimmer
from vadpipe.scenes.pool_demo.views import LANE, View

OWNER = 2  # of the pixels of a splash
_TRAIL = 7.0  # metres after which a wake has faded


def leftover(view: View, rng: Generator) -> list[tuple[float, float, float, float]]:
    """Return trails of nobody: u, v, heading and vigour of waves that somebody left behind."""
    count = int(rng.integers(0, 4))
    return [
        (
            float(rng.uniform(0.1, 0.9) * view.length),
            view.rope(int(rng.integers(view.lanes))) + LANE / 2,
            float(rng.choice((-1.0, 1.0))),
            float(rng.uniform(0.3, 0.9)),
        )
        for _ in range(count)
    ]


def roughness(ground: Ground, trails: list[tuple[float, float, float, float]]) -> Image:
    """Return the factor (h, w) by which waves are steeper behind u, v with a heading and vigour."""
    rough = np.ones_like(ground.u)
    for u, v, heading, vigour in trails:
        behind = (np.float32(u) - ground.u) * np.float32(heading)
        aside = (ground.v - np.float32(v)) / (0.35 + 0.10 * np.clip(behind, 0, 8))
        fade = np.exp(-np.maximum(behind, 0) / np.float32(_TRAIL)) * ramp(behind, -1.3, -0.3)
        rough += np.float32(1.6 * vigour) * fade * np.exp(-aside * aside)
    return rough


def foam(seed: int, ground: Ground, swimmers: list[Swimmer]) -> Image:
    """Return how much of each pixel (h, w) is foam behind the swimmers."""
    cover = np.zeros_like(ground.u)
    bubbles = grain(seed, ground.u, ground.v, 3.4) + 0.7 * grain(seed, ground.v, ground.u, 1.9)
    for swimmer in swimmers:
        behind = (np.float32(swimmer.u) - ground.u) * np.float32(swimmer.heading) - np.float32(0.9)
        aside = (ground.v - np.float32(swimmer.v)) / np.float32(0.3 + 0.25 * swimmer.vigour)
        fade = np.exp(-np.maximum(behind, 0) / np.float32(0.6 + 2.2 * swimmer.vigour)) * ramp(behind, -0.4, 0.2)
        dense = fade * np.exp(-aside * aside) * np.float32(0.5 + 0.6 * swimmer.vigour)
        cover = np.maximum(cover, np.clip(dense * (1.2 + 0.9 * bubbles) - 0.35, 0, 0.85))
    return cover


def splash(painter: Painter, swimmer: Swimmer) -> None:
    """Draw the drops that feet, hands and chest throw up."""
    rng = np.random.default_rng((swimmer.seed, 1))
    sources = {
        "crawl": (((-1.2, 0.0), 1.0), ((0.95, 0.2), 0.35)),
        "back": (((-1.2, 0.0), 0.9), ((0.95, -0.2), 0.3)),
        "breast": (((0.75, 0.0), 0.4), ((0.35, 0.35), 0.25)),
    }[swimmer.stroke]
    for at, strength in sources:
        _spray(painter, swimmer.place(np.array(((*at, 0.0),)))[0], strength * swimmer.vigour, rng)


def _spray(painter: Painter, at: Floats, strength: float, rng: Generator) -> None:
    """Draw drops around a world point (3,), denser near it."""
    camera = painter.camera
    count = round(110 * strength)
    window = _window(camera, at, 0.5 + 0.5 * strength)
    if window is None or count < 4:
        return
    fine = Painter(camera, window, SCALE)
    spread = 0.12 + 0.22 * strength
    points = at + rng.normal(0, 1, (count, 3)) * (1.4 * spread, spread, 0.0)
    points[:, 2] += rng.exponential(0.16 * strength, count)
    for point in points:
        white, drop = float(rng.uniform(180, 246)), float(rng.uniform(0.02, 0.085))
        fine.line(point[None], drop, (white * 0.95, white * 0.99, white), float(rng.uniform(0.3, 0.9)), 1)
    scale = camera.focal / float(camera.project(at[None])[0, 2]) * SCALE
    fine.canvas = np.asarray(cv2.GaussianBlur(fine.canvas, (0, 0), max(0.5, 0.02 * scale)))
    painter.lay(fine, OWNER)


def _window(camera: Camera, at: Floats, metres: float) -> tuple[int, int, int, int] | None:
    """Return left, top, width and height in pixels of a square around a world point (3,)."""
    column, row, depth = camera.project(at[None])[0]
    reach = metres * camera.focal / max(depth, 1.0) + 2
    left, top = max(0, int(column - reach)), max(0, int(row - reach))
    right, bottom = min(camera.width, int(column + reach)), min(camera.height, int(row + reach))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None
