"""The campus as its camera sees it: what stays, and the picture of figures among it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from vadpipe.scenes.arrays import Image, Ints
from vadpipe.scenes.campus import plan
from vadpipe.scenes.campus.background import paint
from vadpipe.scenes.campus.props import hedge, props, swayed
from vadpipe.scenes.figures.camera import Camera
from vadpipe.scenes.figures.drawing import Standing, blend, draw
from vadpipe.scenes.figures.light import sunlight
from vadpipe.scenes.figures.ways import trace

NOBODY = -1  # in place of a track


class Scene:
    """The camera, the still background (h, w, 3), props that can hide a walker, and ways over the ground."""

    def __init__(self, seed: int, height: int, width: int) -> None:
        rng = np.random.default_rng((seed, 0))
        self.camera = Camera(plan.CAMERA, height, width)
        standing = props(rng)
        self.background = paint(rng, self.camera) * sunlight([prop.standing.figure for prop in standing], self.camera)
        for bush in hedge(rng):  # nobody walks behind it
            if (sprite := draw(bush, self.camera)) is not None:
                blend(self.background, sprite)
        drawn = [(draw(prop.standing, self.camera), prop.sway) for prop in standing]
        self.props = [(sprite, sway) for sprite, sway in drawn if sprite is not None]
        self.ways = {name: trace(corners, self.camera) for name, (_, corners) in plan.WALKS.items()}
        self.ways |= {name: trace(corners, self.camera) for name, corners in plan.LAWN_WALKS.items()}
        self.ways |= {name: trace(corners, self.camera, closed=True) for name, corners in plan.LAWN_LOOPS.items()}

    def picture(self, figures: Mapping[int, Standing], seconds: float) -> tuple[Image, Ints]:
        """Return the scene (h, w, 3) with figures in it, and the track (h, w) that each pixel shows, or NOBODY.

        Args:
            figures: by track.
            seconds: time of the wind.
        """
        image = self.background * sunlight([standing.figure for standing in figures.values()], self.camera)
        sprites = [(swayed(prop, sway, seconds), NOBODY) for prop, sway in self.props]
        for track, standing in figures.items():
            if (sprite := draw(standing, self.camera)) is not None:
                sprites.append((sprite, track))
        shown = np.full(image.shape[:2], NOBODY)
        for sprite, track in sorted(sprites, key=lambda item: -item[0].depth):
            rows, columns, hidden = blend(image, sprite)
            shown[rows, columns][hidden] = track
        return image, shown
