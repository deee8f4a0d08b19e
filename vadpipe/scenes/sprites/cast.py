"""Who appears in a video: anomalies, one after the other, and walkers among them."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from vadpipe.scenes.figures.camera import Camera
from vadpipe.scenes.figures.people import person, random_look
from vadpipe.scenes.figures.vehicles import BODIES, Kind
from vadpipe.scenes.figures.ways import Actor, trace
from vadpipe.scenes.sprites.falling import FALL_S, falling

# What is abnormal, and its speed, m/s.
SPEEDS = {"cyclist": 3.8, "cart": 2.2, "skater": 2.6, "runner": 3.0, "faller": 1.3, "pushed cart": 1.4}
_EVERY_S = 2.2  # an anomaly comes in


class Role(NamedTuple):
    """An actor, and the frame from which it is abnormal; None = never."""

    actor: Actor
    starts: int | None


class Take(NamedTuple):
    """The camera of a video, and its length and rate."""

    camera: Camera
    frames: int
    fps: float


def anomalies(rng: Generator, take: Take) -> list[Role]:
    """Return anomalies of different kinds, as many as the length of the video has room for."""
    count = max(2, round(take.frames / take.fps / _EVERY_S))
    rounds = [rng.permutation(len(SPEEDS)) for _ in range(-(-count // len(SPEEDS)))]
    kinds = [list(SPEEDS)[index] for index in np.concatenate(rounds)[:count]]
    return [_role(rng, take, kind, (index + 0.5) / count) for index, kind in enumerate(kinds)]


def walkers(rng: Generator, take: Take) -> list[Role]:
    """Return a few people who walk, at any time."""
    return [Role(_actor(rng, take, person, 1.25, rng.uniform(0, 1)), None) for _ in range(int(rng.integers(2, 5)))]


def _role(rng: Generator, take: Take, kind: str, at: float) -> Role:
    body = falling if kind == "faller" else BODIES[kind]
    actor = _actor(rng, take, body, SPEEDS[kind], at)
    if kind != "faller":
        return Role(actor, 0)
    # Walks, falls where the camera sees it best, and lies.
    index, start = np.arange(take.frames), int(at * take.frames)
    upright = 1 - np.clip((index - start) / take.fps / FALL_S, 0, 1)
    # What is walked after the start of the fall is what is left of a step.
    walked = np.cumsum(np.where(index < start, 1.0, upright)) - 1
    travelled = actor.travelled[0] + walked * float(np.diff(actor.travelled).mean())
    return Role(Actor(actor.body, actor.way, 0.0, travelled, upright, abnormal=True), start)


def _actor(rng: Generator, take: Take, body: Kind, speed: float, at: float) -> Actor:
    """Return an actor who crosses the picture and is in its middle at a part of the video."""
    near = take.camera.altitude * rng.uniform(1.2, 3.2)
    far = near * rng.uniform(0.65, 1.35)
    corners = ((-40.0, near), (40.0, far)) if rng.random() < 0.5 else ((40.0, near), (-40.0, far))
    way = trace(corners, take.camera)
    pace = speed * rng.uniform(0.75, 1.25)
    passed = pace * (np.arange(take.frames) - at * take.frames) / take.fps
    travelled = way.metres[-1] * rng.uniform(0.35, 0.65) + passed
    look = random_look(rng, fade=float(rng.uniform(0, 0.6)))
    return Actor(partial(body, look), way, 0.0, travelled, np.ones(take.frames), abnormal=True)
