"""Vectors after t-SNE: which are drawn, where they lie, and how."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.conftest import write_features
from vadpipe.errors import UserError
from vadpipe.evaluation import gallery
from vadpipe.evaluation.gallery import embed, write_gallery
from vadpipe.evaluation.scored import Scored
from vadpipe.pictures.galleries import KINDS, TRAINING, UNKNOWN, Panel, draw_gallery
from vadpipe.store import open_store

# Clips in the order in which they are drawn: those of training first.
LENGTHS = {"train/a": 40, "train/b": 25, "test/a": 33, "test/c": 50, "test/d": 20}


def vectors(seed: int = 0, lengths: dict[str, int] = LENGTHS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(length, 12)).astype(np.float32) for name, length in lengths.items()}


def scored(lengths: dict[str, int] = LENGTHS, labels: dict[str, int] | None = None, fps: float = 10.0) -> Scored:
    """Return test clips by `lengths`; all frames of one have the label of `labels`, else 0."""
    tests = {name.partition("/")[2]: length for name, length in lengths.items() if name.startswith("test/")}
    each = [np.full(length, (labels or {}).get(name, 0), np.int8) for name, length in tests.items()]
    frames = sum(tests.values())
    return Scored(
        names=list(tests),
        lengths=np.array(list(tests.values())),
        fps=np.full(len(tests), fps),
        times=np.zeros(frames),
        labels=np.concatenate(each),
        seeds=[0],
        components={"distance": np.zeros((1, frames))},
        info={"run": "tiny_knn"},
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is drawn, with the vectors in the place of their places."""
    found: dict[str, Any] = {}

    def draw(panels: list[Panel], clips: list[str], title: str, note: str) -> bytes:
        found.update(panels=panels, clips=clips, title=title, note=note)
        return b"png"

    monkeypatch.setattr(gallery, "draw_gallery", draw)
    monkeypatch.setattr(gallery, "embed", lambda values: (values, 1.0, 10.0))
    return found


def test_all_frames_and_the_maxima_of_clips(tmp_path: Path, drawn: dict[str, Any]) -> None:
    there = vectors()
    store = open_store(write_features(tmp_path / "net", there), "features")
    of_test = scored(labels={"c": 1, "d": UNKNOWN})
    of_test.labels[:30] = 1  # three frames of `a` are normal
    write_gallery(tmp_path, store, of_test)
    assert (tmp_path / "features.png").read_bytes() == b"png"
    assert drawn["clips"] == list(LENGTHS)
    assert drawn["title"] == f"tiny_knn: vectors of {tmp_path / 'net'}"
    frames, clips = drawn["panels"]
    assert frames.title.startswith("168 frames; ")
    np.testing.assert_array_equal(frames.places, np.concatenate(list(there.values())))
    assert frames.clip.tolist() == [index for index, length in enumerate(LENGTHS.values()) for _ in range(length)]
    assert frames.kind.tolist() == [TRAINING] * 65 + [1] * 30 + [0] * 3 + [1] * 50 + [UNKNOWN] * 20
    assert clips.title.startswith("maxima of 5 clips")
    np.testing.assert_array_equal(clips.places, [one.max(axis=0) for one in there.values()])
    assert clips.clip.tolist() == [0, 1, 2, 3, 4]
    assert clips.kind.tolist() == [TRAINING, TRAINING, 1, 1, UNKNOWN]


@pytest.mark.parametrize(("most", "step"), [(168, 1), (167, 2), (60, 3), (5, 34)])
def test_of_many_frames_some_are_drawn_evenly(
    tmp_path: Path, drawn: dict[str, Any], monkeypatch: pytest.MonkeyPatch, most: int, step: int
) -> None:
    monkeypatch.setattr(gallery, "_FRAMES", most)
    there = vectors()
    write_gallery(tmp_path, open_store(write_features(tmp_path / "net", there), "features"), scored())
    frames, clips = drawn["panels"]
    np.testing.assert_array_equal(frames.places, np.concatenate(list(there.values()))[::step])
    assert len(frames.places) == len(frames.clip) == len(frames.kind) <= most
    assert frames.title.startswith("168 frames; " if step == 1 else f"168 frames, one in {step} drawn; ")
    # Of a clip all frames count, drawn or not.
    np.testing.assert_array_equal(clips.places, [one.max(axis=0) for one in there.values()])


