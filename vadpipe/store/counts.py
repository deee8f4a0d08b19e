"""Counts of 16 bit, as thermal and depth cameras give them, on their way to 8 bit.

The range of the training set, low to high, is mapped to 64..191, linearly. What is colder or hotter than anything
in training, by up to half the width of that range, stays visible in 0..63 and 192..255; beyond, it is clipped.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from vadpipe.store.images import Image

Counts = npt.NDArray[np.uint16]

_MIDDLE, _WIDTH = 127.5, 127.0  # of 64..191


def range16(frames: Iterable[Counts]) -> tuple[int, int]:
    """Return the lowest and the highest count of frames, uint16 (H, W).

    Raises:
        ValueError: there are no frames.
    """
    low, high = 0xFFFF, 0
    for frame in frames:
        low, high = min(low, int(frame.min())), max(high, int(frame.max()))
    if low > high:
        raise ValueError("there are no frames whose range could be taken")
    return low, high


def scale16(pixels: Counts, low: int, high: int) -> Image:
    """Return uint8 (H, W) of counts, uint16 (H, W): low becomes 64, high 191, what is beyond 0..255 is clipped.

    Where the range is a single count, it becomes 128, and a count more or less is as far away as can be.
    """
    counts = np.arange(0x10000, dtype=np.float64)
    table = _MIDDLE + (counts - (low + high) / 2) * (_WIDTH / max(high - low, 1))
    return np.clip(np.rint(table), 0, 255).astype(np.uint8)[pixels]
