"""The camera in the stands, and the plane of water and deck as it sees it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vadpipe.scenes.arrays import Bools, Floats, Image
from vadpipe.scenes.pinhole import Pinhole

_FARTHEST = 250.0  # metres at which the plane is cut off, since rays near the horizon meet it at no end of them


class Camera(Pinhole):
    """A camera anywhere; in the world u runs along the lanes, v across them and z up from the water, in metres."""

    def __init__(self, position: Floats, target: Floats, roll: float, focal: float, size: tuple[int, int]) -> None:
        """Look from `position` (3,) at `target` (3,).

        Args:
            position: u, v, z in metres.
            target: the point in the middle of the picture.
            roll: degrees by which the camera is turned clockwise.
            focal: focal length in pixels.
            size: height and width of the picture in pixels.
        """
        ahead = (target - position) / np.linalg.norm(target - position)
        right = np.cross(ahead, (0.0, 0.0, 1.0))
        right /= np.linalg.norm(right)
        down = np.cross(ahead, right)
        cos, sin = np.cos(np.radians(roll)), np.sin(np.radians(roll))
        axes = np.stack((cos * right + sin * down, cos * down - sin * right, ahead))
        super().__init__(position, axes, focal, size, nearest=0.3)

    def rays(self) -> Image:
        """Return world directions (h, w, 3), of length 1, through the pixels."""
        rows = (np.arange(self.height) - (self.height - 1) / 2) / self.focal
        columns = (np.arange(self.width) - (self.width - 1) / 2) / self.focal
        across, down = np.meshgrid(columns, rows)
        length = np.sqrt(across**2 + down**2 + 1)
        rays = np.stack((across / length, down / length, 1 / length), axis=2) @ self.axes
        return np.asarray(rays, np.float32)


@dataclass(frozen=True)
class Ground:
    """The plane z = 0 in the picture, all (h, w): where it is seen, metres u and v, distance, and what a pixel spans.

    Attributes:
        rays: directions (h, w, 3) of the camera.
        seen: whether a pixel looks down at the plane.
        u: metres along the lanes.
        v: metres across them.
        distance: metres from the camera.
        span_u: metres along u from one pixel to the next.
        span_v: metres along v from one pixel to the next.
    """

    rays: Image
    seen: Bools
    u: Image
    v: Image
    distance: Image
    span_u: Image
    span_v: Image

    def between(self, axis: str, low: float, high: float) -> Image:
        """Return the part (h, w) of each pixel that lies between two lines of axis `u` or `v`."""
        values, span = (self.u, self.span_u) if axis == "u" else (self.v, self.span_v)
        inside = np.minimum(values - np.float32(low), np.float32(high) - values) / span
        return np.asarray(np.clip(inside + np.float32(0.5), 0, 1) * self.seen, np.float32)


def ground(camera: Camera) -> Ground:
    """Return the plane z = 0 as the camera sees it."""
    rays = camera.rays()
    distance = np.minimum(np.float32(camera.position[2]) / np.maximum(-rays[..., 2], np.float32(1e-5)), _FARTHEST)
    u, v = (rays[..., axis] * distance + np.float32(camera.position[axis]) for axis in (0, 1))
    return Ground(rays, rays[..., 2] < -1e-3, u, v, distance, _span(u), _span(v))


def _span(values: Image) -> Image:
    """Return how much values (h, w) differ between neighbouring pixels."""
    across, down = (np.abs(np.gradient(values, axis=axis)) for axis in (1, 0))
    return np.asarray(np.maximum(across + down, 1e-4), np.float32)
