"""Metrics against brute force, scikit-learn and published golden values; stage `evaluate` on a fabricated store."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from scipy.ndimage import gaussian_filter1d
from scipy.stats import t as student
from sklearn.metrics import auc, average_precision_score, f1_score, roc_auc_score, roc_curve

from stages.evaluate import main as evaluate_stage
from tests.conftest import REPO, ingest_params, write_params
from tests.conftest import write_clips as write_stores
from vadpipe.errors import UserError
from vadpipe.evaluation import frame, intervals, postprocess
from vadpipe.evaluation.run import timeline
from vadpipe.evaluation.scored import align
from vadpipe.evaluation.table import markdown, terminal
from vadpipe.pictures.heat import Scale
from vadpipe.pictures.top_frames import Top, choose, draw_sheet
from vadpipe.store import open_store
from vadpipe.store.frames import Frame
from vadpipe.store.scores import Scores, ScoreWriter, read_scores
from vadpipe.store.seal import seal

# UCSD Ped2: frames of the test clips, and the abnormal run of each, from 1, both ends included.
PED2_LENGTHS = (180, 180, 150, 180, 150, 180, 180, 180, 120, 150, 180, 180)
PED2_RUNS = (
    (61, 180), (95, 180), (1, 146), (31, 180), (1, 129), (1, 159),
    (46, 180), (1, 180), (1, 120), (1, 150), (1, 180), (88, 180),
)  # fmt: skip


def ped2() -> tuple[np.ndarray, np.ndarray]:
    """Return labels (2010,) and clip indices (2010,)."""
    labels = [np.zeros(length, np.int8) for length in PED2_LENGTHS]
    for clip, (first, last) in zip(labels, PED2_RUNS, strict=True):
        clip[first - 1 : last] = 1
    return np.concatenate(labels), np.repeat(np.arange(12), PED2_LENGTHS)


def random_set(seed: int, clips: int = 6, levels: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, scores with many ties, and clip indices; the first clip is all abnormal."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(5, 40, clips)
    clip = np.repeat(np.arange(clips), lengths)
    labels = (rng.random(len(clip)) < 0.4).astype(np.int8)
    labels[clip == 0] = 1
    return labels, rng.integers(0, levels, len(clip)) + 0.5 * labels.astype(float), clip


# --- frame metrics ---------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_areas_equal_pair_counting_and_scikit_learn(seed: int) -> None:
    labels, scores, clip = random_set(seed)
    pairs = frame.count_pairs(labels, scores, clip, 6)
    positive, negative = scores[labels == 1], scores[labels == 0]
    beaten = (positive[:, None] > negative).sum() + 0.5 * (positive[:, None] == negative).sum()
    assert frame.micro_auc(pairs) == pytest.approx(beaten / (len(positive) * len(negative)), abs=1e-12)
    assert frame.micro_auc(pairs) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    two = [c for c in range(6) if 0 < labels[clip == c].mean() < 1]
    each = [roc_auc_score(labels[clip == c], scores[clip == c]) for c in two]
    macro, count = frame.macro_auc(pairs)
    assert (macro, count) == (pytest.approx(np.mean(each), abs=1e-12), len(two))
    assert frame.average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    best = max(f1_score(labels, scores >= threshold) for threshold in np.unique(scores))
    assert frame.f1_max(labels, scores) == pytest.approx(best, abs=1e-12)
    rates = frame.roc(labels, scores)
    assert rates is not None
    for found, expected in zip(rates, roc_curve(labels, scores, drop_intermediate=False), strict=False):
        assert found == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_padded_macro_equals_real_pads(seed: int) -> None:
    labels, scores, clip = random_set(seed)
    each = []
    for c in range(6):
        padded = np.concatenate([scores[clip == c], [scores.min() - 1, scores.max() + 1]])
        each.append(roc_auc_score(np.concatenate([labels[clip == c], [0, 1]]), padded))
    assert frame.macro_padded(frame.count_pairs(labels, scores, clip, 6)) == pytest.approx(np.mean(each), abs=1e-12)


def test_golden_values_of_ped2_labels() -> None:
    labels, clip = ped2()
    assert (labels.sum(), len(labels)) == (1648, 2010)
    rng = np.random.default_rng(0)
    draws = [frame.count_pairs(labels, rng.random(2010), clip, 12) for _ in range(60)]
    assert np.mean([frame.macro_padded(pairs) for pairs in draws]) == pytest.approx(0.689, abs=0.004)
    assert np.mean([frame.micro_auc(pairs) for pairs in draws]) == pytest.approx(0.5, abs=0.01)
    assert frame.macro_auc(draws[0])[1] == 8
    for pairs in draws:
        x = frame.macro_auc(pairs)[0]
        assert (8 * x + 4) / 12 <= frame.macro_padded(pairs) <= (8 * x + 4) / 12 + 0.04
    constant = frame.count_pairs(labels, np.zeros(2010), clip, 12)
    assert frame.micro_auc(constant) == frame.macro_auc(constant)[0] == 0.5


def test_golden_effect_of_per_clip_minmax() -> None:
    labels, _ = ped2()
    scores = 1.5 * labels + np.random.default_rng(1).normal(size=(40, 2010))
    mapped = postprocess.apply("per_clip_minmax", scores, np.array(PED2_LENGTHS), np.ones(12))
    found = [np.mean([roc_auc_score(labels, row) for row in rows]) for rows in (scores, mapped)]
    assert found == pytest.approx([0.854, 0.777], abs=0.01)


def test_invariances() -> None:
    labels, scores, clip = random_set(3)
    pairs = frame.count_pairs(labels, scores, clip, 6)
    mapped = frame.count_pairs(labels, np.exp(scores / 3) - 7, clip, 6)
    np.testing.assert_array_equal(pairs.wins, mapped.wins)
    reverse = np.concatenate([np.flatnonzero(clip == c)[::-1] for c in range(6)])
    backwards = frame.count_pairs(labels[reverse], scores[reverse], clip, 6)
    np.testing.assert_array_equal(pairs.wins, backwards.wins)


def test_eer_is_interpolated() -> None:
    curve = (np.array([0, 0.2, 1.0]), np.array([0, 0.6, 1.0]))
    assert frame.eer(curve) == pytest.approx(1 / 3)
    assert frame.eer((np.array([0, 0, 1.0]), np.array([0, 1.0, 1.0]))) == 0
    assert frame.eer((np.array([0, 1.0]), np.array([0, 1.0]))) == 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_undefined_not_an_error(label: int) -> None:
    labels, scores, clip = np.full(9, label, np.int8), np.arange(9.0), np.repeat([0, 1, 2], 3)
    pairs = frame.count_pairs(labels, scores, clip, 3)
    curve = frame.roc(labels, scores)
    values = [frame.micro_auc(pairs), frame.macro_auc(pairs)[0], frame.macro_padded(pairs), frame.eer(curve)]
    assert np.isnan([*values, frame.average_precision(labels, scores)]).all()
    boot = intervals.bootstrap([pairs], intervals.clip_weights(3, 20))
    assert intervals.interval(boot["micro_auc"]) == {"bootstrap95": None, "bootstrap_skipped": 20}


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=4), st.integers(2, 3000))
@settings(max_examples=25, deadline=None)
def test_mean_roc_keeps_the_mean_area(seeds: list[int], levels: int) -> None:
    sets = [random_set(seed, clips=30, levels=levels) for seed in seeds]
    fpr, tpr = frame.mean_roc([frame.roc(labels, scores) for labels, scores, _ in sets])
    areas = [roc_auc_score(labels, scores) for labels, scores, _ in sets]
    assert auc(fpr, tpr) == pytest.approx(np.mean(areas), abs=1e-3)
    assert len(fpr) <= 200
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(tpr) >= 0).all()


def test_mean_roc_keeps_the_area_of_a_regular_staircase() -> None:
    labels = np.tile([1, 0], 199).astype(np.int8)
    scores = -np.arange(398.0)
    assert auc(*frame.mean_roc([frame.roc(labels, scores)])) == pytest.approx(roc_auc_score(labels, scores), abs=1e-3)


# --- post-processing -------------------------------------------------------------------------------------------


def test_gaussian_is_renormalised() -> None:
    constant = np.full(30, 0.1, np.float32).astype(float)
    np.testing.assert_array_equal(postprocess.gaussian(constant, 4.0), constant)
    constant[[0, 7, 8, 29]] = np.nan
    np.testing.assert_array_equal(postprocess.gaussian(constant, 4.0), constant)
    scores = np.random.default_rng(0).normal(size=200)
    inside = slice(12, -12)
    smooth = postprocess.gaussian(scores, 3.0)
    np.testing.assert_allclose(smooth[inside], gaussian_filter1d(scores, 3.0)[inside], atol=1e-6)
    weights = np.exp(-0.5 * (np.arange(13) / 3) ** 2)
    assert smooth[0] == pytest.approx((weights * scores[:13]).sum() / weights.sum(), abs=1e-6)


def test_smoothing_stays_inside_clips_and_survives_clips_shorter_than_the_window() -> None:
    scores = np.array([[0.0, 0, 0, 9, 9]])
    smooth = postprocess.apply("smoothed", scores, np.array([3, 2]), np.array([20.0, 20.0]))
    np.testing.assert_array_equal(smooth, scores)
    for kind in ("smoothed", "per_clip_minmax"):
        unordered = postprocess.apply(kind, scores, np.array([3, 2]), np.array([np.nan, 1.0]))
        assert np.isnan(unordered).tolist() == [[True, True, True, False, False]]


def test_minmax() -> None:
    lengths, ones = np.array([4, 3, 2]), np.ones(3)
    scores = np.array([[1.0, 3, np.nan, 2, 5, 5, 5, np.nan, np.nan]])
    mapped = postprocess.apply("per_clip_minmax", scores, lengths, ones)
    np.testing.assert_array_equal(mapped, [[0, 1, np.nan, 0.5, 0, 0, 0, np.nan, np.nan]])
    moved = scores * np.repeat([2.0, 4, 8], lengths) + np.repeat([1.0, -3, 0.5], lengths)
    np.testing.assert_allclose(postprocess.apply("per_clip_minmax", moved, lengths, ones), mapped)


# --- intervals -------------------------------------------------------------------------------------------------


def test_over_seeds() -> None:
    values = [0.7, 0.8, 0.75, 0.72]
    found = intervals.over_seeds(values)
    low, high = student.interval(0.95, 3, np.mean(values), np.std(values, ddof=1) / 2)
    assert found["ci95"] == pytest.approx([low, high], abs=1e-6)
    assert found["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert intervals.over_seeds([0.7]) == {"mean": 0.7, "sd": None, "ci95": None, "per_seed": [0.7]}
    undefined = intervals.over_seeds([0.7, np.nan])
    assert undefined == {"mean": None, "sd": None, "ci95": None, "per_seed": [0.7, None]}


def test_bootstrap_equals_resampled_frames() -> None:
    sets = [random_set(5), random_set(5, levels=3)]
    labels, _, clip = sets[0]
    weights = intervals.clip_weights(6, 40)
    micro, macro = [], []
    for weight in weights:
        drawn = np.repeat(np.arange(6), weight)
        where = np.concatenate([np.flatnonzero(clip == c) for c in drawn])
        micro.append(np.mean([roc_auc_score(labels[where], scores[where]) for _, scores, _ in sets]))
        weighted = roc_auc_score(labels, sets[0][1], sample_weight=weight[clip])
        assert weighted == pytest.approx(roc_auc_score(labels[where], sets[0][1][where]))
        two = [c for c in drawn if 0 < labels[clip == c].mean() < 1]
        each = [roc_auc_score(labels[clip == c], scores[clip == c]) for _, scores, _ in sets for c in two]
        macro.append(np.mean(each))
    pairs = [frame.count_pairs(*one, 6) for one in sets]
    found = intervals.bootstrap(pairs, weights)
    assert found["micro_auc"] == pytest.approx(np.array(micro), abs=1e-6)
    assert found["macro_auc"] == pytest.approx(np.array(macro), abs=1e-6)


def test_bootstrap_of_images_equals_resampled_images() -> None:
    rng = np.random.default_rng(7)
    labels = (rng.random(30) < 0.4).astype(np.int8)
    sets = [rng.integers(0, 9, 30) + 2.0 * labels for _ in range(2)]
    weights = intervals.clip_weights(30, 40)
    drawn = [np.repeat(np.arange(30), weight) for weight in weights]
    each = [np.mean([roc_auc_score(labels[where], scores[where]) for scores in sets]) for where in drawn]
    found = intervals.image_bootstrap([(labels, scores, np.arange(30)) for scores in sets], weights)
    assert found == pytest.approx(np.array(each), abs=1e-6)
    # An image without a score may be drawn all the same.
    part = intervals.image_bootstrap([(labels[5:], sets[0][5:], np.arange(5, 30))], weights)
    each = [roc_auc_score(labels[where[where >= 5]], sets[0][where[where >= 5]]) for where in drawn]
    assert part == pytest.approx(np.array(each), abs=1e-6)
    assert np.isnan(intervals.image_bootstrap([(labels[:0], sets[0][:0], np.arange(0))], weights)).all()


def test_bootstrap_skips_and_counts_resamples_of_one_class() -> None:
    labels, clip = np.repeat([1, 0, 0], 4).astype(np.int8), np.repeat([0, 1, 2], 4)
    weights = intervals.clip_weights(3, 500)
    drawn = intervals.bootstrap([frame.count_pairs(labels, np.arange(12.0), clip, 3)], weights)
    boot = {name: intervals.interval(values) for name, values in drawn.items()}
    skipped = ((weights[:, 0] == 0) | (weights[:, 0] == 3)).sum()
    assert 0 < boot["micro_auc"]["bootstrap_skipped"] == skipped < 500
    assert boot["macro_auc"] == {"bootstrap95": None, "bootstrap_skipped": 500}
    assert intervals.clip_weights(1, 500).shape == (0, 1)


# --- stage `evaluate` ------------------------------------------------------------------------------------------

LABELS = Path("data/labels/tiny")
CLIPS = {"c1": (45, (20, 39)), "c2": (30, (0, 29)), "c3": (38, None)}


def write_clips(clips: dict[str, tuple[int, Any]] = CLIPS, labelled: bool = True, **info: Any) -> None:
    """Write data/clips/tiny and data/labels/tiny; a clip is its length and its first and last abnormal frame."""
    rng = np.random.default_rng(0)
    frames = {"train/c0": [Frame("c0/0", np.zeros((24, 36, 3), np.uint8), label=0)]}
    for name, (length, interval) in clips.items():
        first, last = interval or (length, length)
        frames[f"test/{name}"] = [
            Frame(
                name=f"{name}/{i}",
                image=rng.integers(0, 255, (24, 36, 3)).astype(np.uint8),
                label=int(first <= i <= last) if labelled else None,
            )
            for i in range(length)
        ]
    write_stores(Path("data/clips/tiny"), LABELS, frames, **info)


def write_scores(
    seeds: tuple[int, ...] = (0,), uncovered: int = 0, maps: str = "", clips: dict[str, tuple[int, Any]] = CLIPS
) -> None:
    """Write data/scores/tiny_run: `error`, rising where abnormal, with noise, and `flat`, of zeros.

    Args:
        maps: which of the two has some.
    """
    folder = Path("data/scores/tiny_run")
    folder.mkdir(parents=True, exist_ok=True)
    writer = ScoreWriter(folder, run="tiny_run", train={"lr": 1e-7, "odd": float("nan")})
    for seed in seeds:
        for index, (name, (length, interval)) in enumerate(clips.items()):
            values = np.random.default_rng([seed, index]).normal(size=length).astype(np.float32)
            if interval:
                values[interval[0] : interval[1] + 1] += 2
            values[:uncovered] = np.nan
            # Above all that training has, since what lies below is not drawn.
            heat = {maps: 1 + np.random.default_rng(seed).random((length, 6, 9)).astype(np.float16)} if maps else {}
            writer.write(seed, name, length, [Scores({"error": values, "flat": values * 0}, heat)])
        if maps:
            heat = {maps: np.random.default_rng(seed).random((1, 6, 9)).astype(np.float16)}
            writer.write_training(seed, "c0", 1, [Scores({maps: np.zeros(1, np.float32)}, heat)])
    writer.close()
    seal(folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml of one run, `tiny_run`, as the current folder."""
    monkeypatch.chdir(tmp_path)
    run = {"dataset": "tiny", "method": "brightness", "uses": "data/clips/tiny", "train": {}, "score": {}}
    write_params(
        {
            "generate": {},
            "ingest": {"tiny": ingest_params(reader="folder", fps=10.0)},
            "archived": {},
            "inpaint": {},
            "pool_mask": {},
            "composite": {},
            "flow": {},
            "features": {},
            "methods": {"brightness": {"train": {}, "score": {}}},
            "evaluate": YAML(typ="safe").load(REPO / "params.yaml")["evaluate"]
            | {"smoothing_s": 0.3, "bootstrap": 100, "top_frames": 5},
            "runs": {"tiny_run": {**run, "evaluate": {"top_frames": 4}}},
        }
    )
    return tmp_path


