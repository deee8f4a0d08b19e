"""The fixed camera above the ground, and the sensor behind it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Bytes, Floats, Image, vector
from vadpipe.scenes.pinhole import Pinhole


@dataclass(frozen=True)
class Mount:
    """How a camera hangs: metres above the ground, degrees down and to the right, focal length in frame heights."""

    altitude: float
    pitch: float
    yaw: float
    focal: float


class Camera(Pinhole):
    """A camera that hangs over the origin; in the world x is right, y up and z away, in metres."""

    def __init__(self, mount: Mount, height: int, width: int) -> None:
        self.altitude = mount.altitude
        pitch, yaw = np.radians(mount.pitch), np.radians(mount.yaw)
        right = np.array((np.cos(yaw), 0.0, -np.sin(yaw)))
        ahead = np.array((np.sin(yaw), 0.0, np.cos(yaw)))
        up = np.array((0.0, 1.0, 0.0))
        cos, sin = np.cos(pitch), np.sin(pitch)
        axes = np.stack((right, -ahead * sin - up * cos, ahead * cos - up * sin))
        super().__init__(vector(0, mount.altitude, 0), axes, mount.focal * height, (height, width), nearest=0.5)

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
