"""Pixel metrics against golden values, scikit-learn and loops that follow the definitions."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from vadpipe.evaluation import intervals, look, pixels
from vadpipe.evaluation.pixels import PixelFigures, pixel_metrics, to_frame

# R = the two regions, one of 1 and one of 2 pixels; the others are background.
GOLDEN_TRUTH = np.zeros((1, 13), bool)
GOLDEN_TRUTH[0, [0, 3, 4]] = True
# R1 > B > R2 > B > B > R2 > seven B.
GOLDEN_MAP = np.array([[20, 19, 17, 18, 15, 16, 7, 6, 5, 4, 3, 2, 1]], np.float16)


def random_set(seed: int, images: int = 5, levels: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return maps with many ties and truths with regions of several sizes; the last image is normal."""
    rng = np.random.default_rng(seed)
    truths = [
        ndimage.binary_dilation(rng.random((14, 17)) < 0.02, iterations=int(rng.integers(1, 3))) for _ in range(images)
    ]
    truths[-1][:] = False
    maps = [(rng.integers(0, levels, truth.shape) + 1.5 * truth).astype(np.float16) for truth in truths]
    return maps, truths


def naive_aupro(maps: list[np.ndarray], truths: list[np.ndarray], limit: float = 0.3, connected: int = 8) -> float:
    """Follow the definition: every threshold, every region."""
    structure = np.ones((3, 3)) if connected == 8 else None
    normal = np.concatenate([values[~truth] for values, truth in zip(maps, truths, strict=True)])
    regions = []
    for values, truth in zip(maps, truths, strict=True):
        labels, count = ndimage.label(truth, structure)
        regions += [values[labels == label] for label in range(1, count + 1)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([values.ravel() for values in maps]))[::-1]:
        points.append(((normal >= threshold).mean(), np.mean([(region >= threshold).mean() for region in regions])))
    x, y = np.array(points).T
    inside = x < limit
    x, y = np.append(x[inside], limit), np.append(y[inside], np.interp(limit, x, y))
    return float(np.trapezoid(y, x) / limit)


@pytest.mark.parametrize(("limit", "expected"), [(0.3, 2 / 3), (0.25, 0.65), (0.2, 0.625), (0.05, 0.5), (1.0, 0.9)])
def test_golden_aupro(monkeypatch: pytest.MonkeyPatch, limit: float, expected: float) -> None:
    monkeypatch.setattr(pixels, "LIMIT", limit)
    assert pixel_metrics([GOLDEN_MAP], [GOLDEN_TRUTH]).aupro == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("limit", "expected"), [(0.3, 0.70833333), (0.25, 0.6625), (0.2, 0.625), (1.0, 0.9125)])
def test_golden_aupro_with_a_tie(monkeypatch: pytest.MonkeyPatch, limit: float, expected: float) -> None:
    monkeypatch.setattr(pixels, "LIMIT", limit)
    tied = GOLDEN_MAP.copy()
    tied[0, 4] = tied[0, 5]
    assert pixel_metrics([tied], [GOLDEN_TRUTH]).aupro == pytest.approx(expected, abs=1e-8)


@given(st.integers(0, 10_000), st.sampled_from([3, 40, 3000]))
@settings(max_examples=25, deadline=None)
def test_areas_equal_scikit_learn_and_the_definition(seed: int, levels: int) -> None:
    maps, truths = random_set(seed, levels=levels)
    found = pixel_metrics(maps, truths)
    labels, scores = np.concatenate([t.ravel() for t in truths]), np.concatenate([m.ravel() for m in maps])
    if not labels.any():
        assert np.isnan(found[:3]).all()
        return
    assert found.auroc == pytest.approx(roc_auc_score(labels, scores.astype(float)), abs=1e-12)
    assert found.average_precision == pytest.approx(average_precision_score(labels, scores.astype(float)), abs=1e-12)
    assert found.aupro == pytest.approx(naive_aupro(maps, truths), abs=1e-9)
    counts = sum(pixels.count(values, truth) for values, truth in zip(maps, truths, strict=True))
    assert pixels.average_precision(counts) == pytest.approx(found.average_precision, abs=1e-12)


