"""MATLAB files of labels, as benchmarks ship them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vadpipe.errors import UserError
from vadpipe.files import read_bytes


def cells(path: Path, variable: str) -> list[npt.NDArray[Any]]:
    """Return the arrays of a cell array of one row or one column.

    Raises:
        UserError: the file is no MATLAB file up to version 7, lacks the variable, or holds something else.
    """
    from scipy.io import loadmat  # takes 0.4 s, and only what reads such a file needs it

    data = read_bytes(path)
    try:
        found = loadmat(BytesIO(data), variable_names=[variable])
    except NotImplementedError:
        raise UserError(f"{path} is a MATLAB file of version 7.3; save it with `save -v7`") from None
    except Exception as error:  # scipy raises whatever it stumbles over in a damaged file
        raise UserError(f"{path} is no whole MATLAB file ({' '.join(str(error).split())}); copy it again") from None
    if variable not in found:
        raise UserError(f"{path} has no variable '{variable}'; it is another file than is wanted here")
    values = found[variable]
    if values.dtype != object or values.ndim != 2 or 1 not in values.shape:
        raise UserError(
            f"{path}: '{variable}' is {values.dtype} of the shape {values.shape}, wanted is a cell array in a row"
        )
    arrays = [np.asarray(cell) for cell in values.ravel()]
    for number, array in enumerate(arrays, 1):
        if array.dtype.kind not in "buif":
            raise UserError(f"{path}: cell {number} of '{variable}' holds {array.dtype} and not numbers; copy it again")
    return arrays