def result() -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in JSON")

    text = Path("metrics/runs/tiny_run.json").read_text()
    return json.loads(text, parse_constant=refuse)


def test_a_run_is_measured(here: Path) -> None:
    write_clips()
    write_scores(seeds=(0, 1, 2), uncovered=2)
    evaluate_stage("tiny_run")
    found = result()
    assert (found["run"], found["dataset"], found["method"]) == ("tiny_run", "tiny", "brightness")
    assert (found["seeds"], found["clips"], found["frames"], found["abnormal_frames"]) == ([0, 1, 2], 3, 113, 50)
    assert (found["two_class_clips"], found["component"], found["note"]) == (1, "error", None)
    assert found["coverage"] == pytest.approx(107 / 113, abs=1e-6)
    assert found["recorded"] == {"run": "tiny_run", "train": {"lr": 1e-7, "odd": None}}
    assert found["evaluate"]["top_frames"] == 4  # overridden by the run
    assert list(found["components"]) == ["error", "flat"]
    raw = found["components"]["error"]["raw"]
    assert len(raw["micro_auc"]["per_seed"]) == 3
    assert raw["micro_auc"]["ci95"][0] < raw["micro_auc"]["mean"] < raw["micro_auc"]["ci95"][1]
    assert raw["micro_auc"]["bootstrap95"][0] < raw["micro_auc"]["mean"] < raw["micro_auc"]["bootstrap95"][1]
    assert raw["macro_auc"]["clips"] == 1
    assert found["components"]["error"]["smoothed"]["micro_auc"]["mean"] > raw["micro_auc"]["mean"]
    for kind in postprocess.KINDS:
        assert found["components"]["flat"][kind]["micro_auc"]["mean"] == 0.5
        assert found["components"]["flat"][kind]["eer"]["mean"] == 0.5


