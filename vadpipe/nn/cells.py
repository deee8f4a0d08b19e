"""Averages over the cells of a grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_HOTTEST = 0.01


def cell_means(values: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """Average (n, H, W) over cells of `height` x `width`; cells at the far borders may be smaller.

    Returns:
        float32 (n, ceil(H / height), ceil(W / width)); NaN where a cell holds one.
    """
    rows, columns = np.arange(0, values.shape[1], height), np.arange(0, values.shape[2], width)
    sums = np.add.reduceat(np.add.reduceat(values, rows, axis=1), columns, axis=2)
    sizes = np.diff(rows, append=values.shape[1])[:, None] * np.diff(columns, append=values.shape[2])
    means: npt.NDArray[np.float32] = (sums / sizes).astype(np.float32)
    return means


def hottest(values: npt.NDArray[np.float32]) -> float:
    """Return the mean of the highest hundredth of a map, at least of one value; NaN where all are NaN.

    A frame's score: what is abnormal covers about as much of it, and the maximum alone would be noise.
    """
    there = values[~np.isnan(values)]
    if not len(there):
        return float("nan")
    count = max(1, round(len(there) * _HOTTEST))
    return float(np.partition(there, -count)[-count:].mean())
