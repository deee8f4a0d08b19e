"""Files of arrays of bytes as MNIST and Fashion-MNIST come in (LeCun et al., 1998): `idx`, as such or gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vadpipe.errors import UserError
from vadpipe.files import read_bytes

_BYTES = 0x08  # unsigned, the one kind of number that images and labels have
_LARGEST = 4 * 10**9  # bytes of what a file unpacks to


def read_idx(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Return the array of a file.

    Args:
        dimensions: of the array: 1 for labels, 3 for images (N, H, W).

    Raises:
        UserError: the file is missing, no idx file of bytes, of another number of dimensions, or not whole.
    """
    data = read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(data, path)
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _BYTES:
        raise UserError(f"{path} is no idx file of bytes; copy it again")
    if data[3] != dimensions:
        raise UserError(f"{path} has {data[3]} dimension(s), wanted are {dimensions}; it is another file than is meant")
    start = 4 + 4 * dimensions
    shape = tuple(int(side) for side in np.frombuffer(data[4:start].ljust(4 * dimensions, b"\0"), ">u4"))
    count = int(np.prod(shape, dtype=np.float64))
    if len(data) - start != count:
        raise UserError(
            f"{path} promises {'x'.join(map(str, shape))} bytes but holds {max(0, len(data) - start):,}; copy it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _unpacked(data: bytes, path: Path) -> bytes:
    unpacking = zlib.decompressobj(wbits=31)
    try:
        found = unpacking.decompress(data, _LARGEST)
    except zlib.error as error:
        raise UserError(f"{path} is no whole gzip file ({error}); copy it again") from None
    if not unpacking.eof:
        raise UserError(f"{path} is no whole gzip file: it ends too early, or unpacks to over 4 GB; copy it again")
    return found


def write_idx(path: Path, values: npt.NDArray[np.uint8]) -> None:
    """Write an array, gzipped, always to the same bytes."""
    header = bytes([0, 0, _BYTES, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + np.ascontiguousarray(values).tobytes(), mtime=0))