def test_uncovered_frames_leave_the_metrics(here: Path) -> None:
    write_clips()
    write_scores(uncovered=5)
    evaluate_stage("tiny_run")
    table = pd.read_csv("plots/tiny_run/timeline.csv").dropna(subset="score")
    assert len(table) == 113 - 15
    expected = roc_auc_score(table["label"], table["score"])
    assert result()["components"]["error"]["raw"]["micro_auc"]["mean"] == pytest.approx(expected, abs=1e-4)


def test_tables_and_pictures(here: Path) -> None:
    write_clips()
    write_scores(seeds=(0, 1))
    evaluate_stage("tiny_run")
    plots = Path("plots/tiny_run")
    # Pictures moved to a folder of their own: a run has strips.png only if it has maps, and DVC wants fixed names.
    assert sorted(p.name for p in plots.iterdir()) == ["detections.csv", "pictures", "timeline.csv"]
    assert sorted(p.name for p in (plots / "pictures").iterdir()) == ["timelines.png", "top_frames.png"]
    assert (plots / "detections.csv").read_text() == "recall,precision\n"
    roc = pd.read_csv("metrics/roc/tiny_run.csv")
    mean = result()["components"]["error"]["raw"]["micro_auc"]["mean"]
    assert list(roc) == ["fpr", "tpr"]
    assert auc(roc["fpr"], roc["tpr"]) == pytest.approx(mean, abs=1e-3)
    timeline = pd.read_csv(plots / "timeline.csv")
    assert list(timeline) == ["position", "clip", "frame", "time", "score", "smoothed", "label"]
    assert timeline["label"].sum() == 50
    for name in ("timelines.png", "top_frames.png"):
        assert cv2.imread(str(plots / "pictures" / name)).std() > 5
        assert (plots / "pictures" / name).stat().st_size < 400_000


