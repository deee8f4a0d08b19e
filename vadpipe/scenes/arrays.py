"""Types of the arrays that pictures are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.int_]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Image = NDArray[np.float32]  # light in the scale of 8 bits, but neither rounded nor clipped
Colour = tuple[float, float, float]  # in 0..255, in the order of channels of the scene


def vector(*values: float) -> Floats:
    """Return an array of floats, also where all values are whole."""
    return np.array(values, dtype=float)
