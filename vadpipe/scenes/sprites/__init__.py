"""Virtual anomalies in the layout of UBnormal: who rolls, runs or falls, seen by several cameras over open ground.

What stage `composite` pastes. Each scene has a view of its own; its abnormal videos show cyclists, carts, skaters,
runners and people who fall among a few walkers, and say of every pixel whose it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from pydantic import Field

from vadpipe.params import Section
from vadpipe.scenes.arrays import Bytes, Ints
from vadpipe.scenes.figures.drawing import least_pixels
from vadpipe.scenes.sprites.cast import Role, Take, anomalies, walkers
from vadpipe.scenes.sprites.ground import Ground
from vadpipe.scenes.videos import write_video
from vadpipe.stretches import stretches


class Params(Section):
    """Seed, number of views, abnormal training videos a view, frames a video, their size in pixels and their rate."""

    seed: int = Field(ge=0)
    views: int = Field(ge=1, le=1000)
    videos: int = Field(ge=1, le=1000)
    frames: int = Field(ge=8, le=10_000)
    height: int = Field(ge=48)
    width: int = Field(ge=48)
    fps: float = Field(gt=0)


def write(params: Params, folder: Path) -> None:
    """Write the scenes and the split lists into an existing empty `folder`."""
    names: dict[str, list[str]] = {
        f"{kind}_{split}": [] for kind in ("normal", "abnormal") for split in ("training", "validation", "test")
    }
    for view in range(1, params.views + 1):
        ground = Ground(np.random.default_rng((params.seed, view)), params.height, params.width)
        scene = folder / f"Scene{view}"
        scene.mkdir()
        # Of the first view there is a test, too, so that the layout is whole.
        last = "test" if view == 1 else None
        splits = {"normal": ["training", last], "abnormal": ["training"] * params.videos + [last]}
        for kind, of_kind in splits.items():
            for number, split in enumerate(filter(None, of_kind), 1):
                name = f"{kind}_scene_{view}_scenario_{number}"
                names[f"{kind}_{split}"].append(name)
                rng = np.random.default_rng((params.seed, view, number, kind == "abnormal"))
                _write_video(scene / name, ground, rng, params, abnormal=kind == "abnormal")
    (folder / "scripts").mkdir()
    for kind, listed in names.items():
        (folder / "scripts" / f"{kind}_video_names.txt").write_text("\n".join(listed))


def _write_video(stem: Path, ground: Ground, rng: np.random.Generator, params: Params, abnormal: bool) -> None:
    """Write a video, and of an abnormal one its id maps and its track file."""
    take = Take(ground.camera, params.frames, params.fps)
    roles = (anomalies(rng, take) if abnormal else []) + walkers(rng, take)
    video = Video(ground, roles, rng, params)
    write_video(video.pictures(), (params.width, params.height), params.fps, stem.with_suffix(".avi"))
    if not abnormal:
        return
    annotations = stem.with_name(f"{stem.name}_annotations")
    annotations.mkdir()
    for index, ids in enumerate(video.maps):
        (annotations / f"{stem.name}_{index:04d}_gt.png").write_bytes(cv2.imencode(".png", ids)[1].tobytes())
    (annotations / f"{stem.name}_tracks.txt").write_text("".join(f"{a},{b},{c}\n" for a, b, c in video.tracks()))


class Video:
    """A video of some roles; `maps` are filled as it is drawn: the object, from 1, of each pixel (h, w)."""

    def __init__(self, ground: Ground, roles: list[Role], rng: np.random.Generator, params: Params) -> None:
        self.ground, self.roles, self.rng, self.params = ground, roles, rng, params
        self.maps: list[Bytes] = []

    def pictures(self) -> Iterator[Bytes]:
        """Yield the frames, drawn one by one."""
        for index in range(self.params.frames):
            stands = {number: role.actor.stand(index) for number, role in enumerate(self.roles, 1)}
            picture, shown = self.ground.picture(
                {number: stand for number, stand in stands.items() if stand is not None}, self.rng
            )
            self.maps.append(shown.astype(np.uint8))
            yield picture

    def tracks(self) -> list[tuple[int, int, int]]:
        """Return object, first and last frame of every stretch in which an anomaly is seen."""
        enough = least_pixels(self.params.height)
        pixels: Ints = np.array([np.bincount(ids.ravel(), minlength=len(self.roles) + 1) for ids in self.maps])
        rows = []
        for number, role in enumerate(self.roles, 1):
            seen = pixels[:, number] >= enough
            seen[: self.params.frames if role.starts is None else role.starts] = False
            rows += [(number, first, end - 1) for first, end in stretches(seen)]
        return rows