@pytest.mark.parametrize("component", ["error", "flat"])
def test_maps_are_drawn_over_the_frames(here: Path, component: str) -> None:
    """Those of the main component, or of the first that has some."""
    write_clips()
    write_scores(seeds=(0, 1))
    evaluate_stage("tiny_run")
    plain = cv2.imread("plots/tiny_run/pictures/top_frames.png").astype(int)
    write_scores(seeds=(0, 1), maps=component)
    evaluate_stage("tiny_run")
    redder = cv2.imread("plots/tiny_run/pictures/top_frames.png").astype(int)
    assert len(redder) == len(plain) + 18  # the scale is told below
    redder = redder[: len(plain)]
    assert (redder[..., 2] - redder[..., 0]).mean() > (plain[..., 2] - plain[..., 0]).mean() + 10
    # Labels say which frames are abnormal, and nobody where: boxes are drawn, and not judged.
    assert cv2.imread("plots/tiny_run/pictures/strips_unlabelled.png").shape[0] > 100
    assert not Path("plots/tiny_run/pictures/strips.png").exists()


def test_long_and_many_clips_stay_small(here: Path) -> None:
    clips: dict[str, Any] = {f"clip_{i:02d}": (80, (10, 30 + i)) for i in range(40)}
    write_clips(clips)
    write_scores(clips=clips)
    evaluate_stage("tiny_run")
    timeline = pd.read_csv("plots/tiny_run/timeline.csv")
    assert 1000 < len(timeline) <= 2500
    assert timeline["clip"].nunique() == 40
    assert all(path.stat().st_size < 400_000 for path in Path("plots/tiny_run/pictures").glob("*.png"))


