"""RBDC and TBDC: golden values of the reference implementation, a twin written as a loop, and resampling."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vadpipe.evaluation import arrays
from vadpipe.evaluation.boxes import Box
from vadpipe.evaluation.regions import Steps, areas, collect, linked

BOX = (0, 0, 10, 10)  # both max exclusive: [0, 0, 9, 9] with both ends included


def measured(
    found: dict[int, list[tuple[tuple[int, ...], float]]],
    true: dict[int, list[tuple[tuple[int, ...], int]]],
    frames: int,
) -> tuple[float, float]:
    """Return TBDC and RBDC of boxes with scores, and true boxes with tracks, by frame."""
    boxes = [[Box(*map(float, box), score) for box, score in found.get(index, [])] for index in range(frames)]
    truths = [np.array([box for box, _ in true.get(index, [])], float).reshape(-1, 4) for index in range(frames)]
    tracks = [np.array([track for _, track in true.get(index, [])], np.int64) for index in range(frames)]
    steps = collect(boxes, truths, tracks, np.zeros(frames, np.int64), 1)
    rbdc, tbdc = areas(steps, np.ones((1, 1), np.int64))[:, 0]
    return float(tbdc), float(rbdc)


TRACK = {index: [(BOX, 0)] for index in range(10)}
HITS = {index: [(BOX, 0.5)] for index in range(10)}
AWAY = (30, 30, 40, 40)
GOLDEN = {
    "all hit": ((HITS, TRACK, 20), (1.0, 1.0)),
    "a tenth of the track": (({0: [(BOX, 0.5)]}, TRACK, 20), (1.0, 0.1)),
    "five false ones first": (({**HITS, **{10 + i: [(BOX, 0.9)] for i in range(5)}}, TRACK, 20), (0.75, 0.75)),
    "the same twice": (({0: [(BOX, 0.9), (BOX, 0.8)], 15: [(BOX, 0.1)]}, TRACK, 20), (1.0, 0.1)),
    "forty false ones first": (
        ({**HITS, **{10 + i: [(BOX, 0.9)] * 4 for i in range(10)}}, TRACK, 20),
        (0.0, 0.0),
    ),
    "one box for two tracks": (({0: [(BOX, 0.5)]}, {0: [(BOX, 0), ((1, 1, 11, 11), 1)]}, 10), (1.0, 1.0)),
    "an overlap of 0.111": (({0: [((8, 0, 18, 10), 0.5)]}, {0: [(BOX, 0)]}, 10), (1.0, 1.0)),
    "an overlap of 0.053": (({0: [((9, 0, 19, 10), 0.5)]}, {0: [(BOX, 0)]}, 10), (0.0, 0.0)),
    "no box": (({}, TRACK, 20), (0.0, 0.0)),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_values_of_the_reference(case: str) -> None:
    given, expected = GOLDEN[case]
    assert measured(*given) == pytest.approx(expected, abs=1e-12)


def test_without_regions_there_is_no_figure() -> None:
    assert np.isnan(measured({0: [(BOX, 0.5)]}, {}, 5)).all()


Clips = list[tuple[list[list[Box]], list[np.ndarray], list[np.ndarray]]]


def drawn(seed: int, clips: int, scores: int = 5) -> Clips:
    """Return boxes, true boxes and tracks of each frame of some clips; objects walk, boxes lie about them.

    Args:
        scores: how many different ones there are at most.
    """
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(clips):
        frames, objects = int(rng.integers(3, 12)), int(rng.integers(0, 4))
        starts, steps = rng.uniform(0, 40, (objects, 2)), rng.uniform(-3, 3, (objects, 2))
        boxes, truths, tracks = [], [], []
        for t in range(frames):
            there = np.flatnonzero(rng.random(objects) < 0.8)
            corners = (starts + t * steps)[there]
            true = np.column_stack([corners, corners + 10]).reshape(-1, 4)
            near = np.vstack([true + rng.uniform(-9, 9, (*true.shape[:1], 1)), *[rng.uniform(0, 50, (1, 4))] * 2])
            near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
            boxes.append([Box(*map(float, box), float(rng.integers(1, 1 + scores))) for box in near])
            truths.append(true)
            tracks.append(there)
        out.append((boxes, truths, tracks))
    return out


def steps_of(clips: Clips) -> Steps:
    found = [boxes for clip in clips for boxes in clip[0]]
    truths = [true for clip in clips for true in clip[1]]
    tracks = [100 * index + ids for index, clip in enumerate(clips) for ids in clip[2]]
    unit = np.repeat(np.arange(len(clips)), [len(clip[0]) for clip in clips])
    return collect(found, truths, tracks, unit, len(clips))


def looped(clips: Clips) -> tuple[float, float]:
    """RBDC and TBDC as their definition reads, threshold after threshold, all counted anew."""
    entries = [(box, c, t) for c, clip in enumerate(clips) for t, boxes in enumerate(clip[0]) for box in boxes]
    entries.sort(key=lambda entry: -entry[0].score)
    lengths: dict[tuple[int, int], int] = {}
    for c, clip in enumerate(clips):
        for ids in clip[2]:
            for one in ids:
                lengths[c, int(one)] = lengths.get((c, int(one)), 0) + 1
    frames = sum(len(clip[0]) for clip in clips)
    curve = [(0.0, 0.0, 0.0)]
    for count in range(1, len(entries) + 1):
        hit, false = set(), 0
        for box, c, t in entries[:count]:
            over = [m for m, true in enumerate(clips[c][1][t]) if iou(box, true) >= 0.1]
            false += not over
            hit |= {(c, t, m) for m in over}
        by_track: dict[tuple[int, int], int] = {}
        for c, t, m in hit:
            key = c, int(clips[c][2][t][m])
            by_track[key] = by_track.get(key, 0) + 1
        tracks = sum(by_track.get(key, 0) / length >= 0.1 for key, length in lengths.items())
        curve.append((false / frames, len(hit) / sum(lengths.values()), tracks / len(lengths)))
    kept = [point for point in curve if point[0] <= 1]
    kept.append((1.0, *kept[-1][1:]))
    return tuple(  # type: ignore[return-value]
        sum((b[0] - a[0]) * (a[axis] + b[axis]) / 2 for a, b in pairwise(kept)) for axis in (1, 2)
    )


def iou(one: Box, other: np.ndarray) -> float:
    width = min(one.x_max, other[2]) - max(one.x_min, other[0])
    height = min(one.y_max, other[3]) - max(one.y_min, other[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (one.x_max - one.x_min) * (one.y_max - one.y_min) + (other[2] - other[0]) * (other[3] - other[1])
    return float(width * height / (area - width * height))


@pytest.mark.parametrize("seed", range(12))
def test_equals_a_loop(seed: int) -> None:
    clips = drawn(seed, 4)
    if not any(len(true) for clip in clips for true in clip[1]):
        pytest.skip("no object was drawn")
    assert areas(steps_of(clips), np.ones((1, 4), np.int64))[:, 0] == pytest.approx(looped(clips), abs=1e-12)


def test_a_resample_is_the_clips_that_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_CELLS", 100)  # in several parts
    clips = drawn(3, 5, scores=2**53)  # of equal ones, the order would count
    weights = np.random.default_rng(0).multinomial(5, [0.2] * 5, 30)
    found = areas(steps_of(clips), weights)
    for index, row in enumerate(weights):
        again = [clips[c] for c in range(5) for _ in range(row[c])]
        expected = areas(steps_of(again), np.ones((1, 5), np.int64))[:, 0]
        assert found[:, index] == pytest.approx(expected, nan_ok=True)


def test_regions_without_tracks_are_linked_by_overlap() -> None:
    """Two walk towards and past each other, one leaves, one comes."""
    a = [np.array([[x, 0, x + 10, 10], [60 - x, 20, 70 - x, 30]], float) for x in (0, 4, 8)]
    frames = [*a, a[2][:1], np.zeros((0, 4)), a[2][::-1]]
    assert [ids.tolist() for ids in linked(frames)] == [[0, 1], [0, 1], [0, 1], [0], [], [2, 3]]


def test_a_track_goes_on_in_one_region_alone() -> None:
    """A region that falls apart goes on in the larger part."""
    whole, parts = np.array([[0, 0, 20, 10]], float), np.array([[0, 0, 6, 10], [8, 0, 20, 10]], float)
    assert [ids.tolist() for ids in linked([whole, parts])] == [[0], [1, 0]]
