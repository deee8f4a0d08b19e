"""Tileable noise: the slopes and height of a water surface, sampled at any metres."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from vadpipe.scenes.arrays import Image

_SIZE = 512  # texels of a tile
_CYCLES = (3, 26)  # of the longest and the shortest wave in a tile


@lru_cache(maxsize=2)
def surface(seed: int) -> Image:
    """Return slope along x, slope along y and height (512, 512, 3) of a random surface, each of deviation 1."""
    rng = np.random.default_rng((seed, 99))
    cycles = np.fft.fftfreq(_SIZE, 1 / _SIZE)
    across, down = cycles[None, :], cycles[:, None]
    k = np.hypot(across, down)
    band = (k >= _CYCLES[0]) & (k <= _CYCLES[1])
    spectrum = np.fft.fft2(rng.standard_normal((_SIZE, _SIZE))) * band * np.maximum(k, 1) ** -1.9
    parts = [np.fft.ifft2(spectrum * factor).real for factor in (1j * across, 1j * down, 1.0)]
    return np.stack([part / part.std() for part in parts], axis=2).astype(np.float32)


def sample(texture: Image, x: Image, y: Image, metres: float) -> Image:
    """Return the noise (h, w, channels) at x and y (h, w) in metres, for a tile that is so many metres large."""
    scale = np.float32(_SIZE / metres)
    column, row = (_wrapped(metres_along * scale) for metres_along in (x, y))
    return np.asarray(cv2.remap(texture, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)


def grain(seed: int, x: Image, y: Image, metres: float) -> Image:
    """Return noise (h, w) of deviation 1 at x and y (h, w) in metres, for tiles so many metres large."""
    return sample(_height(seed), x, y, metres)


@lru_cache(maxsize=2)
def _height(seed: int) -> Image:
    """Return the height (512, 512) of the surface."""
    return np.ascontiguousarray(surface(seed)[..., 2])


def _wrapped(texels: Image) -> Image:
    """Return the texels (h, w) of one tile; cv2 takes no large ones."""
    return np.asarray(texels - np.floor(texels / _SIZE) * np.float32(_SIZE), np.float32)