def test_without_labels_metrics_are_null(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clips(labelled=False)
    write_scores()
    evaluate_stage("tiny_run")
    assert "tiny_run: no labels, no AUC" in capsys.readouterr().out
    found = result()
    assert found["components"]["error"]["raw"]["micro_auc"]["mean"] is None
    assert found["components"]["error"]["raw"]["macro_padded"]["mean"] is None
    assert found["abnormal_frames"] is None
    assert "no labels" in found["note"]
    assert Path("metrics/roc/tiny_run.csv").read_text() == "fpr,tpr\n"
    assert cv2.imread("plots/tiny_run/pictures/timelines.png") is not None


def test_a_test_set_of_one_class_is_no_error(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips: dict[str, Any] = {"c1": (20, None), "c2": (20, None)}
    write_clips(clips)
    write_scores(clips=clips)
    evaluate_stage("tiny_run")
    assert "tiny_run: labels of one class, no AUC" in capsys.readouterr().out
    assert result()["components"]["error"]["raw"]["average_precision"]["mean"] is None
    assert result()["abnormal_frames"] == 0


def test_unordered_images_are_not_smoothed(here: Path) -> None:
    write_clips(ordered=False)
    write_scores()
    evaluate_stage("tiny_run")
    found = result()
    assert found["components"]["error"]["smoothed"]["micro_auc"]["mean"] is None
    assert found["components"]["error"]["raw"]["micro_auc"]["mean"] > 0.5
    assert "not smoothed" in found["note"]
    pictures = Path("plots/tiny_run/pictures")
    assert sorted(path.name for path in pictures.iterdir()) == ["scores.png", "top_frames.png"]
    drawn = cv2.imread(str(pictures / "scores.png"))
    for blue, green, red in ((60, 130, 30), (30, 40, 200)):  # a dot an image: normal, abnormal
        assert (np.abs(drawn.astype(int) - (blue, green, red)).max(axis=-1) < 30).sum() > 50


def test_each_folder_of_abnormal_images_is_measured_beside_the_normal_ones(here: Path) -> None:
    kinds: dict[str, Any] = {"bent": (12, (0, 11)), "cut": (9, (0, 8)), "good": (20, None)}
    write_clips(kinds, ordered=False)
    write_scores(clips=kinds, seeds=(0, 1))
    evaluate_stage("tiny_run")
    found = result()
    assert {name: kind["images"] for name, kind in found["kinds"].items()} == {"bent": 12, "cut": 9}
    table = read_scores(Path("data/scores/tiny_run")).frames
    for name, kind in found["kinds"].items():
        some = table[table["clip"].isin([name, "good"])]
        expected = [roc_auc_score(of["clip"] == name, of["error"]) for _, of in some.groupby("seed")]
        assert kind["image_auroc"]["mean"] == pytest.approx(np.mean(expected), abs=1e-6)
        assert kind["pixels"] is None
    shown = terminal([found], kinds=True).splitlines()
    assert [line.split()[0] for line in shown[1:5]] == ["run", "tiny_run", "bent", "cut"]
    assert "bent" not in terminal([found])
    assert "### image AUROC, by folder of abnormal images" in markdown([found])


@pytest.mark.parametrize(
    ("scored", "problem"),
    [
        ({**CLIPS, "c4": (5, None)}, "'c4' has scores but is no clip"),
        ({"c1": CLIPS["c1"], "c2": CLIPS["c2"]}, "clip 'c3' has 38 frames but 0 scores"),
        ({**CLIPS, "c2": (29, None)}, "clip 'c2' has 30 frames but 29 scores"),
    ],
)
def test_scores_that_do_not_fit_the_clips(here: Path, scored: dict[str, Any], problem: str) -> None:
    write_clips()
    write_scores(clips=scored)
    with pytest.raises(UserError, match=problem) as caught:
        evaluate_stage("tiny_run")
    assert "run tiny_run" in str(caught.value)
    assert not Path("metrics").exists()
    assert not Path("plots").exists()


def test_a_frame_that_is_scored_twice(here: Path) -> None:
    write_clips()
    write_scores()
    clips = open_store(LABELS, "labels").clips("test")
    table = read_scores(Path("data/scores/tiny_run"))
    frames = table.frames.copy()
    frames.loc[50, "frame"] = 4
    with pytest.raises(UserError, match="run tiny_run, seed 0: a frame of the clip 'c2' is scored twice"):
        align("tiny_run", replace(table, frames=frames), clips)


def test_the_order_of_rows_does_not_matter(here: Path) -> None:
    write_clips()
    write_scores(seeds=(3, 1))
    clips = open_store(LABELS, "labels").clips("test")
    table = read_scores(Path("data/scores/tiny_run"))
    shuffled = align("tiny_run", replace(table, frames=table.frames.sample(frac=1, random_state=0)), clips[::-1])
    straight = align("tiny_run", table, clips)
    assert straight.seeds == [1, 3]
    np.testing.assert_array_equal(shuffled.components["error"], straight.components["error"])
    np.testing.assert_array_equal(shuffled.labels, straight.labels)
    sd = timeline(straight, 0.3)["sd"]
    np.testing.assert_allclose(sd, np.std(straight.components["error"], axis=0, ddof=1))


def test_top_frames_keep_their_distance() -> None:
    table = pd.DataFrame(
        {
            "clip": ["a"] * 6 + ["b"] * 3,
            "frame": [0, 1, 2, 3, 4, 5, 0, 1, 2],
            "time": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.1, 0.2],
            "score": [1.0, 9, 8, 7, 2, np.nan, 8.5, 3, 2],
            "label": pd.array([0, 1, 1, 0, 0, 0, None, None, None], "Int8"),
        }
    )
    chosen = choose(table, 4, {"a": 1, "b": 2})
    assert [(top.clip, top.frame, top.label) for top in chosen] == [("a", 1, 1), ("b", 0, -1), ("a", 3, 0)]


def test_heat_on_top_frames_is_that_of_its_scale_whatever_stands_beside_it(here: Path) -> None:
    grey = Frame("a", np.full((60, 80, 3), 90, np.uint8))
    write_stores(Path("data/clips/tiny"), LABELS, {"test/c": [grey, grey], "train/c": [grey]})
    clips = open_store(Path("data/clips/tiny")).clips("test")
    tops = [Top("c", frame, np.nan, 1.0, 0) for frame in (0, 1)]

    def colours(*values: float) -> list[list[int]]:
        """Return the colours in the middle of two frames, BGR."""
        png = draw_sheet(tops, clips, [np.full((6, 8), value, np.float32) for value in values], Scale(1.0, 10.0, ""))
        drawn = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        return [drawn[120, x].tolist() for x in (160, 484)]

    plain, weak = colours(1, 2)
    assert plain == colours(np.nan, -5)[0] == colours(np.nan, -5)[1]
    assert plain == pytest.approx([90, 90, 90], abs=1)  # the palette of the sheet rounds
    assert colours(2, 5)[0] == colours(2, 1e4)[0] == weak
    assert colours(10, 1e4)[0] == colours(10, 1e4)[1]
    # A third of the way and all of it, at most three quarters opaque.
    assert weak[2] - 90 == pytest.approx((255 - 90) * 0.75 / 3, abs=2)
    assert colours(1, 10)[1][2] - 90 == pytest.approx((255 - 90) * 0.75, abs=2)


def test_the_stage_imports_no_torch(here: Path) -> None:
    write_clips()
    write_scores()
    code = (
        "import runpy, sys; sys.argv = ['evaluate.py', 'tiny_run']; "
        f"runpy.run_path({str(REPO / 'stages' / 'evaluate.py')!r}, run_name='__main__'); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "raw micro AUC" in done.stdout


@pytest.mark.parametrize(
    ("uncovered", "said"),
    [
        (20, "tiny_run: covers no frame, no AUC, coverage 0.0%"),
        (10, "tiny_run: covers frames of one class, no AUC, coverage 50.0%"),
    ],
)
def test_a_run_that_covers_too_little_says_so(
    here: Path, capsys: pytest.CaptureFixture[str], uncovered: int, said: str
) -> None:
    clips: dict[str, Any] = {"c1": (20, (5, 9)), "c2": (20, None)}
    write_clips(clips)
    write_scores(clips=clips, uncovered=uncovered)
    evaluate_stage("tiny_run")
    assert said in capsys.readouterr().out
