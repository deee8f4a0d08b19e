"""Daylight: the shadows of figures on the ground, and the change of light over a clip."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Image
from vadpipe.scenes.figures.camera import Camera
from vadpipe.scenes.figures.drawing import Figure, stroke

_SUN = (0.75, 0.40)  # metres in x and z by which a shadow lies off, for every metre of height
_SHADE = 0.42  # part of the light that a full shadow takes


def sunlight(figures: Iterable[Figure], camera: Camera) -> Image:
    """Return the part of the light (h, w, 1) that reaches the ground past the figures."""
    canvas = np.zeros((camera.height * 2, camera.width * 2), np.uint8)
    for figure in figures:
        x, y, z = figure.points.T
        cast = np.stack((x + _SUN[0] * y, np.zeros_like(y), z + _SUN[1] * y), axis=1)
        pixels, thickness, _ = figure.project(cast, camera)
        for outline, thick in zip(figure.outlines(pixels, 2), thickness.tolist(), strict=True):
            stroke(canvas, outline, 2 * thick, (255,))
    soft = cv2.GaussianBlur(canvas, (0, 0), 1.6 * camera.height / 160)
    small = cv2.resize(soft, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    return 1 - small.astype(np.float32)[..., None] * np.float32(_SHADE / 255)


class Weather:
    """The slow change of light over a clip: a global gain, and the soft shade of clouds that drift by."""

    def __init__(self, rng: Generator) -> None:
        clouds = cv2.GaussianBlur(rng.normal(size=(96, 192)).astype(np.float32), (0, 0), 7)
        self.clouds = clouds * np.float32(0.035 / clouds.std())
        self.level = rng.uniform(0.985, 1.015)
        self.period, self.phase = rng.uniform(5, 9), rng.uniform(0, 2 * np.pi)
        self.start, self.drift = rng.uniform(20, 60, 2), rng.uniform(-0.8, 0.8, 2)

    def gain(self, seconds: float, height: int, width: int) -> Image:
        """Return the factor (h, w, 1) of the light at a time of the clip."""
        column, row = self.start + self.drift * seconds
        moved = np.array(((1, 0, -column), (0, 1, -row)))
        # a few cells are enough for clouds, and enlarging them keeps their edges soft
        shade = cv2.warpAffine(self.clouds, moved, (36, 24), borderMode=cv2.BORDER_REFLECT)
        level = self.level + 0.05 * np.sin(2 * np.pi * seconds / self.period + self.phase)
        return np.float32(level) + cv2.resize(shade, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
