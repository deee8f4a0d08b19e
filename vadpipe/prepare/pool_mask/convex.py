"""Convex regions: the best one for a map of water, and its outline at the size of the image.

A pool is a rectangle, and a camera shows a rectangle as a convex quadrilateral, of which the border of the image
may cut corners off. So a pool is looked for as an intersection of half-planes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import scipy.sparse

from vadpipe.store.prepared import Bools

Floats = npt.NDArray[np.float32]
Outline = npt.NDArray[np.float32]

# Longest side of the grid on which cuts are looked for, in cells, and their directions; lines are then moved and turned
# on a finer grid, by two cells and a direction at most.
_GRID, _DIRECTIONS = 64, 72
_FINE, _TURNS = 320, 9
# A pixel within the region that is no water counts as much as this number of those that are.
_DRY = 2.0
# Worth of a pixel of water, from cautious cuts to those that count.
_WET = (8.0, 1.0)
# A cut has to be worth this share of the grid, else it follows the waves.
_WORTH = 0.001


class Cut(NamedTuple):
    """A half-plane that is cut off: x cos(angle) + y sin(angle) >= offset, in shares of the longest side."""

    angle: float
    offset: float

    def distance(self, x: Floats, y: Floats) -> Floats:
        """Return how far points lie beyond the edge, below 0 inside."""
        return x * np.float32(np.cos(self.angle)) + y * np.float32(np.sin(self.angle)) - np.float32(self.offset)


def best_region(water: Bools) -> Bools:
    """Return the convex region of the image in which water outweighs the rest most, bool (H, W).

    From the whole image, the half-plane is cut off whose removal gains most, until none gains; then each cut in
    turn is taken back and chosen anew given the others, since the first ones were chosen with the corners still there;
    last, lines are moved and turned on a finer grid.
    """
    if not water.any():
        return np.zeros_like(water)
    cuts: list[Cut] = []
    # At first what holds hardly any water is cut off: where all sides are dry, to cut off everything would gain
    # more than any one of them.
    for wet in _WET:
        worth = _worth(water, _GRID, wet)
        inside = _inside(worth.shape, cuts)
        while cut := _best_cut(worth, inside):
            cuts.append(cut)
            inside &= cut.distance(*_grid(worth.shape)) < 0
    for old in list(cuts):
        cuts.remove(old)
        cut = _best_cut(worth, _inside(worth.shape, cuts))
        cuts += [cut] if cut else []
    fine = _worth(water, _FINE)
    for index, cut in enumerate(cuts):
        cuts[index] = _refined(fine, cut, cuts[:index] + cuts[index + 1 :])
    return _inside(water.shape, cuts)


def _worth(water: Bools, longest: int, wet: float = 1.0) -> Floats:
    """Return what a cell adds to a region that holds it, float32 (h, w), from `wet` for water to -_DRY."""
    height, width = water.shape
    scale = longest / max(height, width)
    size = max(round(width * scale), 2), max(round(height * scale), 2)
    share = cv2.resize(water.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return share * np.float32(wet + _DRY) - np.float32(_DRY)


@lru_cache(maxsize=8)
def _grid(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return x and y of the centres of cells, in shares of the longest side, float32 (height, width)."""
    height, width = shape
    y, x = (np.mgrid[:height, :width] + 0.5).astype(np.float32) / np.float32(max(height, width))
    return x, y


def _inside(shape: tuple[int, ...], cuts: list[Cut]) -> Bools:
    x, y = _grid(shape)
    inside = np.ones(shape, bool)
    for cut in cuts:
        inside &= cut.distance(x, y) < 0
    return inside


