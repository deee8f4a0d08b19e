"""Figures of strokes and polygons in space, and their drawing: projected, antialiased, blended by depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from vadpipe.scenes.arrays import Bools, Bytes, Colour, Floats, Image
from vadpipe.scenes.figures.camera import Camera
from vadpipe.scenes.pinhole import SHIFT, fixed_point

VISIBLE_PIXELS = 12  # pixels, at 160 rows
_SUPERSAMPLE = 4  # figures are drawn that much larger and averaged down


class Part(NamedTuple):
    """A stroke through points (n, 3) that is `width` metres thick, or a filled convex polygon for width 0."""

    points: Floats
    width: float
    colour: Colour


class Figure:
    """Parts with all their points stacked (n, 3), in the world."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.points = np.concatenate([part.points for part in parts])
        self.widths = np.array([part.width for part in parts])
        self.colours = np.array([part.colour for part in parts])
        self.sizes = np.array([len(part.points) for part in parts])
        self.starts = np.cumsum(self.sizes) - self.sizes

    def project(self, points: Floats, camera: Camera) -> tuple[Floats, Floats, Floats]:
        """Return the points in the image (n, 2), and thickness in pixels and depth of the parts (parts,).

        Args:
            points: those of the figure, or what became of them (n, 3).
            camera: the one that sees them.
        """
        pixels = camera.project(points)
        depth = np.add.reduceat(np.maximum(pixels[:, 2], camera.nearest), self.starts) / self.sizes
        return pixels[:, :2], self.widths * camera.focal / depth, depth

    def outlines(self, pixels: Floats, scale: int) -> list[NDArray[np.int32]]:
        """Return the points of each part (n, 2) in cv2's fixed point, on a canvas `scale` times finer."""
        fixed = fixed_point(pixels, scale)
        return [fixed[start : start + size] for start, size in zip(self.starts, self.sizes, strict=True)]


class Standing(NamedTuple):
    """A figure in the world and the ground point below it."""

    figure: Figure
    x: float
    z: float


class Sprite(NamedTuple):
    """A drawn figure: premultiplied blue, green, red, alpha (h, w, 4) in 0..255, its corner and depth."""

    pixels: Image
    left: int
    top: int
    depth: float


def draw(standing: Standing, camera: Camera) -> Sprite | None:
    """Draw the parts from far to near; None when all are outside the frame."""
    figure = standing.figure
    pixels, thickness, depths = figure.project(figure.points, camera)
    margin = thickness.max() / 2 + 1
    left, top = np.floor(pixels.min(axis=0) - margin).astype(int).tolist()
    right, bottom = np.ceil(pixels.max(axis=0) + margin + 1).astype(int).tolist()
    if right <= 0 or bottom <= 0 or left >= camera.width or top >= camera.height:
        return None
    canvas = np.zeros(((bottom - top) * _SUPERSAMPLE, (right - left) * _SUPERSAMPLE, 4), np.uint8)
    # the side of a stroke towards the sun is lighter, which makes it round
    towards_sun = np.repeat(thickness, figure.sizes)[:, None] * (-0.2, -0.1)
    outlines = figure.outlines(pixels - (left, top), _SUPERSAMPLE)
    ridges = figure.outlines(pixels - (left, top) + towards_sun, _SUPERSAMPLE)
    thickness = thickness * _SUPERSAMPLE
    dark, bright = 0.88 * figure.colours, np.minimum(1.1 * figure.colours + 4, 255)
    for part in np.argsort(-depths, kind="stable"):
        stroke(canvas, outlines[part], float(thickness[part]), (*dark[part].tolist(), 255))
        if thickness[part] > 3:
            stroke(canvas, ridges[part], 0.5 * float(thickness[part]), (*bright[part].tolist(), 255))
    small = cv2.resize(canvas, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    foot = camera.project(np.array(((standing.x, 0.0, standing.z),)))
    return Sprite(small.astype(np.float32), left, top, float(foot[0, 2]))


def least_pixels(height: int) -> float:
    """Return how many pixels of an anomaly must be seen, in a picture of `height` rows, for it to be in any label."""
    return VISIBLE_PIXELS * (height / 160) ** 2


def stroke(canvas: Bytes, outline: NDArray[np.int32], thickness: float, colour: Sequence[float]) -> None:
    """Draw one part on a canvas, `thickness` pixels thick."""
    if thickness == 0:
        cv2.fillConvexPoly(canvas, outline, colour, cv2.LINE_8, SHIFT)
    elif len(outline) == 1:
        radius = round(thickness * (1 << SHIFT) / 2)
        cv2.circle(canvas, outline[0].tolist(), radius, colour, -1, cv2.LINE_8, SHIFT)
    else:
        cv2.polylines(canvas, [outline], False, colour, max(1, round(thickness)), cv2.LINE_8, SHIFT)


def blend(image: Image, sprite: Sprite) -> tuple[slice, slice, Bools]:
    """Blend the sprite into the image (h, w, 3); return rows, columns and which of these pixels it hides."""
    height, width = sprite.pixels.shape[:2]
    rows = slice(max(sprite.top, 0), max(sprite.top + height, 0))
    columns = slice(max(sprite.left, 0), max(sprite.left + width, 0))
    target = image[rows, columns]
    top, left = rows.start - sprite.top, columns.start - sprite.left
    pixels = sprite.pixels[top : top + target.shape[0], left : left + target.shape[1]]
    alpha = pixels[..., 3:]
    target *= 1 - alpha / 255
    target += pixels[..., :3]
    return rows, columns, np.asarray(alpha[..., 0] > 110)
