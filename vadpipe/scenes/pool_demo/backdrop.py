"""The still part of a photograph: walls, deck and water, before ropes, swimmers and people are laid over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Bools, Floats, Image
from vadpipe.scenes.pool_demo import deck, ropes, wakes, water
from vadpipe.scenes.pool_demo.arrays import light, ramp
from vadpipe.scenes.pool_demo.camera import Camera, Ground, ground
from vadpipe.scenes.pool_demo.hall import Box, box, lamp_light
from vadpipe.scenes.pool_demo.noise import grain, surface
from vadpipe.scenes.pool_demo.swimmers import Swimmer
from vadpipe.scenes.pool_demo.views import View

_GUSTS = 60.0  # metres of a tile of noise that decides where the water glitters


@dataclass(frozen=True)
class Backdrop:
    """Light (h, w, 3); where the water glitters, how much of it is foam, and how much of a pixel is pool (h, w)."""

    image: Image
    glitter: Bools
    foam: Image
    pool: Image
    plane: Ground


@dataclass(frozen=True)
class Setting:
    """What a photograph is taken of and how: view, seed of what stays, camera, and bows of the ropes (ropes, 3)."""

    view: View
    seed: int
    camera: Camera
    bow: Floats


def backdrop(setting: Setting, here: list[Swimmer], rng: Generator) -> Backdrop:
    """Return the still part of a photograph in whose water somebody, or nobody, swims."""
    view, plane, hall = setting.view, ground(setting.camera), box(setting.seed, setting.view)
    pool = deck.inside(view, plane, 0.0)
    waves = water.slopes(surface(setting.seed), plane, rng)
    trails = [(one.u, one.v, one.heading, one.vigour) for one in here] or wakes.leftover(view, rng)
    rough = wakes.roughness(plane, trails)
    waves[..., :2] *= (rough * np.float32(rng.uniform(0.75, 1.35)))[..., None]
    # wet tiles are a mirror that is nearly even
    tilt = waves[..., :2] * (np.float32(view.water.waves) * (0.12 + 0.88 * pool))[..., None]
    shift = np.float32(rng.uniform(0, _GUSTS))
    gust = 0.15 + 1.5 * ramp(grain(setting.seed, plane.u + shift, plane.v - shift, _GUSTS), -0.4, 1.2)
    shine = water.shine(view, hall, plane, tilt, np.asarray(gust * rough, np.float32))
    below = water.floor(view, plane, waves, rng)
    below *= (1 - 0.45 * ropes.shade(view, plane, setting.bow, waves))[..., None]
    foam = wakes.foam(setting.seed, plane, here) * pool if here else np.zeros_like(pool)
    wet = below * (1 - shine.part) + shine.mirrored * shine.part + shine.spark
    wet += (light(226, 236, 240) - wet) * foam[..., None]
    dry = deck.deck(setting.seed, view, plane) * np.float32(0.86)
    dry += shine.mirrored * np.float32(0.14) + np.minimum(shine.spark, 40)
    image = np.asarray(dry + (wet - dry) * pool[..., None], np.float32)
    _walls(image, setting, plane, hall)
    return Backdrop(image, shine.glitter, foam, pool, plane)


def _walls(image: Image, setting: Setting, plane: Ground, hall: Box) -> None:
    """Draw walls and roof into the image (h, w, 3) where no ground hides them."""
    floor = plane.seen & (plane.u > hall.low) & (plane.u < hall.high) & (plane.v < hall.far)
    floor |= plane.seen & (plane.v < 0) & (plane.distance < 40)
    rows = slice(0, int(np.flatnonzero(~floor.all(axis=1)).max(initial=-1)) + 1)
    u, v, z = setting.camera.position.tolist()
    walls = hall.look(u, v, z, plane.rays[rows])
    walls += lamp_light(walls, 40.0)
    image[rows][~floor[rows]] = walls[~floor[rows]]
