"""Drawing of strokes and polygons in space on a transparent canvas that is finer than the picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from vadpipe.scenes.arrays import Bytes, Colour, Floats, Image
from vadpipe.scenes.pinhole import SHIFT, fixed_point
from vadpipe.scenes.pool_demo.camera import Camera

SCALE = 2  # canvas pixels of a pixel
_NEAREST = 0.5  # metres; what is closer to the camera is not drawn


class Painter:
    """A canvas of premultiplied red, green, blue, alpha (scale * h, scale * w, 4), and who owns its pixels."""

    def __init__(self, camera: Camera, window: tuple[int, int, int, int] | None = None, scale: int = SCALE) -> None:
        """Cover the picture, or only the window (left, top, width, height) of it in pixels."""
        self.camera, self.scale = camera, scale
        self.window = window or (0, 0, camera.width, camera.height)
        self.left, self.top, width, height = self.window
        self.canvas: Bytes = np.zeros((height * scale, width * scale, 4), np.uint8)
        self.owner: Bytes = np.zeros((height * scale, width * scale), np.uint8)

    def line(self, points: Floats, width: float, colour: Colour, opacity: float = 1.0, owner: int = 0) -> None:
        """Draw a stroke `width` metres thick through world points (n, 3); one point is a ball."""
        seen = self.camera.project(points)
        if seen[:, 2].min() > _NEAREST:
            thickness = width * self.camera.focal / float(seen[:, 2].mean())
            self.flat_line(seen[:, :2], thickness, colour, opacity, owner)

    def polygon(self, points: Floats, colour: Colour) -> None:
        """Fill a convex polygon of world points (n, 3)."""
        seen = self.camera.project(points)
        if seen[:, 2].min() > _NEAREST:
            self.flat_polygon(seen[:, :2], colour)

    def flat_line(self, points: Floats, thickness: float, colour: Colour, opacity: float = 1.0, owner: int = 0) -> None:
        """Draw a stroke through points (n, 2) of the picture, `thickness` pixels of it thick; one point is a disc."""
        if len(points) > 1:
            self.flat_lines(points[None], thickness, colour, opacity, owner)
            return
        centre, radius = self._fixed(points)[0].tolist(), max(1, round(thickness * self.scale * (1 << SHIFT) / 2))
        ink = (*(part * opacity for part in colour), 255 * opacity)
        cv2.circle(self.canvas, centre, radius, ink, -1, cv2.LINE_8, SHIFT)
        if owner:
            cv2.circle(self.owner, centre, radius, (float(owner),), -1, cv2.LINE_8, SHIFT)

    def flat_lines(
        self, points: Floats, thickness: float, colour: Colour, opacity: float = 1.0, owner: int = 0
    ) -> None:
        """Draw strokes through points (strokes, n, 2) of the picture, `thickness` pixels of it thick."""
        outlines, thick = list(self._fixed(points)), max(1, round(thickness * self.scale))
        ink = (*(part * opacity for part in colour), 255 * opacity)
        cv2.polylines(self.canvas, outlines, False, ink, thick, cv2.LINE_8, SHIFT)
        if owner:
            cv2.polylines(self.owner, outlines, False, (float(owner),), thick, cv2.LINE_8, SHIFT)

    def flat_polygon(self, points: Floats, colour: Colour) -> None:
        """Fill a convex polygon of points (n, 2) of the picture."""
        cv2.fillConvexPoly(self.canvas, self._fixed(points), (*colour, 255), cv2.LINE_8, SHIFT)

    def reduced(self) -> Image:
        """Return the canvas (h, w, 4) in the size of the picture, alpha in 0..1."""
        height, width = self.canvas.shape[:2]
        small = cv2.resize(self.canvas, (width // self.scale, height // self.scale), interpolation=cv2.INTER_AREA)
        return np.asarray(small, np.float32) * np.array((1, 1, 1, 1 / 255), np.float32)

    def lay(self, finer: Painter, owner: int) -> None:
        """Lay a finer canvas over this one, whose pixels where it is seen get the owner; 0 for none.

        Args:
            finer: a canvas with a window inside this one's.
            owner: of what it shows.
        """
        height, width = (size * self.scale // finer.scale for size in finer.owner.shape)
        drawn = cv2.resize(finer.canvas, (width, height), interpolation=cv2.INTER_AREA)
        top, left = (finer.top - self.top) * self.scale, (finer.left - self.left) * self.scale
        part = (slice(top, top + height), slice(left, left + width))
        under = self.canvas[part] * (1 - drawn[..., 3:] * np.float32(1 / 255))
        self.canvas[part] = np.minimum(under + drawn, 255)
        if owner:
            shape = cv2.resize(finer.owner * np.uint8(255), (width, height), interpolation=cv2.INTER_AREA)
            self.owner[part][shape > 127] = owner

    def _fixed(self, points: Floats) -> NDArray[np.int32]:
        """Return points (..., 2) of the picture in cv2's fixed point on the canvas."""
        return fixed_point(points - (self.left, self.top), self.scale)


def blend(image: Image, drawn: Image) -> None:
    """Lay a reduced canvas (h, w, 4) over the image (h, w, 3), in place."""
    image *= 1 - drawn[..., 3:]
    image += drawn[..., :3]
