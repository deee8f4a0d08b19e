"""`coherent_motion` on small synthetic flow: what it measures in training, and what it makes of a clip."""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np
import pytest

from vadpipe.errors import UserError
from vadpipe.methods import coherent_motion
from vadpipe.methods.base import Fit
from vadpipe.methods.coherent_motion import CoherentMotion, TrainParams
from vadpipe.store import open_store
from vadpipe.store.base import write_manifests
from vadpipe.store.flow import FlowClip, write_clip

HEIGHT, WIDTH, FPS = 96, 128, 10.0


def still(frames=20):
    return np.zeros((frames, HEIGHT, WIDTH, 2))


def person(top, left, speed, frames=20, height=24, width=12):
    flow = still(frames)
    flow[:, top : top + height, left : left + width, 0] = speed
    return flow


def write(path, flow, rows=32, scale=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [None, *flow[1:].astype(np.float16)]
    chunks = [fields[start : start + rows] for start in range(0, len(fields), rows)]
    height, width = flow.shape[1:3]
    info = {"fps": FPS, "frame_height": height * scale, "frame_width": width * scale}
    write_clip(path, chunks, height, width, **info)
    return FlowClip(path)


def method(**changes):
    return CoherentMotion(TrainParams(**{"cell": 4, "moving": 0.3, "step_s": 0.5, **changes}), None)


def fitted(folder, *flows, scale=1):
    for index, flow in enumerate(flows):
        write(folder / "train" / f"{index}.parquet", flow, scale=scale)
    write_manifests(folder)
    made = method()
    made.fit(open_store(folder, "flow"), Fit(0, folder))
    return made


def scores(made, clip):
    chunks = list(made.score(clip))
    component = np.concatenate([chunk.components["coherence"] for chunk in chunks])
    maps = np.concatenate([chunk.maps["coherence"] for chunk in chunks])
    assert component.dtype == np.float32
    assert maps.dtype == np.float32  # the store rounds maps to float16
    return component, maps


def score_of(made, path, flow):
    """Return the score of a frame in the middle of the clip."""
    return scores(made, write(path, flow))[0][len(flow) // 2]


def test_box_is_the_median_component_without_specks_and_cut_ones(tmp_path):
    flow = person(32, 40, 1.0) + person(32, 80, 1.0) + person(64, 60, -1.0, height=28, width=16)
    flow += person(0, 4, 1.0, height=8, width=8)  # cut by the border
    for left in range(4, 124, 12):
        flow += person(16, left, 1.0, height=4, width=4)  # ten specks against three people
    assert fitted(tmp_path, flow).box == [24.0, 12.0]


def test_a_group_counts_once(tmp_path):
    flow = person(32, 8, 1.0) + person(32, 100, 1.0) + person(32, 40, 1.0, width=48)
    assert fitted(tmp_path, flow).box == [24.0, 12.0]


def test_box_is_in_pixels_of_the_frame(tmp_path):
    half = person(32, 40, 1.0)[:, ::2, ::2]
    assert fitted(tmp_path, half, scale=2).box == [24.0, 12.0]


def test_window_is_the_box_and_a_step_over_root_12(tmp_path, monkeypatch):
    seen = []
    real = coherent_motion.mean_flow
    monkeypatch.setattr(coherent_motion, "mean_flow", lambda c, s: seen.append((c.shape[1], s)) or real(c, s))
    made = fitted(tmp_path, person(32, 40, 1.0, frames=300))
    frames, sigmas = max(seen)
    np.testing.assert_allclose(sigmas, np.array([0.5 * FPS, 24 / 4, 12 / 4]) / sqrt(12))
    assert frames <= 32 + 4 * ceil(3 * sigmas[0])  # whatever the clip's length
    assert len(scores(made, write(tmp_path / "test/0.parquet", still(300)))[0]) == 300


def walker(step=5):
    """Return a torso at 1 pixel a frame over legs that swing at 3 and -1, and change places every step."""
    flow = person(32, 60, 1.0, frames=40)
    forward = np.where(np.arange(40) // step % 2, 3.0, -1.0)[:, None, None]
    flow[:, 44:56, 60:66, 0] = forward
    flow[:, 44:56, 66:72, 0] = 2 - forward
    return flow


def test_legs_cancel_and_wheels_do_not(tmp_path):
    made = fitted(tmp_path, person(32, 20, 1.0), person(32, 80, -1.0))
    gliding = score_of(made, tmp_path / "gliding.parquet", person(32, 60, 1.0))
    walking = score_of(made, tmp_path / "walking.parquet", walker())
    cycling = score_of(made, tmp_path / "cycling.parquet", person(32, 60, 2.0))
    assert gliding == pytest.approx(1, rel=0.05)
    assert walking < 1.5 * gliding  # though the fastest cell moves three times as fast
    assert cycling == pytest.approx(2 * gliding, rel=0.05)


def test_legs_that_swing_in_turn_cancel_over_a_step(tmp_path):
    made = fitted(tmp_path, person(32, 60, 1.0))
    flow = person(32, 60, 3.0)
    flow[::2] *= -1
    swinging = score_of(made, tmp_path / "swinging.parquet", flow)
    assert swinging < 0.2 * score_of(made, tmp_path / "steady.parquet", person(32, 60, 3.0))


def test_a_lone_cell_is_no_person(tmp_path):
    made = fitted(tmp_path, person(32, 60, 1.0))
    cell = score_of(made, tmp_path / "cell.parquet", person(40, 60, 3.0, height=4, width=4))
    assert cell < 0.5 * score_of(made, tmp_path / "person.parquet", person(32, 60, 3.0))


def test_perspective(tmp_path):
    far, near = person(12, 30, 1.0), person(64, 80, 2.0)
    made = fitted(tmp_path, far, near)
    as_far = score_of(made, tmp_path / "far.parquet", far)
    as_near = score_of(made, tmp_path / "near.parquet", near)
    assert as_far == pytest.approx(as_near, rel=0.25)
    assert score_of(made, tmp_path / "fast.parquet", person(12, 30, 2.0)) > 1.5 * max(as_far, as_near)


def test_line_stays_positive_where_training_shows_nothing(tmp_path):
    made = fitted(tmp_path, person(40, 30, 1.0), person(64, 80, 6.0))
    slope, level, lowest = made.line
    assert slope * 0.5 + level < 0
    assert lowest >= 0.3
    assert np.isfinite(score_of(made, tmp_path / "sky.parquet", person(4, 30, 1.0)))


def test_uniform_motion_scores_the_same_everywhere(tmp_path):
    made = method()
    made.box, made.line = [24.0, 12.0], [0.0, 2.0, 0.3]
    component, maps = scores(made, write(tmp_path / "all.parquet", still(40) + np.array([0.0, 1.0]), rows=7))
    np.testing.assert_allclose(component[1:], 0.5, rtol=1e-5)
    np.testing.assert_allclose(maps[1:], 0.5, rtol=1e-3)


def dense(cells, sigmas):
    """Average by the definition: every cell, every neighbour within three sigmas."""
    radius = [ceil(3 * sigma) for sigma in sigmas]
    moves = np.hypot(*cells) > 0.3
    lengths = np.full(cells.shape[1:], np.nan)
    for at in np.ndindex(lengths.shape):
        if at[0] == 0:
            continue
        near = [slice(max(i - r, 0), i + r + 1) for i, r in zip(at, radius, strict=True)]
        near[0] = slice(max(near[0].start, 1), near[0].stop)
        places = np.mgrid[tuple(slice(s.start, min(s.stop, n)) for s, n in zip(near, lengths.shape, strict=True))]
        away = sum(((places[i] - at[i]) / sigmas[i]) ** 2 for i in range(3))
        weights = np.exp(-away / 2)
        moving = weights * moves[tuple(near)]
        sums = [(moving * axis[tuple(near)]).sum() for axis in cells]
        lengths[at] = np.hypot(*sums) / max(moving.sum(), 0.25 * weights.sum())
    return lengths


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_streaming_equals_the_definition(tmp_path, rows):
    random = np.random.default_rng(0)
    # To a 32nd of a pixel, which is what the store keeps.
    values = (np.round(random.normal(0, 0.4, (37, 8, 9, 2)) * 32) / 32).astype(np.float16)
    clip = write(tmp_path / "clip.parquet", values.repeat(4, 1).repeat(4, 2), rows=rows)
    made = method()
    made.box, made.line = [14.0, 10.0], [0.01, 0.2, 0.3]
    sigmas = np.array([5, 14 / 4, 10 / 4]) / sqrt(12)
    expected = dense(np.moveaxis(values.astype(float), -1, 0), sigmas)
    expected /= np.maximum(0.01 * (np.arange(8) * 4 + 2) + 0.2, 0.3)[:, None]
    component, maps = scores(made, clip)
    np.testing.assert_allclose(component, expected.max((1, 2)), rtol=1e-4)
    np.testing.assert_allclose(maps, expected, rtol=2e-3, atol=1e-3)


def test_save_and_load(tmp_path):
    made = fitted(tmp_path, person(12, 30, 1.0), person(64, 80, 3.0))
    (tmp_path / "model").mkdir()
    made.save(tmp_path / "model")
    loaded = method()
    loaded.load(tmp_path / "model")
    clip = write(tmp_path / "test/0.parquet", person(32, 60, 1.5))
    np.testing.assert_array_equal(scores(loaded, clip)[0], scores(made, clip)[0])


@pytest.mark.parametrize("frames", [1, 2, 33])
def test_first_frame_is_not_covered_and_a_still_clip_scores_zero(tmp_path, frames):
    made = fitted(tmp_path, person(32, 60, 1.0))
    component, maps = scores(made, write(tmp_path / "test/0.parquet", still(frames)))
    assert np.isnan(component[0])
    assert np.isnan(maps[0]).all()
    np.testing.assert_array_equal(component[1:], np.zeros(frames - 1))


def test_training_without_motion_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"train\.moving \(now 0\.3 pixels a frame\)"):
        fitted(tmp_path, still())


def test_a_flicker_is_no_training(tmp_path):
    flow = still()
    flow[10] = person(32, 60, 1.0, frames=1)[0]
    with pytest.raises(UserError, match="nobody moves"):
        fitted(tmp_path, flow)
