"""The fixed camera: a pinhole that projects the world into the frame, and the sensor behind it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.prepare.generators.campus.arrays import Bytes, Floats, Image


class Camera:
    """A pinhole 6 m above the ground; in the world x is right, y up and z away, in metres."""

    ALTITUDE, PITCH, YAW, FOCAL = 6.0, np.radians(18), np.radians(10), 1.6  # focal length in frame heights

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width, self.focal = height, width, self.FOCAL * height
        right = np.array((np.cos(self.YAW), 0.0, -np.sin(self.YAW)))
        ahead = np.array((np.sin(self.YAW), 0.0, np.cos(self.YAW)))
        up = np.array((0.0, 1.0, 0.0))
        cos, sin = np.cos(self.PITCH), np.sin(self.PITCH)
        self.axes = np.stack((right, -ahead * sin - up * cos, ahead * cos - up * sin))  # right, down, forward

    def project(self, points: Floats) -> Floats:
        """Return column and row in pixels and depth in metres (n, 3) of world points (n, 3)."""
        seen = (points - (0.0, self.ALTITUDE, 0.0)) @ self.axes.T
        depth = np.maximum(seen[:, 2], 0.5)  # what is behind the camera must not turn up mirrored
        column = self.focal * seen[:, 0] / depth + (self.width - 1) / 2
        row = self.focal * seen[:, 1] / depth + (self.height - 1) / 2
        return np.stack((column, row, depth), axis=1)

    def rays(self, oversampling: int) -> Floats:
        """Return world directions (rows, columns, 3) through the pixels of an `oversampling` times finer grid."""
        rows = (np.arange(self.height * oversampling) + 0.5) / oversampling - self.height / 2
        columns = (np.arange(self.width * oversampling) + 0.5) / oversampling - self.width / 2
        across, down = np.meshgrid(columns / self.focal, rows / self.focal)
        return np.asarray(np.stack((across, down, np.ones_like(across)), axis=2) @ self.axes)


def expose(image: Image, gain: Image, rng: Generator) -> Bytes:
    """Return the picture (h, w, 3) that the sensor gives: blur of the lens, light, shot and read noise, 8 bits.

    Args:
        image: light from the scene (h, w, 3).
        gain: factor of the light (h, w, 1).
        rng: source of the noise.
    """
    lit = cv2.GaussianBlur(image, (0, 0), 0.45) * gain
    lit += rng.standard_normal(lit.shape, dtype=np.float32) * np.sqrt(2.5 + 0.025 * np.maximum(lit, 0))
    return np.asarray(np.clip(lit + 0.5, 0, 255), np.uint8)
