"""One photograph put together: the still part, ropes and swimmers on it, and what stands before it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Bools, Bytes
from vadpipe.scenes.pool_demo import foreground, ropes, sensor, standing, wakes
from vadpipe.scenes.pool_demo.backdrop import Setting, backdrop
from vadpipe.scenes.pool_demo.camera import Camera
from vadpipe.scenes.pool_demo.cast import Box, around, cast, settled
from vadpipe.scenes.pool_demo.painter import Painter, blend
from vadpipe.scenes.pool_demo.views import View


@dataclass(frozen=True)
class Taken:
    """The picture (h, w, 3), boxes of swimmers (x_min, y_min, x_max, y_max; max exclusive), and masks (h, w)."""

    image: Bytes
    boxes: list[Box]
    layers: dict[str, Bools]


def take(view: View, seed: int, rng: Generator, size: tuple[int, int], empty: bool) -> Taken:
    """Take a photograph of so many rows and columns, without or with swimmers."""
    camera = _aim(view, size, rng)
    front = Painter(camera)
    standing.draw(front, view, rng)
    foreground.draw(front, view, rng)
    before = front.reduced()
    hidden = before[..., 3] > 0.5
    setting = Setting(view, seed, camera, ropes.bows(view, rng))
    here = [] if empty else cast(view, camera, hidden, rng)
    top, swimming, masks = settled(setting, here, hidden, int(rng.integers(2**31)))
    still = backdrop(setting, swimming, rng)
    drawn = top.reduced()
    blend(still.image, drawn)
    blend(still.image, before)
    owner = cv2.resize(top.owner, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST)
    bodies = np.any(masks, axis=0) if masks else np.zeros(hidden.shape, bool)
    water, bare = (still.pool > 0.5) & ~hidden, ~hidden & ~bodies
    layers = {
        "pool": water | bodies,
        "swimmers": bodies,
        "ropes": (owner == ropes.OWNER) & bare,
        "glitter": still.glitter & water & (drawn[..., 3] < 0.5),
        "splash": ((owner == wakes.OWNER) & bare) | ((still.foam > 0.35) & water & ~bodies),
    }
    image = sensor.expose(still.image, still.plane.distance, rng)
    return Taken(image, [around(mask) for mask in masks], layers)


def _aim(view: View, size: tuple[int, int], rng: Generator) -> Camera:
    """Return the camera of a view, held a little differently each time."""
    position = np.array(view.position) + rng.normal(0, (0.25, 0.15, 0.08))
    target = np.array((*view.target, 0.0)) + rng.normal(0, (0.8, 0.35, 0.0))
    zoom = view.focal * size[1] * float(rng.uniform(0.96, 1.05))
    return Camera(position, target, view.roll + float(rng.normal(0, 0.8)), zoom, size)
