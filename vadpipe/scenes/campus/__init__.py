"""A synthetic surveillance scene: a campus with walkers, seen by one fixed camera over a plaza and a lawn.

Everything that moves is a small three-dimensional figure of capsules and polygons that stands on the ground
plane and is projected by the camera, so that size, speed, gait, occlusion and shadow follow from perspective.
The drawing is in the other modules of this package; here is who appears where and when.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from pydantic import Field

from vadpipe.params import Section
from vadpipe.scenes.arrays import Bools, Ints, vector
from vadpipe.scenes.campus.plan import WALKS, on_lawn
from vadpipe.scenes.campus.recording import Row, Shot, record
from vadpipe.scenes.campus.view import Scene
from vadpipe.scenes.figures.camera import expose
from vadpipe.scenes.figures.drawing import Standing, least_pixels
from vadpipe.scenes.figures.light import Weather
from vadpipe.scenes.figures.people import person, random_look
from vadpipe.scenes.figures.vehicles import BODIES
from vadpipe.scenes.figures.ways import Actor
from vadpipe.stretches import stretches


class Event(NamedTuple):
    """An anomaly that enters or leaves its way at a part of the clip, in m/s, with colours faded by 0..1."""

    kind: str
    way: str
    speed: float
    leaves: bool
    at: float
    fade: float = 0.0


# What happens in the first eight test clips; further clips repeat the last four. The fourth is abnormal from
# end to end. On the lawn, and at walking speed, nothing but the place or the shape gives an anomaly away.
SCRIPTS: tuple[tuple[Event, ...], ...] = (
    (),
    (Event("cyclist", "near", 3.6, False, 0.12), Event("runner", "near", 2.9, False, 0.62)),
    (Event("walker", "lawn left", 1.3, True, 0.65),),
    (
        Event("walker", "lawn loop", 1.2, False, -0.1),
        Event("skater", "near", 2.5, False, 0.05),
        Event("cyclist", "far", 4.4, False, 0.3),
        Event("pushed cart", "plaza", 1.8, False, 0.6),
    ),
    (Event("cart", "far", 2.2, False, 0.3, fade=0.2), Event("skater", "path from right", 1.4, False, 0.5)),
    (),
    (
        Event("runner", "front", 2.8, True, 0.4),
        Event("skater", "plaza right", 2.7, False, 0.55),
        Event("walker", "lawn across", 1.25, False, 0.7),
    ),
    (Event("cyclist", "near", 1.4, False, 0.3, fade=0.55), Event("cart", "near", 2.6, False, 0.5)),
)


class Params(Section):
    """Seed, number of clips, frames a clip, frame size in pixels and frames per second."""

    seed: int = Field(ge=0)
    train_clips: int = Field(ge=1)
    test_clips: int = Field(ge=6)
    frames: int = Field(ge=8)
    height: int = Field(ge=48)
    width: int = Field(ge=48)
    fps: float = Field(gt=0)


def write(params: Params, folder: Path) -> None:
    """Write the scene into an existing empty `folder`."""
    scene, size = Scene(params.seed, params.height, params.width), (params.width, params.height)
    for name in ("train", "test", "masks"):
        (folder / name).mkdir()
    for index in range(params.train_clips):
        clip = Clip(scene, np.random.default_rng((params.seed, 1, index)), params, ())
        record(clip.shots(), size, params.fps, folder / "train" / f"train_{index + 1:02d}.avi")
    labels: list[Row] = [("clip", "first", "last")]
    tracks: list[Row] = [("clip", "track", "frame", "x_min", "y_min", "x_max", "y_max")]
    for index in range(params.test_clips):
        name = f"test_{index + 1:02d}"
        script = SCRIPTS[index if index < len(SCRIPTS) else 4 + index % 4]
        clip = Clip(scene, np.random.default_rng((params.seed, 2, index)), params, script)
        masks, rows = record(clip.shots(), size, params.fps, folder / "test" / f"{name}.avi")
        np.save(folder / "masks" / f"{name}.npy", masks)
        # a clip without a row would be unlabelled; one without numbers says that it is normal
        found = stretches(np.any(masks, axis=(1, 2)))
        labels += [(name, first, end - 1) for first, end in found] or [(name, "", "")]
        tracks += [(name, *row) for row in rows]
    for file, table in (("labels.csv", labels), ("tracks.csv", tracks)):
        with (folder / file).open("w", newline="") as out:
            csv.writer(out, lineterminator="\n").writerows(table)


class Clip:
    """One clip: its actors, of a script and normal ones, and its weather."""

    def __init__(self, scene: Scene, rng: Generator, params: Params, script: tuple[Event, ...]) -> None:
        self.scene, self.rng, self.params = scene, rng, params
        self.weather, self.gust = Weather(rng), rng.uniform(0, 10)
        self.actors = [_perform(event, scene, rng, params) for event in script]
        # anomalies take the place of walkers, so that a busy frame is not an abnormal one
        count = round(rng.uniform(7, 13) * max(1.0, params.frames / params.fps / 10)) - len(script)
        self.actors += _walkers(scene, rng, params, count)

    def shots(self) -> Iterator[Shot]:
        """Yield the frames, drawn one by one."""
        height, width = self.params.height, self.params.width
        for index in range(self.params.frames):
            seconds = index / self.params.fps
            stands = {track: actor.stand(index) for track, actor in enumerate(self.actors)}
            figures = {track: stand for track, stand in stands.items() if stand is not None}
            image, shown = self.scene.picture(figures, seconds + self.gust)
            picture = expose(image, self.weather.gain(seconds, height, width), self.rng)
            yield picture, self._anomalies(figures, shown)

    def _anomalies(self, figures: dict[int, Standing], shown: Ints) -> dict[int, Bools]:
        """Return the visible pixels (h, w) of each anomaly by its track, without slivers."""
        enough = least_pixels(self.params.height)
        masks = {
            track: shown == track
            for track, (_, x, z) in figures.items()
            if self.actors[track].abnormal or on_lawn(*vector(x, z))
        }
        return {track: mask for track, mask in masks.items() if mask.sum() >= enough}


def _perform(event: Event, scene: Scene, rng: Generator, params: Params) -> Actor:
    """Return the actor of an event."""
    way, aside = scene.ways[event.way], 0.0
    if event.way in WALKS:
        aside = float(rng.uniform(-0.5, 0.5) * WALKS[event.way][0])
        way = way if rng.random() < 0.5 else way.reversed()
    start = (event.at + rng.uniform(-0.03, 0.03)) * params.frames
    travelled = event.speed * rng.uniform(0.93, 1.07) * (np.arange(params.frames) - start) / params.fps
    # what counts as entering a way over the lawn is to step on the grass
    grass = on_lawn(way.x, way.z)
    stretch = way.metres[grass] if grass.any() else way.metres
    travelled += stretch[-1] if event.leaves else stretch[0]
    body = partial(BODIES[event.kind], random_look(rng, event.fade))
    return Actor(body, way, aside, travelled, np.ones(params.frames), abnormal=event.kind != "walker")


def _walkers(scene: Scene, rng: Generator, params: Params, count: int) -> list[Actor]:
    """Return normal walkers, about `count`; how many are seen at once varies within the clip."""
    seconds, rush = params.frames / params.fps, rng.uniform(0, 1)  # the busiest time of the clip
    names = list(WALKS)
    actors: list[Actor] = []
    while len(actors) < count:
        name = names[len(actors) % 2] if len(actors) < 3 else str(rng.choice(names))  # some are always near
        middle = rush if rng.random() < 0.4 else rng.uniform(-0.1, 1.1)
        actors += _stroll(scene, rng, params, name, middle * seconds)
    return actors


def _stroll(scene: Scene, rng: Generator, params: Params, name: str, middle: float) -> list[Actor]:
    """Return one to three walkers together who are somewhere on the named way at the second `middle`."""
    breadth = WALKS[name][0]
    way = scene.ways[name] if rng.random() < 0.5 else scene.ways[name].reversed()
    seconds = np.arange(params.frames) / params.fps
    pace = np.clip(rng.normal(1.2, 0.2), 0.8, 1.6) * (1 + 0.06 * np.sin(2 * (seconds + rng.uniform(0, 3))))
    if rng.random() < 0.2:  # stops and stands for a while
        pace = pace * np.clip(np.abs(seconds - rng.uniform(0, seconds[-1])) - rng.uniform(0.5, 3.0), 0, 1)
    travelled = np.cumsum(pace) / params.fps
    travelled += rng.uniform(0.05, 0.95) * way.metres[-1] - np.interp(middle, seconds, travelled)
    members = int(rng.choice((1, 2, 3), p=(0.75, 0.18, 0.07)))
    room = breadth - 0.3 * (members - 1)
    aside = rng.uniform(-room, room) - 0.3 * (members - 1)
    return [
        Actor(
            body=partial(person, random_look(rng, fade=0.0)),
            way=way,
            aside=float(aside + 0.6 * member),
            travelled=travelled + (rng.uniform(-0.35, 0.35) if members > 1 else 0.0),
            vigour=np.minimum(pace / 0.9, 1),
            abnormal=False,
        )
        for member in range(members)
    ]
