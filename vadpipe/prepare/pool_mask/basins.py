"""Basins of a histogram: what climbs to one peak, peaks without a valley between them taken together.

Merging by the height of the saddle is Chazal, Guibas, Oudot, Skraba, "Persistence-Based Clustering in Riemannian
Manifolds", Journal of the ACM 2013, with heights as ratios, so that the size of the image does not matter.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

# Two peaks are one if the saddle between them is at least this share of the lower one.
_SADDLE = 0.5
# Cells below this share of the highest peak belong to none: the tails of two colours overlap.
_FLOOR = 0.08
_NEIGHBOURS = [step for step in product((-1, 0, 1), repeat=3) if any(step)]


def basins(histogram: Floats) -> Labels:
    """Return the basin of each cell of a histogram of three axes, from 1, and 0 where there is next to nothing."""
    heights = np.pad(histogram, 1)
    flat = heights.ravel()
    steps = [int(np.dot(step, np.array(heights.strides) // heights.itemsize)) for step in _NEIGHBOURS]
    cells = np.flatnonzero(flat > _FLOOR * flat.max())
    if len(cells) == 0:
        return np.zeros(histogram.shape, np.int64)
    around = cells[:, None] + np.array([0, *steps])
    top = np.arange(len(flat))
    # Ties go to the first of the highest, the cell itself before its neighbours.
    top[cells] = around[np.arange(len(cells)), flat[around].argmax(axis=1)]
    while (top != top[top]).any():
        top = top[top]
    merged = _merged(flat, cells, around[:, 1:], top)
    labels = np.zeros(len(flat), np.int64)
    labels[cells] = np.unique(merged[top[cells]], return_inverse=True)[1] + 1
    return labels.reshape(heights.shape)[1:-1, 1:-1, 1:-1]


def _merged(flat: Floats, cells: Labels, around: Labels, top: Labels) -> Labels:
    """Return the peak that the basin of each peak is counted to, by index."""
    counted = np.arange(len(flat))
    other = top[around]
    here = np.broadcast_to(top[cells][:, None], around.shape)
    saddles = np.minimum(flat[cells][:, None], flat[around])
    meets = (here < other) & (flat[around] > _FLOOR * flat.max())
    # From the highest saddle down, as water that sinks would part the peaks.
    order = np.argsort(-saddles[meets], kind="stable")
    pairs = np.stack([here[meets], other[meets]], 1)[order]
    _, first = np.unique(pairs, axis=0, return_index=True)
    for index in np.sort(first):
        one, two = (_root(counted, int(peak)) for peak in pairs[index])
        low, high = (one, two) if flat[one] < flat[two] else (two, one)
        if low != high and saddles[meets][order][index] >= _SADDLE * flat[low]:
            counted[low] = high
    for peak in np.unique(top[cells]):
        counted[peak] = _root(counted, int(peak))
    return counted


def _root(counted: Labels, peak: int) -> int:
    while counted[peak] != peak:
        peak = int(counted[peak])
    return peak
