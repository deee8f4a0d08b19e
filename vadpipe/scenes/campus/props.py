"""Props, which stand still but for the wind: trees, lamp posts, benches and a hedge."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Floats, vector
from vadpipe.scenes.campus.plan import BED, BENCHES, FACADE, LAMPS, TREES
from vadpipe.scenes.figures.drawing import Figure, Part, Sprite, Standing


class Prop(NamedTuple):
    """What can hide a walker, and how far the wind bends it, in parts of its height."""

    standing: Standing
    sway: float


def props(rng: Generator) -> list[Prop]:
    """Return the trees, lamps and benches of the plan."""
    trees = [Prop(Standing(Figure(_tree(rng, x, z, height)), x, z), sway) for x, z, height, sway in TREES]
    lamps = [Prop(Standing(Figure(_lamp(x, z)), x, z), 0.0) for x, z in LAMPS]
    benches = [Prop(Standing(Figure(_bench(x, z)), x, z), 0.0) for x, z in BENCHES]
    return [*trees, *lamps, *benches]


def hedge(rng: Generator) -> list[Standing]:
    """Return the bushes in the bed before the facade."""
    z, radii = (BED + FACADE) / 2, vector(1.3, 0.6, 0.8)
    middles = np.arange(-16, 28, 1.7).tolist()
    return [Standing(Figure(_foliage(rng, vector(x, 0.55, z), radii, 45)), x, z) for x in middles]


def swayed(sprite: Sprite, sway: float, seconds: float) -> Sprite:
    """Return a prop bent by the wind: its top moves by a `sway` part of its height at most."""
    if sway == 0:
        return sprite
    height, width = sprite.pixels.shape[:2]
    # two waves out of step, and differently for each prop, do not look like a pendulum
    bend = sway * (np.sin(1.3 * seconds) + 0.5 * np.sin(2.9 * seconds + sprite.left)) / 1.5
    shear = np.array(((1, -bend, bend * height), (0, 1, 0)))
    return sprite._replace(pixels=np.asarray(cv2.warpAffine(sprite.pixels, shear, (width, height))))


def _tree(rng: Generator, x: float, z: float, height: float) -> list[Part]:
    """Return a tree at the ground point x, z, in the world."""
    bark = (58, 72, 86)
    fork = vector(x, 0.45 * height, z)
    parts = [Part(np.stack((vector(x, 0, z), fork)), 0.34, bark)]
    for angle in rng.uniform(0, 2 * np.pi, 4):
        branch = vector(np.cos(angle), 1.3, np.sin(angle)) * 0.2 * height
        parts.append(Part(np.stack((fork, fork + branch)), 0.16, bark))
    return parts + _foliage(rng, vector(x, 0.7 * height, z), vector(0.32, 0.28, 0.32) * height, 260)


def _foliage(rng: Generator, centre: Floats, radii: Floats, blobs: int) -> list[Part]:
    """Return leaves: round blobs inside an ellipsoid, lighter at the top."""
    parts = []
    for towards in rng.normal(size=(blobs, 3)):
        direction = towards * rng.uniform(0.3, 1) ** 0.5 / np.linalg.norm(towards)
        light = 0.85 + 0.28 * direction[1] + rng.uniform(-0.15, 0.15)
        colour = (48 * light, 92 * light, (66 + rng.uniform(-8, 14)) * light)
        parts.append(Part((centre + direction * radii)[None], float(rng.uniform(0.25, 0.6)), colour))
    return parts


def _lamp(x: float, z: float) -> list[Part]:
    """Return a lamp post at the ground point x, z, in the world."""
    pole = np.array(((x, 0, z), (x, 3.9, z), (x + 0.5, 4.1, z)))
    head = pole[2:] + np.array(((0, 0, 0), (0.35, 0, 0)))
    base = Part(pole[:1], 0.3, (70, 74, 76))
    return [base, Part(pole, 0.11, (74, 78, 80)), Part(head, 0.2, (205, 212, 214))]


def _bench(x: float, z: float) -> list[Part]:
    """Return a bench at the ground point x, z, in the world."""
    parts = []
    for up, deep in ((0.45, -0.2), (0.45, 0.0), (0.45, 0.2), (0.7, 0.28), (0.9, 0.32)):
        slat = np.array(((x - 0.9, up, z + deep), (x + 0.9, up, z + deep)))
        parts.append(Part(slat, 0.13, (74, 104, 142)))
    for along, deep in ((-0.75, -0.15), (-0.75, 0.2), (0.75, -0.15), (0.75, 0.2)):
        foot = np.array(((x + along, 0.4, z + deep), (x + along, 0, z + deep)))
        parts.append(Part(foot, 0.07, (70, 70, 70)))
    return parts
