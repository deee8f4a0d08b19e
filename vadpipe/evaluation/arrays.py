"""Types of the arrays that the metrics work on."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Halves = npt.NDArray[np.float16]
Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int8]
Bools = npt.NDArray[np.bool_]
