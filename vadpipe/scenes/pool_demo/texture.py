"""Painting on a texture, in metres."""

from __future__ import annotations

from vadpipe.scenes.arrays import Bytes, Colour

PIXELS = 20  # of a texture, to a metre


def shade(colour: Colour, factor: float) -> tuple[int, int, int]:
    """Return a colour, lighter or darker, that is no lamp."""
    red, green, blue = (round(min(238.0, part * factor)) for part in colour)
    return red, green, blue


def rectangle(texture: Bytes, x: float, z: float, wide: float, high: float, colour: tuple[int, int, int]) -> None:
    """Fill a rectangle whose lower left corner is at x, z; all in metres."""
    top, bottom = texture.shape[0] - round((z + high) * PIXELS), texture.shape[0] - round(z * PIXELS)
    texture[max(top, 0) : max(bottom, 0), round(x * PIXELS) : round((x + wide) * PIXELS)] = colour
