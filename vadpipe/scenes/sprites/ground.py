"""Open ground under a camera of its own: what a figure is drawn on before it is cut out."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Bytes, Floats, Image, Ints, vector
from vadpipe.scenes.figures.camera import Camera, Mount, expose
from vadpipe.scenes.figures.drawing import Standing, blend, draw
from vadpipe.scenes.figures.light import sunlight

NOBODY = 0  # in place of an object
_COLOURS = ((128, 150, 165), (142, 150, 156), (62, 122, 98), (105, 108, 112), (170, 176, 180))


class Ground:
    """A camera, as high and steep as chance has it, over ground of one colour."""

    def __init__(self, rng: Generator, height: int, width: int) -> None:
        altitude, distance = rng.uniform(3.0, 9.0), rng.uniform(12.0, 20.0)
        pitch = float(np.degrees(np.arctan(altitude / distance)))
        self.camera = Camera(Mount(altitude, pitch, yaw=0.0, focal=float(rng.uniform(1.3, 2.2))), height, width)
        colour = vector(*_COLOURS[rng.integers(len(_COLOURS))]) * rng.uniform(0.85, 1.15)
        spots = sum((_noise(rng, cells, height, width) * strength for cells, strength in ((6, 0.05), (40, 0.04))),
                    np.zeros((height, width)))  # fmt: skip
        self.background: Image = (colour * (1 + spots[..., None])).astype(np.float32)

    def picture(self, figures: Mapping[int, Standing], rng: Generator) -> tuple[Bytes, Ints]:
        """Return the picture (h, w, 3) with figures in it, and the object (h, w) that each pixel shows, or NOBODY."""
        image = self.background * sunlight([standing.figure for standing in figures.values()], self.camera)
        drawn = [(draw(standing, self.camera), number) for number, standing in figures.items()]
        shown = np.full(image.shape[:2], NOBODY)
        sprites = [(sprite, number) for sprite, number in drawn if sprite is not None]
        for sprite, number in sorted(sprites, key=lambda item: -item[0].depth):
            rows, columns, hidden = blend(image, sprite)
            shown[rows, columns][hidden] = number
        return expose(image, np.ones((1, 1, 1), np.float32), rng), shown


def _noise(rng: Generator, cells: int, height: int, width: int) -> Floats:
    """Return smooth noise (h, w) of about unit range."""
    values = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC))
