"""Boxes around what a map calls abnormal.

All sizes come from the settings and all levels from the maps of training images, so that nothing is chosen on test
images, and a map in other units, or with another zero, gives the same boxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil, sqrt
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.errors import UserError
from vadpipe.evaluation.arrays import Bools, Floats, Halves
from vadpipe.evaluation.pixels import value_counts
from vadpipe.params import Evaluate
from vadpipe.pictures.heat import Scale

# A swimmer with arms spread fills about half of the rectangle around him; nets of lines and carpets of glitter less.
_FILL = 0.3
# A box that shares more than this of itself with another one lies inside it.
_INSIDE = 0.5
# Spans of the levels above the lowest one at which a drawn map is brightest: what methods raise around anomalies
# peaks at half a span to ten of them.
_FULL = 9

Bytes = npt.NDArray[np.uint8]


class Box(NamedTuple):
    """A box in pixels of the frame, x_max and y_max exclusive; a larger score is more abnormal, 0 the least."""

    x_min: float
    y_min: float
    x_max: float
    y_max: float
    score: float


def training_levels(maps: Iterable[Halves], quantiles: Sequence[float]) -> list[float]:
    """Return quantiles of the values of training maps, exactly, NaN left out.

    The quantile q is the lowest value that is not exceeded by the share q of the values.

    Args:
        maps: (T, h, w) each.

    Raises:
        UserError: the maps have no values.
    """
    counts, values = value_counts(maps)
    reached = counts[1:].cumsum()
    if not reached[-1]:
        raise UserError("the maps of the training images are empty; train and score on more images")
    return [float(values[1:][np.searchsorted(reached, quantile * reached[-1])]) for quantile in sorted(quantiles)]


def heat_scale(levels: Sequence[float], settings: Evaluate) -> Scale:
    """Return the scale on which maps are drawn: training maps alone set it, so that pictures can be compared.

    It has the zero and the unit of the scores of boxes: dark is what lies below the lowest level, where no box begins,
    and brightest what lies 9 spans of the levels above it. Since brightness goes with the root of the height, the
    highest level is a third bright.

    Args:
        levels: from `training_levels`, ascending.
    """
    dark, span = float(levels[0]), float(levels[-1] - levels[0])
    low, high = (f"{100 * quantile:g} %" for quantile in (min(settings.box_levels), max(settings.box_levels)))
    meaning = f"dark to the {low} quantile of training maps, a third bright at that of {high}, full at 9 times as far"
    return Scale(dark, dark + _FULL * (span or abs(dark) or 1.0), meaning)


def find_boxes(
    values: npt.NDArray[np.floating], levels: Sequence[float], size: tuple[int, int], settings: Evaluate
) -> list[Box]:
    """Find boxes in a map, the highest score first.

    At every level: the cells above it; away with what is narrower than the smallest box (lane lines, glitter);
    gaps up to that width are closed (a swimmer falls into pieces); components of the right size and shape. Then
    the boxes of all levels are thinned out, so that an object has one.

    The score of a component is the mean excess of its cells over the lowest level, in units of the span of the
    levels, times the root of its area in units of the smallest box. The standard error of a mean over n cells
    falls with the root of n, so this is how clearly a component stands out: of equally large ones the stronger
    is first, of equally strong ones the larger, and around a hill the box is neither its peak nor its foot.

    Args:
        values: (h, w), NaN = not looked at.
        levels: from `training_levels`, ascending.
        size: height and width of the frame, pixels.
        settings: sizes, shape and overlap of boxes.
    """
    cells = np.asarray(values, np.float32)
    excess = (cells - levels[0]) / (levels[-1] - levels[0] or 1.0)
    found = [_at_level(cells > level, excess, size, settings) for level in dict.fromkeys(levels)]
    return [Box(*map(float, box)) for box in _thin_out(np.concatenate(found), settings.box_overlap)]


def _at_level(above: Bools, excess: npt.NDArray[np.float32], size: tuple[int, int], settings: Evaluate) -> Floats:
    """Return the boxes of one level, (k, 5)."""
    cell_y, cell_x = size[0] / above.shape[0], size[1] / above.shape[1]
    smallest, largest = (share * size[0] * size[1] for share in settings.box_area)
    # Rounding must not make a square of the smallest size narrower than itself.
    rows, columns = (ceil(sqrt(smallest) / side - 1e-9) for side in (cell_y, cell_x))
    kept, closed = _cleaned(above.view(np.uint8), rows, columns)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
    left, top, width, height = stats[:, :4].T * np.array([[cell_x], [cell_y], [cell_x], [cell_y]])
    inside = labels[kept]
    cells = np.bincount(inside, minlength=count)
    sums = np.bincount(inside, excess[kept], minlength=count)
    sides = np.sort([width, height], axis=0)
    fits = (smallest <= width * height) & (width * height <= largest) & (sides[1] <= settings.box_aspect * sides[0])
    fits[0] = False  # what is not above the level
    for label in np.flatnonzero(fits):
        x, y, across, down = stats[label, :4]
        component = labels[y : y + down, x : x + across] == label
        fits[label] = _compact(component, (cell_y, cell_x), settings.box_aspect)
    score = sums / np.maximum(cells, 1) * np.sqrt(cells * cell_y * cell_x / smallest)
    boxes: Floats = np.column_stack([left, top, left + width, top + height, score])[fits]
    return boxes


def _cleaned(above: Bytes, rows: int, columns: int) -> tuple[Bools, Bytes]:
    """Remove what is narrower than (rows, columns) cells; also return it with gaps up to that size closed.

    Opening rounds off what it keeps, so that one step of growth, inside what was there, gives the edge back.
    """
    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (columns, rows)).astype(np.uint8)
    # OpenCV does not reflect the element between erosion and dilation: with even sides everything would move.
    reflected = np.ascontiguousarray(element[::-1, ::-1])
    centre, opposite = (columns // 2, rows // 2), ((columns - 1) // 2, (rows - 1) // 2)
    core = cv2.erode(above, element, anchor=centre, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    core = cv2.dilate(core, reflected, anchor=opposite)
    grown = cv2.dilate(core, cv2.getStructuringElement(cv2.MORPH_RECT, (columns | 1, rows | 1)))
    kept = cv2.bitwise_and(grown, above)
    closed = cv2.erode(cv2.dilate(kept, reflected, anchor=opposite), element, anchor=centre)
    return kept.astype(np.bool_), closed.astype(np.uint8)


def _compact(component: Bools, cell: tuple[float, float], aspect: float) -> bool:
    """Say whether a component is neither long and thin nor ragged in the tightest rectangle at any angle."""
    points = np.argwhere(component) * cell
    _, sides, _ = cv2.minAreaRect(points.astype(np.float32))
    # The points are centres of cells, and half a cell belongs to the component on either side.
    short, long = sorted(side + sqrt(cell[0] * cell[1]) for side in sides)
    return bool(long <= aspect * short and len(points) * cell[0] * cell[1] >= _FILL * short * long)


def _thin_out(boxes: Floats, overlap: float) -> Floats:
    """Keep of boxes (k, 5) that overlap the one with the highest score; sorted by score, highest first.

    Boxes overlap if they share more than `overlap` of their union, or more than half of the smaller one. A box
    around two others that do not overlap, each of more than 1 / sqrt(2) of its score, is a group and goes first:
    two halves of one even object would reach just that.
    """
    boxes = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    score, area = boxes[:, 4], (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    shared = intersections(boxes, boxes)
    overlaps = shared > overlap * (area + area[:, None] - shared)
    overlaps |= shared > _INSIDE * np.minimum(area, area[:, None])
    part = (shared > _INSIDE * area) & (area < area[:, None]) & (score > score[:, None] / sqrt(2))
    # How many parts of i lie apart from j, counted for those j that are parts of i too.
    apart = part.astype(np.float32) @ (~overlaps).astype(np.float32)
    alive: Bools = ~np.any(part & (apart > 0), axis=1)
    for index in range(len(boxes)):
        if alive[index]:
            alive[index + 1 :] &= ~overlaps[index, index + 1 :]
    return boxes[alive]


def overlaps(first: Floats, second: Floats) -> Floats:
    """Return the intersections over unions of boxes (k, 4 or more) with boxes (m, 4 or more), (k, m)."""
    area, other = ((side[:, 2] - side[:, 0]) * (side[:, 3] - side[:, 1]) for side in (first, second))
    shared = intersections(first, second)
    return np.asarray(shared / (area[:, None] + other - shared))


def intersections(first: Floats, second: Floats) -> Floats:
    """Return the areas that boxes (k, 4 or more) share with boxes (m, 4 or more), (k, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:4], second[None, :, 2:4])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=2))