def test_resized_maps_are_measured_at_the_size_of_the_truth() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(12, 16)).astype(np.float16) for _ in range(3)]
    truths = [rng.random((50, 70)) < 0.05 for _ in range(3)]
    full = [cv2.resize(m.astype(np.float32), (70, 50)).astype(np.float16) for m in maps]
    assert pixel_metrics(maps, truths) == pixel_metrics(full, truths)
    labels, scores = np.concatenate([t.ravel() for t in truths]), np.concatenate([m.ravel() for m in full])
    assert pixel_metrics(maps, truths).auroc == pytest.approx(roc_auc_score(labels, scores.astype(float)), abs=1e-12)


def test_invariances() -> None:
    maps, truths = random_set(3)
    found = pixel_metrics(maps, truths)
    np.testing.assert_allclose(pixel_metrics([np.sqrt(m) * 8 - 20 for m in maps], truths), found, rtol=1e-12)
    np.testing.assert_allclose(pixel_metrics(maps[::-1], truths[::-1]), found, rtol=1e-12)
    flipped = pixel_metrics([m[:, ::-1] for m in maps], [t[:, ::-1] for t in truths])
    np.testing.assert_allclose(flipped, found, rtol=1e-12)


def test_perfect_and_constant_maps() -> None:
    _, truths = random_set(4)
    share = np.mean([truth.mean() for truth in truths])
    perfect = pixel_metrics([truth.astype(np.float16) for truth in truths], truths)
    np.testing.assert_allclose(perfect, (1, 1, 1, 1))
    constant = pixel_metrics([np.zeros(truth.shape, np.float16) for truth in truths], truths)
    np.testing.assert_allclose(constant, (0.5, share, 0.15, 1))
    # 0 and -0 are one value, and so are all negative zeros that rounding makes.
    signed = [np.where(truth, np.float16(0), np.float16(-0.0)) for truth in truths]
    np.testing.assert_allclose(pixel_metrics(signed, truths), constant)


@pytest.mark.parametrize("seed", range(8))
def test_aupro_of_an_image_by_itself_is_that_of_the_published_loop(seed: int) -> None:
    chance = np.random.default_rng(seed)
    values = chance.normal(size=(24, 30)).astype(np.float16)
    truth = np.zeros((24, 30), bool)
    truth[3:7, 4:9] = truth[15:20, 10:24] = True
    values[truth] += np.float16(chance.uniform(0, 2))
    labels, count = ndimage.label(truth, np.ones((3, 3)))
    points = []
    low, high = float(values.min()), float(values.max())
    for step in range(200):
        above = values.astype(np.float64) > low + (high - low) / 200 * step
        overlap = np.mean([above[labels == region].mean() for region in range(1, count + 1)])
        points.append((above[~truth].mean(), overlap))
    rate, overlap = np.array([point for point in points if point[0] < 0.3]).T
    expected = np.trapezoid(overlap[::-1], rate[::-1] / rate.max())
    assert pixels.per_image_aupro(pixels.count(values, truth)) == pytest.approx(expected, abs=1e-9)
    assert np.isnan(pixels.per_image_aupro(pixels.count(values, np.zeros_like(truth))))


def test_what_is_not_looked_at_ranks_below_all() -> None:
    maps, truths = random_set(5)
    rng = np.random.default_rng(0)
    unseen = [rng.random(m.shape) < 0.3 for m in maps]
    holes = [np.where(hole, np.float16(np.nan), m - 9) for m, hole in zip(maps, unseen, strict=True)]
    lowest = [np.where(hole, np.float16(-60000), m - 9) for m, hole in zip(maps, unseen, strict=True)]
    found, expected = pixel_metrics(holes, truths), pixel_metrics(lowest, truths)
    np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-12)
    assert found.coverage == pytest.approx(1 - np.mean(unseen), abs=1e-12)
    blind = pixel_metrics([np.full((3, 4), np.nan, np.float16)] * len(truths), truths)
    assert (blind.auroc, blind.coverage) == (0.5, 0)


def test_nan_does_not_spread_when_a_map_is_resized() -> None:
    values = np.full((4, 4), 5, np.float16)
    values[:, 0] = np.nan
    values[0, 3] = 2
    resized = to_frame(values, 8, 8)
    assert np.isnan(resized).tolist() == [[True, True] + [False] * 6] * 8
    assert resized[7, 2] < 5  # the border towards what is not looked at fades to the lowest value
    assert np.nanmin(resized) == 2
    assert resized.dtype == np.float16


