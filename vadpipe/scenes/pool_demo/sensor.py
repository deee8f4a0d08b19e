"""The photograph that a camera takes of the light: glow, blur, exposure, white balance, contrast and noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Bytes, Image
from vadpipe.scenes.pool_demo.arrays import ramp


def expose(image: Image, distance: Image, rng: Generator) -> Bytes:
    """Return the picture (h, w, 3) in 8 bits.

    Args:
        image: light (h, w, 3), where 255 is white and highlights go above.
        distance: metres (h, w); what is far is softer.
        rng: source of settings and noise.
    """
    unit = distance.shape[0] / 360
    glow = cv2.GaussianBlur(np.clip(image - 225, 0, 420), (0, 0), 2.6 * unit)
    image = np.minimum(image, 420) + 0.35 * glow
    soft = cv2.GaussianBlur(image, (0, 0), max(0.3, 1.1 * unit))
    far = (ramp(distance, 20, 60) * np.float32(rng.uniform(0.3, 0.7)))[..., None]
    image = image + (soft - image) * (0.15 + far)
    balance = (rng.uniform(0.84, 1.16) * rng.uniform((0.93, 0.97, 0.93), (1.07, 1.03, 1.07))).astype(np.float32)
    image = 255 * np.clip(image * balance * np.float32(1 / 255), 0, 1.6) ** np.float32(rng.uniform(0.85, 1.25))
    haze = np.float32(rng.uniform(0, 14))
    image = haze + image * (1 - haze / 255)
    grain = rng.standard_normal(image.shape, dtype=np.float32)
    image += grain * np.sqrt(rng.uniform(1, 9) + 0.03 * np.clip(image, 0, 255)).astype(np.float32)
    return np.asarray(np.clip(image + 0.5, 0, 255), np.uint8)