@lru_cache(maxsize=8)
def _projection(height: int, width: int) -> tuple[scipy.sparse.csr_matrix, Floats]:
    """Return the matrix that sums cells by direction and offset, and the offset of the first bin of each direction.

    Its rows are (direction, bin), a bin being as wide as a cell; its columns are cells.
    """
    longest = max(height, width)
    x, y = (axis.ravel() for axis in _grid((height, width)))
    far = np.stack([Cut(_angle(direction), 0).distance(x, y) for direction in range(_DIRECTIONS)])
    first = far.min(axis=1)
    bins = ((far - first[:, None]) * longest).round().astype(np.int64)
    rows = (bins + np.arange(_DIRECTIONS)[:, None] * (2 * longest)).ravel()
    columns = np.tile(np.arange(height * width), _DIRECTIONS)
    ones = np.ones(len(rows), np.float32)
    shape = _DIRECTIONS * 2 * longest, height * width
    return scipy.sparse.csr_matrix((ones, (rows, columns)), shape), first


def _angle(direction: int) -> float:
    return direction * 2 * np.pi / _DIRECTIONS


def _best_cut(worth: Floats, inside: Bools) -> Cut | None:
    """Return the cut that gains most of what is inside other cuts, None if none is worth it."""
    height, width = worth.shape
    matrix, first = _projection(height, width)
    held = np.where(inside, worth, np.float32(0)).ravel()
    sums = (matrix @ held).reshape(_DIRECTIONS, -1)
    # What is lost by removing all from a bin outwards.
    lost = sums[:, ::-1].cumsum(axis=1)[:, ::-1]
    direction, start = np.unravel_index(lost.argmin(), lost.shape)
    if lost[direction, start] > -_WORTH * worth.size:
        return None
    return Cut(_angle(int(direction)), float(first[direction] + (start - 0.5) / max(height, width)))


def _refined(worth: Floats, cut: Cut, others: list[Cut]) -> Cut:
    """Return the cut moved and turned to where it gains most on a finer grid."""
    height, width = worth.shape
    cell = 1 / max(height, width)
    reach = 2 * _FINE // _GRID
    x, y = _grid(worth.shape)
    near = (np.abs(cut.distance(x, y)) < reach * cell) & _inside(worth.shape, others)
    if not near.any():
        return cut
    x, y, held = x[near], y[near], worth[near]
    middle_x, middle_y = float(x.mean()), float(y.mean())
    best, least = cut, np.inf
    for turn in np.linspace(-1, 1, _TURNS) * 2 * np.pi / _DIRECTIONS:
        angle = cut.angle + float(turn)
        # Turned around the middle of its edge, a line stays where it is known to be.
        offset = middle_x * np.cos(angle) + middle_y * np.sin(angle)
        bins = np.floor(Cut(angle, offset).distance(x, y) / cell).astype(np.int64) + 2 * reach
        sums = np.bincount(bins.clip(0, 4 * reach - 1), held, 4 * reach)
        lost = sums[::-1].cumsum()[::-1]
        start = int(lost.argmin())
        if lost[start] < least:
            best, least = Cut(angle, float(offset + (start - 2 * reach) * cell)), lost[start]
    return best


def outline(mask: Bools) -> Outline | None:
    """Return the convex hull of a mask, float32 (n, 2), x and y from the image's corner; None if it is empty.

    Points are corners of pixels, so that an outline can be scaled and still ends at the border of the image.
    """
    y = np.flatnonzero(mask.any(axis=1))
    if len(y) == 0:
        return None
    # The ends of the rows suffice: a hull over all pixels takes a second.
    left, right = mask[y].argmax(axis=1), mask.shape[1] - mask[y, ::-1].argmax(axis=1)
    ends = [np.stack([x, y + dy], 1) for x in (left, right) for dy in (0, 1)]
    return cv2.convexHull(np.concatenate(ends).astype(np.float32))[:, 0]  # type: ignore[return-value]


def filled(points: Outline, height: int, width: int) -> Bools:
    """Return the pixels inside a convex outline, bool (height, width)."""
    canvas = np.zeros((height, width), np.uint8)
    # Pixel centres lie half a pixel from their corners; 4 bits behind the point keep that.
    fixed = np.round((points - 0.5) * 16).astype(np.int32)
    cv2.fillConvexPoly(canvas, fixed, 1, shift=4)
    return canvas > 0