def test_regions_are_8_connected_and_good_images_count() -> None:
    maps, truths = random_set(6)
    truths[0][2:4, 2:4] = np.eye(2, dtype=bool)
    found = pixel_metrics(maps, truths).aupro
    assert found == pytest.approx(naive_aupro(maps, truths), abs=1e-9)
    assert abs(naive_aupro(maps, truths, connected=4) - found) > 1e-4
    assert abs(pixel_metrics(maps[:-1], truths[:-1]).aupro - found) > 1e-4


def test_one_class_is_undefined() -> None:
    values = np.ones((4, 5), np.float16)
    for truth in (np.zeros((4, 5), bool), np.ones((4, 5), bool)):
        found = pixel_metrics([values], [truth])
        assert np.isnan(found[:3]).all()
        assert found.coverage == 1
    assert np.isnan(pixel_metrics([], [])).all()


def resampled(maps: list[np.ndarray], truths: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    starts = pixels.bins(pixels.value_counts(maps)[0])
    counts = [pixels.ranked(pixels.count(*pair)) for pair in zip(maps, truths, strict=True)]
    binned = np.stack([np.add.reduceat(one, starts, axis=1) for one in counts])
    assert binned.shape[2] <= 1000
    return np.array(pixel_metrics(maps, truths)[:3])[:, None] + look.resampled(binned, weights)


def noisy_set(images: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return maps of many values, in which what is abnormal stands out by a strength of its own in each image."""
    rng = np.random.default_rng(8)
    truths = [np.zeros((40, 50), bool) for _ in range(images)]
    maps = []
    for truth in truths:
        y, x = rng.integers(0, 30, 2)
        truth[y : y + 8, x : x + 6] = True
        maps.append((rng.gamma(2, 1, truth.shape) + rng.uniform(0, 6) * truth).astype(np.float16))
    return maps, truths


def test_bootstrap_equals_resampled_images() -> None:
    maps, truths = noisy_set(12)
    weights = intervals.clip_weights(12, 20)
    found = resampled(maps, truths, weights)
    for weight, one in zip(weights, found.T, strict=True):
        drawn = np.repeat(np.arange(12), weight)
        exact = pixel_metrics([maps[i] for i in drawn], [truths[i] for i in drawn])
        np.testing.assert_allclose(one, exact[:3], atol=1e-3)


def test_intervals_bracket_the_mean_and_shrink_with_more_images() -> None:
    widths = []
    for images in (10, 160):
        maps, truths = noisy_set(images)
        ends = np.percentile(resampled(maps, truths, intervals.clip_weights(images, 300)), [2.5, 97.5], axis=1)
        exact = np.array(pixel_metrics(maps, truths)[:3])
        assert (ends[0] < exact).all()
        assert (exact < ends[1]).all()
        widths.append(ends[1] - ends[0])
    assert (widths[1] < 0.6 * widths[0]).all()


def test_speed() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.gamma(2, 1, (96, 128)).astype(np.float16) for _ in range(10)]
    truths = [np.zeros((480, 640), bool) for _ in range(10)]
    for truth in truths:
        truth[100:140, 50:110] = True
    start = time.process_time()
    assert isinstance(pixel_metrics(maps, truths), PixelFigures)
    assert time.process_time() - start < 1.5  # 0.1 s on a quiet core


def test_a_kind_is_measured_beside_all_that_is_normal() -> None:
    chance = np.random.default_rng(0)
    maps = [chance.random((6, 8)).astype(np.float16) for _ in range(6)]
    truths = [np.zeros((6, 8), np.bool_) for _ in range(6)]
    for number in (0, 1, 4):
        truths[number][2:4, number : number + 3] = True
    clips = [[0], [1, 2], [3], [4, 5], []]  # the third has nothing abnormal, the last no image
    by_clip = np.stack(
        [
            sum((pixels.ranked(pixels.count(maps[n], truths[n])) for n in clip), pixels.ranked(pixels.no_counts()))
            for clip in clips
        ]
    )
    found = look._kinds(by_clip)
    assert np.isnan(found[:, [2, 4]]).all()
    for clip in (0, 1, 3):
        images = [*clips[clip], 3]
        expected = pixel_metrics([maps[n] for n in images], [truths[n] for n in images])
        assert found[:, clip] == pytest.approx((expected.auroc, expected.average_precision, expected.aupro))
