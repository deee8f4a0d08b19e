"""What all cameras have in common: a pinhole that projects the world into the picture, and the grid that draws it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vadpipe.scenes.arrays import Floats

SHIFT = 4  # fractional bits of the coordinates that cv2 gets
_FARTHEST = 1e6  # pixels beyond which cv2 would overflow


class Pinhole:
    """A camera without a lens.

    Attributes:
        position: (3,), metres.
        axes: right, down and forward in the world, (3, 3).
        focal: focal length, pixels.
        size: height and width of the picture, pixels.
        nearest: metres; what is behind the camera must not turn up mirrored.
    """

    def __init__(self, position: Floats, axes: Floats, focal: float, size: tuple[int, int], nearest: float) -> None:
        self.position, self.axes, self.focal, self.nearest = position, axes, focal, nearest
        self.height, self.width = size

    def project(self, points: Floats) -> Floats:
        """Return column and row in pixels and distance along the camera's axis in metres (n, 3) of points (n, 3)."""
        seen = (points - self.position) @ self.axes.T
        depth = np.maximum(seen[:, 2], self.nearest)
        column = self.focal * seen[:, 0] / depth + (self.width - 1) / 2
        row = self.focal * seen[:, 1] / depth + (self.height - 1) / 2
        return np.stack((column, row, seen[:, 2]), axis=1)


def fixed_point(pixels: Floats, scale: int) -> NDArray[np.int32]:
    """Return points (..., 2) of the picture in cv2's fixed point, on a canvas `scale` times finer."""
    moved = ((pixels + 0.5) * scale - 0.5) * (1 << SHIFT)
    return np.asarray(np.rint(np.clip(moved, -_FARTHEST, _FARTHEST)), np.int32)
