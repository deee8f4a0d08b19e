"""Averages over the cells of a grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


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
