"""Boxes from maps, and how they are measured."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vadpipe.errors import UserError
from vadpipe.evaluation import detection, intervals
from vadpipe.evaluation.boxes import Box, find_boxes, heat_scale, training_levels
from vadpipe.params import Evaluate

SETTINGS = Evaluate(
    weights={},
    filter=[1, 1, 1],
    pool="max",
    smoothing_s=0.3,
    bootstrap=100,
    top_frames=4,
    gallery=False,
    box_levels=[0.98, 0.99, 0.995, 0.998, 0.9995],
    box_area=[0.0004, 0.25],
    box_aspect=8.0,
    box_overlap=0.3,
    box_false_alarms=0.1,
    chosen=[],
)
SIZE = (480, 640)
LEVELS = [1.0, 1.5, 2.0, 3.0]


def field(*shapes: tuple[slice, slice], height: int = 96, width: int = 128, value: float = 4.0) -> np.ndarray:
    values = np.zeros((height, width), np.float32)
    for shape in shapes:
        values[shape] = value
    return values


def boxes(values: np.ndarray, size: tuple[int, int] = SIZE, **changes: object) -> list[Box]:
    return find_boxes(values, LEVELS, size, SETTINGS.model_copy(update=changes))


def places(values: np.ndarray, **changes: object) -> list[tuple[float, ...]]:
    return sorted(box[:4] for box in boxes(values, **changes))


# --- boxes -----------------------------------------------------------------------------------------------------


def test_a_blob_has_its_box() -> None:
    assert places(field(np.s_[20:30, 40:60])) == [(200, 100, 300, 150)]
    # The frame may have any size, and cells need not be square.
    found = boxes(field(np.s_[20:30, 40:60]), size=(96, 256))
    assert [box[:4] for box in found] == [(80, 20, 120, 30)]
    # At the border too.
    assert places(field(np.s_[86:96, 110:128])) == [(550, 430, 640, 480)]


def test_no_blob_no_box() -> None:
    assert boxes(np.zeros((96, 128), np.float32)) == []
    assert boxes(np.full((96, 128), np.nan, np.float32)) == []
    hole = field(np.s_[20:30, 40:60])
    hole[np.isclose(hole, 0)] = np.nan
    assert places(hole) == [(200, 100, 300, 150)]


@pytest.mark.parametrize("angle", range(0, 180, 15))
@pytest.mark.parametrize("thickness", [1, 2])
def test_lines_at_any_angle_are_no_boxes(angle: int, thickness: int) -> None:
    values = field()
    way = 200 * np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))])
    ends = [tuple(int(v) for v in np.array([64, 48]) + sign * way) for sign in (-1, 1)]
    cv2.line(values, ends[0], ends[1], 4.0, thickness)
    assert boxes(values) == []


@pytest.mark.parametrize("angle", [0, 30, 45, 80])
def test_long_and_thin_is_no_object_however_it_lies(angle: int) -> None:
    values = field()
    corners = cv2.boxPoints(((64, 48), (60, 5), angle)).astype(np.int32)
    cv2.fillPoly(values, [corners], 4.0)
    assert boxes(values) == []
    assert len(boxes(values, box_aspect=30.0)) == 1


def test_specks_are_no_boxes_and_a_line_does_not_stretch_a_blob() -> None:
    rng = np.random.default_rng(0)
    specks = field()
    specks[rng.integers(0, 96, 40), rng.integers(0, 128, 40)] = 4
    assert boxes(specks) == []
    crossed = field(np.s_[20:30, 40:60], np.s_[25:27, :])
    (box,) = boxes(crossed)
    np.testing.assert_allclose(box[:4], (200, 100, 300, 150), atol=10)  # two cells


def test_a_net_of_lines_is_no_object() -> None:
    net = field()
    for start in (10, 58):
        net[start : start + 3, 10:61] = net[10:61, start : start + 3] = 4
    assert boxes(net) == []
    assert len(boxes(field(np.s_[10:61, 10:61]))) == 1


def test_two_blobs_have_two_boxes_and_pieces_are_joined() -> None:
    assert len(boxes(field(np.s_[20:30, 40:60], np.s_[60:70, 40:60]))) == 2
    pieces = field(np.s_[20:30, 40:49], np.s_[20:30, 51:60])
    assert places(pieces) == [(200, 100, 300, 150)]


def test_a_group_falls_into_its_members() -> None:
    values = field(np.s_[20:30, 20:80], value=1.2)
    values[20:30, 20:38] = values[20:30, 62:80] = 4
    assert places(values) == [(100, 100, 190, 150), (310, 100, 400, 150)]
    # Even a weak bridge does not part what is as strong in the middle.
    values[20:30, 38:62] = 3.9
    assert places(values) == [(100, 100, 400, 150)]


def test_a_hill_is_boxed_between_peak_and_foot() -> None:
    y, x = np.mgrid[:96, :128]
    hill = 5 * np.exp(-((x - 64) ** 2 + (y - 48) ** 2) / (2 * 8**2)).astype(np.float32)
    (box,) = boxes(hill)
    assert 1 < (box.x_max - box.x_min) / 2 / 5 / 8 < 2.2  # half its side, in sigmas


def test_limits_of_size_and_aspect() -> None:
    share = 20 * 10 / (96 * 128)
    blob = field(np.s_[20:30, 40:60])
    assert boxes(blob, box_area=[share * 1.01, 0.25]) == []
    assert len(boxes(blob, box_area=[share * 0.5, share])) == 1
    assert boxes(blob, box_area=[share * 0.5, share * 0.99]) == []
    assert boxes(blob, box_aspect=1.9) == []
    assert len(boxes(blob, box_aspect=2.0)) == 1
    assert boxes(blob.T.copy(), size=(640, 480), box_aspect=1.9) == []


def test_strong_and_large_rank_above_weak_and_small() -> None:
    values = field(np.s_[10:20, 10:20], np.s_[40:45, 40:45], np.s_[60:80, 90:110])
    values[10:20, 10:20] = 2.5
    ranked = [box[:2] for box in boxes(values)]
    assert ranked == [(450, 300), (50, 50), (200, 200)]
    assert all(box.score > 0 for box in boxes(values))


def test_one_object_has_one_box_over_all_levels() -> None:
    values = field(np.s_[20:44, 40:70], value=1.2)
    values[24:40, 45:65] = 1.8
    values[28:36, 50:60] = 2.5
    assert len(boxes(values)) == 1
    assert len(boxes(values, box_overlap=0.99)) == 1  # nested boxes are one object, however little they share


def test_coarse_maps_are_not_opened() -> None:
    values = field(np.s_[5:6, 7:8], height=20, width=30)
    assert [box[:4] for box in boxes(values, size=(160, 240))] == [(56, 40, 64, 48)]


def test_levels_are_exact_quantiles_of_the_training_maps() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(5, 8, 9)).astype(np.float16) for _ in range(3)]
    maps[1][2] = np.nan
    values = np.concatenate([m.ravel() for m in maps])
    values = values[~np.isnan(values)].astype(float)
    expected = np.quantile(values, [0.1, 0.9, 0.999], method="inverted_cdf")
    assert training_levels(maps, [0.9, 0.1, 0.999]) == list(expected)
    with pytest.raises(UserError, match="maps of the training images are empty"):
        training_levels([np.full((1, 2, 2), np.nan, np.float16)], [0.9])


def test_the_scale_of_the_heat_has_the_zero_and_unit_of_the_scores() -> None:
    assert heat_scale([2.0, 3.0, 4.0], SETTINGS)[:2] == (2.0, 20.0)
    other_unit = heat_scale([0.25 * level - 7 for level in (2.0, 3.0, 4.0)], SETTINGS)
    assert other_unit[:2] == pytest.approx((0.25 * 2 - 7, 0.25 * 20 - 7))
    # One level, or constant training maps, have no span.
    for levels in ([0.01], [0.01, 0.01], [-0.01], [0.0]):
        scale = heat_scale(levels, SETTINGS)
        assert scale.bright > scale.dark == levels[0]


def noisy(seed: int, count: int) -> np.ndarray:
    """Return maps, float16 (count, 48, 64), of smooth noise; those of even number with a blob."""
    rng = np.random.default_rng(seed)
    maps = np.stack([cv2.GaussianBlur(rng.gamma(2, 1, (48, 64)).astype(np.float32), (0, 0), 1) for _ in range(count)])
    for values in maps[::2]:
        y, x = rng.integers(2, 36, 2)
        values[y : y + 9, x : x + 7] += 3
    return maps.astype(np.float16)


@given(st.integers(0, 1000), st.sampled_from([0.25, 4.0, 64.0]))
@settings(max_examples=15, deadline=None)
def test_the_unit_of_the_maps_does_not_matter(seed: int, factor: float) -> None:
    train, test = noisy(seed, 4)[1::2], noisy(seed + 1, 2)
    found = []
    for scale in (1.0, factor):
        scaled = np.float16(scale)
        levels = training_levels([train * scaled], SETTINGS.box_levels)
        found.append([find_boxes(values * scaled, levels, (120, 160), SETTINGS) for values in test])
    assert len(found[0][0]) > 0
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-4)


def test_speed() -> None:
    levels = training_levels([noisy(0, 20)[1::2]], SETTINGS.box_levels)
    maps = [cv2.resize(values.astype(np.float32), (128, 96)) for values in noisy(1, 20)]
    start = time.process_time()
    for values in maps:
        find_boxes(values, levels, SIZE, SETTINGS)
    assert time.process_time() - start < 1.5  # 0.05 s on a quiet core


# --- detection -------------------------------------------------------------------------------------------------


def box(x: float, score: float, side: float = 10) -> Box:
    return Box(x, 0, x + side, side, score)


def truth(*starts: float, side: float = 10) -> np.ndarray:
    return np.array([[x, 0, x + side, side] for x in starts]).reshape(-1, 4)


def naive_precision(found: list[list[Box]], truths: list[np.ndarray], overlap: float) -> float:
    """Follow the definition: match the boxes one by one, then every distinct score as a threshold."""

    def iou(a: Box, b: np.ndarray) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
        return width * height / union

    outcomes = []
    for image, true in zip(found, truths, strict=True):
        taken = []
        for one in sorted(image, key=lambda box: -box.score):
            ratios = [iou(one, t) for t in true]
            best = int(np.argmax(ratios)) if ratios else -1
            hit = best >= 0 and ratios[best] >= overlap and best not in taken
            taken += [best] if hit else []
            outcomes.append((one.score, hit))
    total, area, before = sum(map(len, truths)), 0.0, 0.0
    for threshold in sorted({score for score, _ in outcomes}, reverse=True):
        raised = [hit for score, hit in outcomes if score >= threshold]
        area += (sum(raised) / total - before) * sum(raised) / len(raised)
        before = sum(raised) / total
    return area


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5]))
@settings(max_examples=40, deadline=None)
def test_average_precision_equals_a_loop(seed: int, overlap: float) -> None:
    rng = np.random.default_rng(seed)
    truths = [truth(*(rng.integers(0, 6, rng.integers(0, 4)) * 9.0)) for _ in range(6)]
    truths[0] = truth(3)
    found = [[box(rng.uniform(0, 50), float(rng.integers(1, 6))) for _ in range(rng.integers(0, 7))] for _ in truths]
    matches = detection.collect(found, truths, overlap)
    assert detection.average_precision(matches) == pytest.approx(naive_precision(found, truths, overlap), abs=1e-12)
    recall, precision = detection.curve(matches)
    steps = np.diff(recall, prepend=0)
    assert (steps * precision).sum() == pytest.approx(detection.average_precision(matches), abs=1e-12)


def test_a_second_box_on_an_object_is_a_false_alarm() -> None:
    assert detection.match([box(1, 2.0), box(0, 1.0)], truth(0), 0.5).tolist() == [0, -1]
    assert detection.match([box(0, 1.0), box(1, 2.0)], truth(0), 0.5).tolist() == [-1, 0]
    # It stands for the true box that it overlaps most, even if that one is taken.
    assert detection.match([box(0, 3.0), box(2, 2.0)], truth(0, 6), 0.3).tolist() == [0, -1]


def test_the_edge_of_the_overlap() -> None:
    half = Box(0, 0, 10, 5, 1.0)
    assert detection.match([half], truth(0), 0.5).tolist() == [0]
    assert detection.match([half._replace(y_max=4.99)], truth(0), 0.5).tolist() == [-1]
    assert detection.match([], truth(0), 0.5).tolist() == []
    assert detection.match([half], truth(), 0.5).tolist() == [-1]


def test_hand_made_cases() -> None:
    perfect = detection.collect([[box(0, 2.0), box(50, 1.0)], []], [truth(0, 50), truth()], 0.5)
    assert detection.average_precision(perfect) == 1
    nothing = detection.collect([[], []], [truth(0), truth()], 0.5)
    assert detection.average_precision(nothing) == 0
    assert np.isnan(detection.average_precision(detection.collect([[box(0, 1.0)]], [truth()], 0.5)))
    # A false alarm on a normal image, above, below and level with the only hit.
    for score, expected in ((3.0, 1 / 2), (1.0, 1.0), (2.0, 1 / 2)):
        found = detection.collect([[box(0, 2.0)], [box(0, score)]], [truth(0), truth()], 0.5)
        assert detection.average_precision(found) == expected
    missed = detection.collect([[box(0, 2.0)]], [truth(0, 50)], 0.5)
    assert detection.average_precision(missed) == 0.5  # recall counts all true boxes


def test_rates_at_a_threshold() -> None:
    found = [[box(0, 5.0), box(70, 3.0), box(30, 1.0)], [box(0, 4.0)], []]
    matches = detection.collect(found, [truth(0, 30), truth(), truth(5)], 0.5)
    counts = detection.at_threshold(matches, 1.0)
    assert counts.tolist() == [[1, 1, 2, 1, 1], [0, 1, 0, 1, 0], [0, 0, 1, 1, 1]]
    np.testing.assert_allclose(detection.rates(counts.sum(axis=0)), [1 / 3, 1 / 3, 2 / 2, 2 / 3])
    np.testing.assert_allclose(detection.rates(detection.at_threshold(matches, 9).sum(axis=0)), [np.nan, 0, 3 / 2, 0])


@given(st.lists(st.lists(st.integers(1, 30), max_size=5), min_size=1, max_size=20), st.sampled_from([0.1, 0.5, 1.0]))
@settings(max_examples=40, deadline=None)
def test_the_threshold_lets_through_so_many_boxes_a_training_image(scores: list[list[int]], rate: float) -> None:
    found = [[box(0, float(score)) for score in image] for image in scores]
    threshold = detection.threshold(found, rate)
    raised = sum(score > threshold for image in scores for score in image)
    assert raised <= rate * len(scores)
    lower = max((s for image in scores for s in image if s < threshold), default=0)
    assert threshold == 0 or sum(score > lower for image in scores for score in image) > rate * len(scores)


def test_bootstrap_equals_resampled_images() -> None:
    rng = np.random.default_rng(2)
    truths = [truth(*(rng.integers(0, 6, rng.integers(0, 3)) * 9.0)) for _ in range(8)]
    found = [[box(rng.uniform(0, 50), float(rng.integers(1, 6))) for _ in range(4)] for _ in truths]
    matches = detection.collect(found, truths, 0.3)
    weights = intervals.clip_weights(8, 30)
    resampled = detection.resampled_precision(matches, weights)
    for weight, value in zip(weights, resampled, strict=True):
        drawn = np.repeat(np.arange(8), weight)
        again = detection.collect([found[i] for i in drawn], [truths[i] for i in drawn], 0.3)
        assert value == pytest.approx(detection.average_precision(again), abs=1e-12)
    # The images of a unit are drawn together.
    unit = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    pairs = intervals.clip_weights(3, 10)
    by_unit = detection.resampled_precision(detection.grouped(matches, unit, 3), pairs)
    np.testing.assert_allclose(by_unit, detection.resampled_precision(matches, pairs[:, unit]))
