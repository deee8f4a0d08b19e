"""What is around the water on the ground: the rim of the pool, wet tiles, and steps of the stands."""

from __future__ import annotations

import numpy as np

from vadpipe.scenes.arrays import Image
from vadpipe.scenes.pool_demo.arrays import mixed
from vadpipe.scenes.pool_demo.camera import Ground
from vadpipe.scenes.pool_demo.noise import grain
from vadpipe.scenes.pool_demo.views import View

WALK = 3.6  # metres of deck between the pool and the stands at the camera
_RIM, _GUTTER = 0.45, 0.16  # metres of breadth


def deck(seed: int, view: View, ground: Ground) -> Image:
    """Return the light (h, w, 3) from the ground around the pool, dry."""
    stains = grain(seed, ground.u, ground.v, 14.0) * 0.05 + grain(seed, ground.v, ground.u, 3.0) * 0.03
    joint = np.maximum(_joint(ground.u, ground.span_u), _joint(ground.v, ground.span_v))
    step = np.mod(ground.v, np.float32(0.9)) * np.float32(0.5 / 0.9)
    stands = ground.between("v", -100, -WALK)
    rim, gutter = (inside(view, ground, breadth) for breadth in (_RIM, _GUTTER))
    bright, around = 1 + stains, 1 - rim
    parts = (
        (view.hall.deck, (bright - 0.18 * joint) * (1 - stands) * around),
        ((66, 66, 72), (0.7 + step + stains) * stands * around),
        ((214, 214, 206), bright * (rim - gutter)),
        ((70, 92, 104), bright * gutter),
    )
    return mixed(parts)


def inside(view: View, ground: Ground, more: float) -> Image:
    """Return the part (h, w) of each pixel that lies in the pool made larger by `more` metres."""
    along = ground.between("u", -more, view.length + more)
    return along * ground.between("v", -more, view.breadth + more)


def _joint(values: Image, span: Image) -> Image:
    """Return the part of each pixel that the joints of the tiles cover, fading out where they are too fine."""
    away = np.float32(0.3) - np.abs(np.mod(values, np.float32(0.6)) - np.float32(0.3))
    covered = np.clip((0.03 - away) / span + 0.5, 0, 1) * np.clip(0.5 / span - 0.7, 0, 1)
    return np.asarray(covered, np.float32)
