"""Pixel-level metrics of maps; larger is more abnormal, undefined metrics are NaN.

Maps are float16, so that a pixel has one of 65,536 values. Counting how often each value occurs replaces the sort
behind a ROC, is exact, needs no range, and takes the same memory for ten images and for ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from vadpipe.evaluation.arrays import Bools, Floats, Halves, Ints

LIMIT = 0.3  # false positive rate up to which AUPRO looks
_STEPS = 200  # thresholds of its variant

_PATTERNS = 1 << 16
_AS_HALVES = np.arange(_PATTERNS, dtype=np.uint16).view(np.float16).astype(np.float32)
# A pixel that a method does not look at raises no alarm at any threshold, so NaN ranks below all others.
_RANKED, _RANK = np.unique(np.where(np.isnan(_AS_HALVES), -np.inf, _AS_HALVES), return_inverse=True)
_ORDER = np.argsort(_RANK, kind="stable")
_STARTS = np.searchsorted(_RANK[_ORDER], np.arange(len(_RANKED)))
_BINS = 1000  # of resampled counts


class PixelFigures(NamedTuple):
    """Areas over all pixels of a set of images.

    Attributes:
        auroc: area under the ROC, ties count half.
        average_precision: step-wise sum, as scikit-learn defines it.
        aupro: mean share of a region that is found, over false positive rates up to 0.3 (see `figures`).
        coverage: share of pixels that the method looks at.
    """

    auroc: float
    average_precision: float
    aupro: float
    coverage: float


def pixel_metrics(maps: Sequence[Halves], truths: Sequence[Bools]) -> PixelFigures:
    """Measure maps against what is abnormal.

    Args:
        maps: (h, w) an image, any size; NaN = not looked at.
        truths: (H, W) an image, True = abnormal; the map is brought to this size.
    """
    counts = no_counts()
    for values, truth in zip(maps, truths, strict=True):
        counts += count(values, truth)
    total = ranked(counts)
    auroc, average_precision, aupro = map(float, figures(total))
    return PixelFigures(auroc, average_precision, aupro, coverage(total))


def to_frame(values: Halves, height: int, width: int) -> Halves:
    """Bring a map (h, w) to the size of its frame, linearly, and round it as the store does.

    A cell that was not looked at has the lowest value of the map while its neighbours are interpolated, and is
    NaN afterwards: otherwise it would make them NaN too.
    """
    if values.shape == (height, width):
        return np.ascontiguousarray(values)
    cells = np.asarray(values, np.float32)
    unseen = np.isnan(cells)
    if unseen.all():
        return np.full((height, width), np.nan, np.float16)
    filled = np.where(unseen, np.nanmin(cells), cells) if unseen.any() else cells
    resized = cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR)
    if unseen.any():
        nearest = cv2.resize(unseen.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        resized[nearest > 0] = np.nan
    return resized.astype(np.float16)


def no_counts() -> Floats:
    """Return counts of nothing, (3, 65536), to add to."""
    return np.zeros((3, _PATTERNS))


def count(values: Halves, truth: Bools) -> Floats:
    """Count the pixels of a map by value, (3, 65536), by the bit pattern of the value.

    Rows: normal pixels; abnormal pixels; abnormal pixels, each with the weight 1 / pixels of its region. Regions
    are 8-connected, and each has the weight 1, whatever its size.

    Args:
        values: (h, w).
        truth: (H, W), True = abnormal.
    """
    bits = to_frame(values, *truth.shape).view(np.uint16)
    counts = no_counts()
    counts[0] = np.bincount(bits.ravel(), minlength=_PATTERNS)
    if truth.any():
        _, regions, stats, _ = cv2.connectedComponentsWithStats(truth.view(np.uint8), connectivity=8)
        inside = bits[truth]
        counts[1] = np.bincount(inside, minlength=_PATTERNS)
        counts[0] -= counts[1]
        pixels = stats[regions[truth], cv2.CC_STAT_AREA]
        counts[2] = np.bincount(inside, 1 / pixels, minlength=_PATTERNS)
    return counts


def value_counts(maps: Iterable[Halves]) -> tuple[Ints, Floats]:
    """Count how often each value occurs in maps of any shape: counts (K,) and values (K,), ascending, NaN first."""
    counts = np.zeros(_PATTERNS, np.int64)
    for values in maps:
        counts += np.bincount(np.ascontiguousarray(values).view(np.uint16).ravel(), minlength=_PATTERNS)
    return np.add.reduceat(counts[_ORDER], _STARTS), _RANKED.astype(np.float64)


def ranked(counts: Floats) -> Floats:
    """Sort counts (3, 65536) by value, lowest first, (3, K): equal values together, NaN first."""
    return np.add.reduceat(counts[:, _ORDER], _STARTS, axis=1)


def figures(counts: Floats) -> Floats:
    """Return AUROC, average precision and AUPRO, (3, ...), from ranked counts (..., 3, K).

    AUPRO as in the evaluation of MVTec AD (Bergmann et al., IJCV 2021): at a threshold, PRO is the mean over the
    regions of the whole set of the share found; the false positive rate is that of all normal pixels of the set.
    The area under PRO over the rate, from 0 to 0.3, lines between the points, is divided by 0.3.
    """
    normal, abnormal, share = np.moveaxis(counts[..., ::-1], -2, 0)
    false, true, found = (values.cumsum(axis=-1) for values in (normal, abnormal, share))
    negatives, positives, regions = (values[..., -1:] for values in (false, true, found))
    with np.errstate(divide="ignore", invalid="ignore"):
        above = (abnormal * (negatives - false + normal / 2)).sum(axis=-1, keepdims=True)
        auroc = above / (positives * negatives)
        precision = np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
        average = (abnormal * precision).sum(axis=-1, keepdims=True) / positives
        aupro = _area(false / negatives, found / regions)
    return np.where(positives * negatives > 0, np.stack([auroc, average, aupro]), np.nan)[..., 0]


def _area(rate: Floats, overlap: Floats) -> Floats:
    """Return the area under a curve (..., K) from (0, 0) up to `LIMIT`, divided by it, (..., 1)."""
    start, low = (np.concatenate([np.zeros_like(side[..., :1]), side[..., :-1]], axis=-1) for side in (rate, overlap))
    width = np.minimum(rate, LIMIT) - np.minimum(start, LIMIT)
    step = rate - start
    # Of the segment across the limit, only the part before it counts, up to the height that it has there.
    part = np.divide(width, step, out=np.zeros_like(width), where=step > 0)
    area: Floats = (width * (low + part * (overlap - low) / 2)).sum(axis=-1, keepdims=True) / LIMIT
    return area


def coverage(counts: Floats) -> float:
    """Return the share of pixels that are not NaN in ranked counts (3, K); NaN without pixels."""
    by_value = counts[:2].sum(axis=0)
    return float(1 - by_value[0] / by_value.sum()) if by_value.sum() else np.nan


def average_precision(counts: Floats) -> float:
    """Return the average precision of counts (3, 65536), such as those of one image; quick where few values occur."""
    there = np.flatnonzero(counts[:2].any(axis=0))
    ranks, index = np.unique(_RANK[there], return_inverse=True)
    merged = np.stack([np.bincount(index, row[there], len(ranks)) for row in counts]).astype(np.float64)
    return float(figures(merged)[1])


def per_image_aupro(counts: Floats) -> float:
    """Return another area under PRO, of the counts (3, 65536) of one image; NaN where nothing in it is abnormal.

    As in the code of reverse distillation (RD4AD, 2022), for comparison with figures that were made by it alone: 200
    thresholds at equal steps from the image's lowest value to its highest, false positives of this image alone, those
    points whose rate is below 0.3, and the rate divided by the largest of them. It is far above AUPRO.
    """
    there = np.flatnonzero(counts[:2].any(axis=0))
    values = _AS_HALVES[there].astype(np.float64)
    normal, _, share = counts[:, there]
    known = ~np.isnan(values)
    if not share.any() or not normal.any() or not known.any():
        return np.nan
    low, high = values[known].min(), values[known].max()
    thresholds = low + (high - low) / _STEPS * np.arange(_STEPS)
    order = np.argsort(np.where(known, values, -np.inf), kind="stable")
    above = len(order) - np.searchsorted(np.where(known, values, -np.inf)[order], thresholds, "right")
    rate, overlap = (np.concatenate([[0], row[order][::-1].cumsum()])[above] / row.sum() for row in (normal, share))
    kept = rate < LIMIT
    if kept.sum() < 2 or not rate[kept].max():
        return np.nan
    along = rate[kept][::-1] / rate[kept].max()
    return float(np.trapezoid(overlap[kept][::-1], along))


def bins(counts: Ints) -> Ints:
    """Choose at most 1,000 bins of values for resampling, and return their starts among ranks, ascending.

    Half of them hold equal shares of all pixels; the others get narrower towards the top, where each holds about
    2 % of what lies above it: precision and AUPRO are decided among the highest values.

    Args:
        counts: (K,), how often each rank occurs, such as in the maps before they are resized.
    """
    from_top = counts[::-1].cumsum()
    total = from_top[-1]
    if not total:
        return np.zeros(1, np.int64)
    half = _BINS // 2
    places = np.concatenate([np.linspace(0, total, half), np.geomspace(1, total, half)])
    starts = len(counts) - 1 - np.searchsorted(from_top, np.minimum(places, total))
    return np.unique(np.append(starts, 0)).astype(np.int64)
