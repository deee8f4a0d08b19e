"""The water: a wavy mirror over a floor that is seen refracted, dimmed and wobbling."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Bools, Image
from vadpipe.scenes.pool_demo.arrays import mixed, ramp
from vadpipe.scenes.pool_demo.camera import Ground
from vadpipe.scenes.pool_demo.hall import Box, lamp_light
from vadpipe.scenes.pool_demo.noise import sample
from vadpipe.scenes.pool_demo.views import LANE, MARGIN, View

_OCTAVES = ((26.0, 0.66), (9.7, 0.66), (4.1, 0.26))  # metres of a tile of noise, and part of the slope
_GLITTER = 70.0  # light above what the water would have without, from where a pixel counts as glitter


@dataclass(frozen=True)
class Shine:
    """What the surface mirrors: light (h, w, 3), how much of it (h, w, 1), and lamps and the sun in it (h, w, 1)."""

    mirrored: Image
    part: Image
    spark: Image

    @property
    def glitter(self) -> Bools:
        """Return where highlights (h, w) outshine the water."""
        return np.asarray(self.spark[..., 0] > _GLITTER)


def slopes(noise: Image, ground: Ground, rng: Generator) -> Image:
    """Return the slopes along u and v and the height (h, w, 3) of waves, of deviation 1 near the camera."""
    waves = np.zeros((*ground.u.shape, 3), np.float32)
    for metres, part in _OCTAVES:
        angle, shift = rng.uniform(0, 2 * np.pi), rng.uniform(0, metres, 2).astype(np.float32)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        x = cos * ground.u - sin * ground.v + shift[0]
        y = sin * ground.u + cos * ground.v + shift[1]
        # waves much shorter than a pixel average out, or the far water would be plain noise
        wave = np.float32(0.11 * metres)
        seen = np.minimum(wave / np.sqrt(ground.span_u * ground.span_v), 1) ** 0.75 * np.float32(part)
        waves += sample(noise, x, y, metres) * seen[..., None]
    return waves


def shine(view: View, hall: Box, ground: Ground, tilt: Image, gust: Image) -> Shine:
    """Return what a surface tilted by slopes along u and v (h, w, 2) mirrors, lamps as far as gusts (h, w) let it."""
    du, dv, dz = (ground.rays[..., axis] for axis in range(3))
    tilt_u, tilt_v = tilt[..., 0], tilt[..., 1]
    up = 1 / np.sqrt(1 + tilt_u * tilt_u + tilt_v * tilt_v)
    facing = (du * tilt_u + dv * tilt_v - dz) * up
    twice = 2 * facing * up
    mirrored = np.stack(
        (du - twice * tilt_u, dv - twice * tilt_v, np.maximum(np.abs(dz + twice), 0.02)), axis=2, dtype=np.float32
    )
    part = np.asarray((0.02 + 0.98 * (1 - np.clip(facing, 0.04, 1)) ** 5)[..., None], np.float32)
    seen = hall.look(ground.u, ground.v, 0.0, mirrored)
    spark = lamp_light(seen, 420.0) * part
    if view.hall.outdoors:
        sun = np.array((*view.hall.sun, 1.0)) / np.linalg.norm((*view.hall.sun, 1.0))
        aligned = mirrored @ sun.astype(np.float32)
        spark += ramp(aligned, 0.9945, 0.9985)[..., None] * 5000 * part
    # a pixel of water has facets of all slopes, so that it mirrors a patch of the hall
    unit = ground.u.shape[0] / 360
    blurred = cv2.GaussianBlur(np.minimum(seen, 240), (0, 0), 1.3 * unit)
    # gusts roughen the water in patches, and highlights are drawn out towards the camera
    glints = cv2.GaussianBlur(spark[..., 0] * gust, (0, 0), sigmaX=0.6 * unit, sigmaY=0.9 * unit)
    return Shine(np.asarray(blurred, np.float32), part, np.asarray(glints, np.float32)[..., None])


def floor(view: View, ground: Ground, waves: Image, rng: Generator) -> Image:
    """Return the light (h, w, 3) that comes up through the surface: floor, lines, tiles, and the water's own."""
    waves = np.asarray(cv2.GaussianBlur(waves, (0, 0), 1.1 * ground.u.shape[0] / 360))
    look, length = view.water, view.length
    depth = look.depths[0] + (look.depths[1] - look.depths[0]) * np.clip(ground.u / np.float32(length), 0, 1)
    steep = np.sqrt(1 - (1 - ground.rays[..., 2] ** 2) / 1.77)  # cosine of the refracted ray, 1.33 squared
    reach = np.asarray(depth / steep, np.float32)
    bend = reach / np.float32(1.33)
    wobble = np.float32(0.66 * look.waves) * depth  # somewhat more than refraction, so that it is seen
    u, v = (
        ground.u + ground.rays[..., 0] * bend + waves[..., 0] * wobble,
        ground.v + ground.rays[..., 1] * bend + waves[..., 1] * wobble,
    )
    dark = _lines(view, ground, u, v)
    net = 1 + 0.10 * np.clip(waves[..., 2], -1.5, 2.5) * np.float32(1.6 if view.hall.outdoors else 0.8)
    if look.tiles:
        net = net - np.float32(0.22 * look.tiles) * np.maximum(_joints(u, ground.span_u), _joints(v, ground.span_v))
    clear = np.exp(-reach / np.float32(look.clarity))
    patches = np.float32(1 + 0.05 * rng.uniform(-1, 1)) + 0.07 * waves[..., 2]
    return mixed(
        (
            (look.floor, net * (1 - dark) * clear),
            (look.line, dark * clear),
            (look.body, (1 - clear) * patches),
        )
    )


def _lines(view: View, ground: Ground, u: Image, v: Image) -> Image:
    """Return the part (h, w) of each pixel that the dark lines in the middle of the lanes cover, with T ends."""
    aside = np.abs(np.mod(v - np.float32(MARGIN), np.float32(LANE)) - np.float32(LANE / 2))
    inside = (v > MARGIN) & (v < view.breadth - MARGIN)
    to_end = np.minimum(u, np.float32(view.length) - u)
    line = _stripe(aside, 0.13, ground.span_v) * (to_end > 2)
    cross = _stripe(np.abs(to_end - 2.1), 0.13, ground.span_u) * (aside < 0.55)
    return np.asarray(np.maximum(line, cross) * inside * np.float32(0.9), np.float32)


def _stripe(away: Image, half: float, span: Image) -> Image:
    """Return the part of each pixel within `half` metres of a line that is `away`."""
    covered = np.clip((np.float32(half) - away) / span + 0.5, 0, 1) * np.minimum(np.float32(2 * half) / span + 0.15, 1)
    return np.asarray(covered, np.float32)


def _joints(values: Image, span: Image) -> Image:
    """Return the part of each pixel that joints of tiles cover, half a metre apart, if not too fine."""
    away = np.abs(np.mod(values, np.float32(0.5)) - np.float32(0.25))
    return np.asarray(_stripe(np.float32(0.25) - away, 0.03, span) * np.clip(0.35 / span - 0.6, 0, 1), np.float32)
