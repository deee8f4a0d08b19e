"""Arithmetic of the light that a photograph is made of; colours are red, green, blue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vadpipe.scenes.arrays import Colour, Floats, Image


def light(*colour: float) -> Image:
    """Return a colour as an array (3,) that keeps images in single precision."""
    return np.array(colour, np.float32)


def mixed(parts: Sequence[tuple[Colour, Floats]]) -> Image:
    """Return the light (h, w, 3) of colours, each as strong as its array (h, w)."""
    # no matrix product: its rounding may depend on the number of threads
    channels = [sum(strength * np.float32(colour[channel]) for colour, strength in parts) for channel in range(3)]
    return np.stack(channels, axis=2, dtype=np.float32)


def ramp(values: Image, start: float, end: float) -> Image:
    """Return the smooth step of values that is 0 at `start` and 1 at `end`."""
    part = np.clip((values - np.float32(start)) * np.float32(1 / (end - start)), 0, 1)
    return np.asarray(part * part * (3 - 2 * part), np.float32)
