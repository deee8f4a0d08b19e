"""Fusion: a weighted sum of components, each divided by its mean in training, without training or scoring again."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import tiny_params
from vadpipe.errors import UserError
from vadpipe.evaluation.fusion import FUSED, box_filter, fused
from vadpipe.evaluation.scored import Scored
from vadpipe.params import Evaluate, parse
from vadpipe.store.scores import Scores, ScoreWriter, read_map, read_scores, read_training_maps

LENGTHS = {"a": 7, "b": 5}
TRAINING = {"c": 6, "d": 4}
GRID = (3, 4)
SEEDS = [0, 3]


def chunked(seed: int, clip: str, length: int, grids: tuple[int, int] = GRID) -> list[Scores]:
    """Return scores of a clip in two chunks: error and difference with maps, and a probability without one."""
    rng = np.random.default_rng((seed, ord(clip)))
    maps = {"error": rng.uniform(1, 3, (length, *GRID)), "difference": rng.uniform(0, 0.1, (length, *grids))}
    maps = {name: values.astype(np.float16).astype(np.float32) for name, values in maps.items()}
    parts = {name: values.mean((1, 2)).astype(np.float32) for name, values in maps.items()}
    parts["head"] = rng.uniform(0, 1, length).astype(np.float32)
    return [
        Scores({name: values[part] for name, values in parts.items()}, {name: one[part] for name, one in maps.items()})
        for part in (slice(0, 3), slice(3, length))
    ]


def store(folder: Path, grids: tuple[int, int] = GRID) -> Scored:
    folder.mkdir()
    with closing(ScoreWriter(folder, run="mine")) as writer:
        for seed in SEEDS:
            for clip, length in LENGTHS.items():
                writer.write(seed, clip, length, chunked(seed, clip, length, grids))
            for clip, length in TRAINING.items():
                writer.write_training(seed, clip, length, chunked(seed, clip, length, grids))
    table = read_scores(folder)
    frames = table.frames.sort_values(["seed", "clip", "frame"])
    return Scored(
        names=list(LENGTHS),
        lengths=np.array(list(LENGTHS.values())),
        fps=np.full(2, 10.0),
        times=np.zeros(12),
        labels=np.zeros(12, np.int8),
        seeds=SEEDS,
        components={name: frames[name].to_numpy(np.float64).reshape(2, -1) for name in table.components},
        info=table.info,
    )


def settings(**changes: Any) -> Evaluate:
    return parse(Evaluate, {**tiny_params()["evaluate"], **changes}, "evaluate")


def parts_of(seed: int, clip: str, length: int) -> dict[str, np.ndarray]:
    """Return the parts of a clip, each (T, h, w)."""
    both = chunked(seed, clip, length)
    found = {name: np.concatenate([one.maps[name] for one in both]) for name in ("error", "difference")}
    head = np.concatenate([one.components["head"] for one in both])
    return {**found, "head": np.broadcast_to(head[:, None, None], (length, *GRID))}


def slow_filter(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Average over boxes, loop by loop; beyond an edge its values go on."""
    out = np.empty_like(values)
    reach = [side // 2 for side in size]
    for t, y, x in np.ndindex(*values.shape):
        box = [
            values[np.clip(t + i, 0, values.shape[0] - 1), np.clip(y + j, 0, values.shape[1] - 1),
                   np.clip(x + k, 0, values.shape[2] - 1)]
            for i in range(-reach[0], reach[0] + 1)
            for j in range(-reach[1], reach[1] + 1)
            for k in range(-reach[2], reach[2] + 1)
        ]  # fmt: skip
        out[t, y, x] = np.mean(box)
    return out


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 1, 1), (1, 3, 3), (5, 3, 1), (9, 9, 9)])
def test_the_box_filter_is_the_mean_over_a_box(size: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).uniform(0, 1, (6, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(box_filter(values, size), slow_filter(values, size), rtol=1e-5)


def test_what_is_not_looked_at_leaves_the_means_of_its_neighbours() -> None:
    values = np.ones((3, 4, 4), np.float32)
    values[1, 2, 2] = np.nan
    filtered = box_filter(values, (3, 3, 3))
    assert np.isnan(filtered[1, 2, 2])
    np.testing.assert_allclose(filtered[np.isfinite(filtered)], 1, rtol=1e-6)
    assert np.isfinite(filtered).sum() == filtered.size - 1


@pytest.mark.parametrize("pool", ["max", "mean"])
@pytest.mark.parametrize("size", [[1, 1, 1], [3, 3, 1]])
def test_the_sum_is_that_of_equation_6(tmp_path: Path, pool: str, size: list[int]) -> None:
    """Twin: clip by clip, loops instead of filters."""
    scored = store(tmp_path / "mine")
    weights = {"error": 0.4, "difference": 0.3, "head": 0.3}
    with fused("mine", settings(weights=weights, filter=size, pool=pool), scored, tmp_path / "mine") as (out, folder):
        assert out.main == FUSED
        assert list(out.components) == [FUSED, "error", "difference", "head"]
        for index, seed in enumerate(SEEDS):
            training = [parts_of(seed, clip, length) for clip, length in TRAINING.items()]
            means = {name: np.concatenate([one[name].ravel() for one in training]).mean() for name in weights}
            start = 0
            for clip, length in LENGTHS.items():
                parts = parts_of(seed, clip, length)
                total = sum(weight * parts[name] / means[name] for name, weight in weights.items())
                expected = slow_filter(np.asarray(total), tuple(size))
                scores = out.components[FUSED][index, start : start + length]
                frame = expected.max((1, 2)) if pool == "max" else expected.mean((1, 2))
                np.testing.assert_allclose(scores, frame, rtol=1e-4)
                np.testing.assert_allclose(read_map(folder, seed, clip, FUSED), expected, rtol=2e-3)
                start += length
            maps = read_training_maps(folder, seed, FUSED)
            assert {name: one.shape for name, one in maps.items()} == {
                clip: (length, *GRID) for clip, length in TRAINING.items()
            }
            if size == [1, 1, 1]:
                # Divided by their means, the parts add up to the sum of the weights on average.
                assert np.mean(np.concatenate([one.ravel() for one in maps.values()])) == pytest.approx(1, rel=1e-2)
            assert out.info["divided_by"][str(seed)] == pytest.approx(means, rel=1e-3)
    assert not list(tmp_path.glob(".mine*"))


def test_without_weights_nothing_changes(tmp_path: Path) -> None:
    scored = store(tmp_path / "mine")
    with fused("mine", settings(), scored, tmp_path / "mine") as (out, folder):
        assert out is scored
        assert folder == tmp_path / "mine"


def test_components_without_maps_add_up_frame_by_frame(tmp_path: Path) -> None:
    scored = store(tmp_path / "mine")
    with fused("mine", settings(weights={"head": 2.0}, pool="max"), scored, tmp_path / "mine") as (out, folder):
        for index, seed in enumerate(SEEDS):
            mean = np.concatenate([
                chunk.components["head"] for clip, length in TRAINING.items() for chunk in chunked(seed, clip, length)
            ]).mean()  # fmt: skip
            np.testing.assert_allclose(
                out.components[FUSED][index], 2 * scored.components["head"][index] / mean, rtol=1e-5
            )
        assert not list(folder.rglob("*.npy"))


def test_a_frame_that_a_part_does_not_cover_is_not_covered(tmp_path: Path) -> None:
    scored = store(tmp_path / "mine")
    scored.components["head"][0, 4] = np.nan
    with fused("mine", settings(weights={"error": 1.0, "head": 1.0}), scored, tmp_path / "mine") as (out, _):
        assert np.isnan(out.components[FUSED][0]).nonzero()[0].tolist() == [4]


def test_mistakes_are_named(tmp_path: Path) -> None:
    scored = store(tmp_path / "mine")

    def fuse(weights: dict[str, float], folder: str = "mine") -> None:
        with fused("mine", settings(weights=weights), scored, tmp_path / folder):
            pass

    with pytest.raises(UserError, match=r"no component 'eror'; did you mean 'error'.* has: error, difference, head"):
        fuse({"eror": 1.0})
    (tmp_path / "old").mkdir()
    with pytest.raises(UserError, match=r"training.parquet is not here.* `dvc repro score@mine`"):
        fuse({"error": 1.0}, "old")
    store(tmp_path / "odd", grids=(2, 2))
    with pytest.raises(UserError, match="maps of error, difference of the clip 'c' are of different sizes"):
        fuse({"error": 1.0, "difference": 1.0}, "odd")
    with pytest.raises(UserError, match="pool"):
        settings(pool="median")