def test_loose_images_have_no_maxima(tmp_path: Path, drawn: dict[str, Any]) -> None:
    store = open_store(write_features(tmp_path / "net", vectors(), ordered=False, fps=None), "features")
    write_gallery(tmp_path, store, scored(fps=np.nan))
    (images,) = drawn["panels"]
    assert images.title.startswith("168 images; ")


def test_few_frames_are_no_map(tmp_path: Path, drawn: dict[str, Any]) -> None:
    lengths = {"train/a": 1, "test/a": 2}
    store = open_store(write_features(tmp_path / "net", vectors(lengths=lengths)), "features")
    write_gallery(tmp_path, store, scored(lengths))
    assert not drawn
    assert not (tmp_path / "features.png").exists()


def test_other_frames_than_those_that_were_scored_are_refused(tmp_path: Path) -> None:
    store = open_store(write_features(tmp_path / "net", vectors()), "features")
    with pytest.raises(UserError, match=r"test/d\.parquet has 20 vectors, but there are 19 scores; run `dvc repro`"):
        write_gallery(tmp_path, store, scored({**LENGTHS, "test/d": 19}))
    lengths = {name: length for name, length in LENGTHS.items() if name != "test/c"}
    with pytest.raises(UserError, match=r"test/c\.parquet has 50 vectors, but there are 0 scores"):
        write_gallery(tmp_path, store, scored(lengths))


def test_groups_stay_together_and_places_are_the_same_again() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(3), 20)
    far = rng.normal(size=(3, 80)).astype(np.float32) * 4
    values = far[group] + rng.normal(size=(60, 80)).astype(np.float32) * 0.5
    places, kept, perplexity = embed(values)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.eye(60) * 1e9
    assert (group[distances.argmin(axis=1)] == group).all()
    assert 0.9 < kept < 1
    assert perplexity == 10
    np.testing.assert_array_equal(embed(values)[0], places)


@pytest.mark.parametrize("count", [4, 9])
def test_few_or_equal_vectors_have_places(count: int) -> None:
    values = np.random.default_rng(0).normal(size=(count, 5)).astype(np.float32)
    for one in (values, np.ones_like(values)):
        places, kept, perplexity = embed(one)
        assert np.isfinite(places).all()
        assert kept == pytest.approx(1)
        assert perplexity == pytest.approx((count - 1) / 3)


def panel(count: int, clips: int) -> Panel:
    rng = np.random.default_rng(0)
    kinds = np.resize(list(KINDS), count)
    return Panel("points", rng.normal(size=(count, 2)), np.sort(rng.integers(0, clips, count)), kinds)


@pytest.mark.parametrize("clips", [5, 500])
def test_the_picture_is_light_and_has_all_colours(clips: int) -> None:
    names = [f"test/clip_{index:03d}" for index in range(clips)]
    png = draw_gallery([panel(1000, clips), panel(16, clips)], names, "a run", "how")
    assert len(png) < 400_000
    image = PIL.Image.open(io.BytesIO(png))
    assert image.size[0] > image.size[1] > 800
    there = np.asarray(image.convert("RGB")).reshape(-1, 3).astype(int)
    for name, colour in KINDS.values():
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (abs(there - wanted).max(axis=1) < 12).sum() > 30, name
    alone = PIL.Image.open(io.BytesIO(draw_gallery([panel(50, clips)], names, "a run", "how")))
    assert alone.size[0] < image.size[0]
    assert alone.size[1] == image.size[1]
