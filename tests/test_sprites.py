"""Scene `sprites`: virtual anomalies in the layout of UBnormal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SPRITES
from vadpipe.datasets import base as readers
from vadpipe.datasets import ubnormal
from vadpipe.errors import UserError
from vadpipe.scenes import generate, sprites
from vadpipe.scenes.figures.people import random_look
from vadpipe.scenes.sprites.falling import falling
from vadpipe.store.sampling import Sampling


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "sprites"
    generate("sprites", SPRITES, folder)
    return folder


def listed(source: Path, kind: str) -> list[str]:
    return (source / "scripts" / f"{kind}_video_names.txt").read_text().split()


def videos(source: Path) -> Iterable[Path]:
    return source.glob("Scene*/abnormal*.avi")


def digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(path.read_bytes() if path.is_file() else str(path.relative_to(folder)).encode())
    return found.hexdigest()


def test_the_reader_of_ubnormal_reads_it_with_masks_and_boxes(source: Path) -> None:
    found = readers.scan(source, "ubnormal", None)
    assert [(clip.split, clip.name) for clip in found.clips] == [
        ("test", "abnormal_scene_1_scenario_2"),
        ("test", "normal_scene_1_scenario_2"),
        ("train", "normal_scene_1_scenario_1"),
        ("train", "normal_scene_2_scenario_1"),
    ]
    frames = list(found.clips[0].frames(Sampling()))
    assert len(frames) == 12
    assert any(frame.boxes for frame in frames)
    assert all(bool(frame.boxes) == (frame.label == 1) for frame in frames)


def test_the_lists_name_every_video_once(source: Path) -> None:
    names = [name for kind in ("normal", "abnormal") for split in ("training", "validation", "test")
             for name in listed(source, f"{kind}_{split}")]  # fmt: skip
    assert sorted(names) == sorted(path.stem for path in source.glob("Scene*/*.avi"))
    assert listed(source, "abnormal_training") == ["abnormal_scene_1_scenario_1", "abnormal_scene_2_scenario_1"]


def test_a_track_is_seen_in_every_frame_that_it_names(source: Path) -> None:
    for video in videos(source):
        maps = [ubnormal.read_id_map(path, 96, 144) for path in ubnormal.id_maps(video)]
        assert len(maps) == 12
        rows = ubnormal.tracks(video)
        assert rows
        for row in rows:
            assert min((maps[frame] == row.object).sum() for frame in range(row.first, row.last + 1)) >= 4


def test_walkers_are_in_the_maps_but_in_no_track(source: Path) -> None:
    for video in videos(source):
        objects = set(np.unique([ubnormal.read_id_map(path, 96, 144) for path in ubnormal.id_maps(video)])) - {0}
        assert {row.object for row in ubnormal.tracks(video)} < objects


def test_equal_seeds_draw_equal_bytes_and_another_seed_others(source: Path, tmp_path: Path) -> None:
    generate("sprites", SPRITES, tmp_path / "again")
    generate("sprites", {**SPRITES, "seed": 4}, tmp_path / "other")
    assert digest(source) == digest(tmp_path / "again")
    assert digest(source) != digest(tmp_path / "other")


def test_a_view_does_not_depend_on_the_number_of_views(source: Path, tmp_path: Path) -> None:
    generate("sprites", {**SPRITES, "views": 1}, tmp_path / "one")
    assert digest(source / "Scene1") == digest(tmp_path / "one" / "Scene1")


def test_who_falls_ends_up_lying_on_the_ground() -> None:
    look = random_look(np.random.default_rng(0), fade=0.0)

    def extent(vigour: float) -> np.ndarray:
        points = np.concatenate([part.points for part in falling(look, 0.3, vigour)])
        return np.ptp(points, axis=0)

    standing, halfway, lying = extent(1.0), extent(0.4), extent(0.0)
    assert standing[2] > 0.9 * look.height
    assert standing[2] > halfway[2] > lying[2]
    assert lying[2] < 0.5 * look.height < lying[0]


def test_wrong_parameters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"generate\.sprites\.views"):
        generate("sprites", {**SPRITES, "views": 0}, tmp_path / "none")
    assert set(sprites.Params.model_fields) == set(SPRITES)
