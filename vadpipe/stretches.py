"""Stretches of consecutive frames of which something is true: what intervals of labels are made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def stretches(marked: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return start and end (exclusive) of every stretch of True in (n,)."""
    edges = np.flatnonzero(np.diff(np.pad(marked.astype(np.int8), 1)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]
