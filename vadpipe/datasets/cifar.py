"""The batches of CIFAR-10 as they come for Python (Krizhevsky, 2009): pickles of Python 2, which may hold any program.

Only what such a batch holds is built: dictionaries, lists, numbers, bytes and arrays of bytes.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vadpipe.errors import UserError
from vadpipe.files import read_bytes

_SIDE = 32
# Where arrays of old and new versions of numpy say that they were made.
_ALLOWED = {(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")} | {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class Batch(NamedTuple):
    """Images uint8 (N, 32, 32, 3) RGB, and their classes, (N,)."""

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs")
        return super().find_class(module, name)


def read_batch(path: Path) -> Batch:
    """Return the images of a batch.

    Raises:
        UserError: the file is missing, not whole, or holds something else.
    """
    found = _read(path)
    data, labels = found.get(b"data"), found.get(b"labels")
    size = 3 * _SIDE**2
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != size:
        raise UserError(f"{path} holds no images of 3x32x32 bytes under `data`; it is another file than is meant")
    if not isinstance(labels, list) or not all(type(one) is int and 0 <= one < 1000 for one in labels):
        raise UserError(f"{path} holds no list of classes under `labels`; it is another file than is meant")
    if len(labels) != len(data):
        raise UserError(f"{path} holds {len(data)} images but {len(labels)} classes; copy it again")
    images = np.ascontiguousarray(data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
    return Batch(images, np.array(labels, np.int64))


def read_names(path: Path) -> list[str]:
    """Return the names of the classes, from `batches.meta`.

    Raises:
        UserError: as `read_batch`.
    """
    names = _read(path).get(b"label_names")
    if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
        raise UserError(f"{path} holds no list of names under `label_names`; it is another file than is meant")
    return [name.decode(errors="replace") for name in names]


def _read(path: Path) -> dict[Any, Any]:
    data = read_bytes(path)
    try:
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle raises whatever it stumbles over
        raise UserError(f"{path} is no whole batch ({' '.join(str(error).split())[:200]}); copy it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} holds {type(found).__name__}, wanted is a batch; it is another file than is meant")
    return found
