"""Types of the arrays that the metrics work on, and how much of a bootstrap's is worked on at once."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Halves = npt.NDArray[np.float16]
Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]

# Cells of the largest array of a bootstrap, resamples at once times boxes or images. More only take more memory.
_CELLS = 2**18


def rows_at_once(weights: Ints, width: int) -> Iterator[slice]:
    """Yield the rows of weights (B, ...), as many at once as leave arrays of `width` columns small."""
    step = max(1, _CELLS // max(1, width))
    return (slice(start, start + step) for start in range(0, len(weights), step))
