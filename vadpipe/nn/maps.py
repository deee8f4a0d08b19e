"""What methods do with maps of features (n, h, w, channels) and of anomalies (n, h, w)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional

Maps = npt.NDArray[np.float32]


def resized(maps: Maps, height: int, width: int, nearest: bool = False) -> Maps:
    """Return maps (n, h, w, channels) of another size, linearly, corners of pixels aligned, or by the nearest."""
    if maps.shape[1:3] == (height, width):
        return maps
    how: dict[str, Any] = {"mode": "nearest"} if nearest else {"mode": "bilinear", "align_corners": False}
    planes = torch.from_numpy(np.ascontiguousarray(maps)).permute(0, 3, 1, 2)
    found: Maps = functional.interpolate(planes, size=(height, width), **how).permute(0, 2, 3, 1).numpy()
    return found


def joined(maps: Sequence[Maps], nearest: bool = False) -> Maps:
    """Return maps of several layers as one, (n, h, w, all channels), at the size of the first."""
    height, width = maps[0].shape[1:3]
    return np.concatenate([resized(one, height, width, nearest) for one in maps], axis=-1)


def neighbourhood_means(maps: Maps, side: int = 3) -> Maps:
    """Return means over side x side cells around each cell, (n, h, w, channels); beyond the edge is 0."""
    planes = torch.from_numpy(np.ascontiguousarray(maps)).permute(0, 3, 1, 2)
    found: Maps = functional.avg_pool2d(planes, side, 1, side // 2).permute(0, 2, 3, 1).numpy()
    return found


def blurred(maps: Maps, sigma: float, height: int) -> Maps:
    """Return maps of anomalies (n, h, w) after a Gaussian in space.

    Args:
        sigma: in pixels of the network's input, as papers give it.
        height: of that input.
    """
    cells = sigma * maps.shape[1] / height
    return np.asarray(gaussian_filter(maps, (0, cells, cells)), np.float32) if sigma else maps
