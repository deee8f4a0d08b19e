"""The generated scene: layout, determinism, and that masks, labels and tracks say the same."""

import csv
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from vadpipe.scenes import campus
from vadpipe.scenes.figures.drawing import VISIBLE_PIXELS

FRAMES, HEIGHT, WIDTH = 12, 160, 240
TESTS = [f"test_{number:02d}" for number in range(1, 7)]


def params(seed: int) -> campus.Params:
    return campus.Params(
        seed=seed, train_clips=1, test_clips=len(TESTS), frames=FRAMES, height=HEIGHT, width=WIDTH, fps=10.0
    )


def written(folder: Path, seed: int) -> Path:
    folder.mkdir()
    campus.write(params(seed), folder)
    return folder


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("campus") / "scene", seed=7)


def frames_of(video: Path) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) of a video."""
    capture = cv2.VideoCapture(str(video))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return np.asarray(frames, np.uint8)


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def masks_of(scene: Path) -> dict[str, NDArray[np.uint8]]:
    return {clip: np.load(scene / "masks" / f"{clip}.npy") for clip in TESTS}


def labels_of(scene: Path) -> dict[str, NDArray[np.bool_]]:
    labels = {clip: np.zeros(FRAMES, bool) for clip in TESTS}
    for row in rows_of(scene / "labels.csv"):
        if row["first"] == row["last"] == "":  # a normal clip
            continue
        interval = slice(int(row["first"]), int(row["last"]) + 1)
        assert not labels[row["clip"]][interval].any(), "intervals overlap"
        labels[row["clip"]][interval] = True
    return labels


def files_of(scene: Path) -> dict[str, bytes]:
    return {str(path.relative_to(scene)): path.read_bytes() for path in scene.rglob("*") if path.is_file()}


def test_layout(scene: Path) -> None:
    expected = {"labels.csv", "tracks.csv", "train/train_01.avi"}
    expected |= {f"test/{clip}.avi" for clip in TESTS} | {f"masks/{clip}.npy" for clip in TESTS}
    assert set(files_of(scene)) == expected
    assert (scene / "labels.csv").read_text().splitlines()[0] == "clip,first,last"
    assert (scene / "tracks.csv").read_text().splitlines()[0] == "clip,track,frame,x_min,y_min,x_max,y_max"


def test_videos_and_masks_have_the_promised_size(scene: Path) -> None:
    for video in (*scene.glob("train/*.avi"), *scene.glob("test/*.avi")):
        assert frames_of(video).shape == (FRAMES, HEIGHT, WIDTH, 3)
        capture = cv2.VideoCapture(str(video))
        assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10.0)
    for mask in masks_of(scene).values():
        assert mask.dtype == np.uint8
        assert mask.shape == (FRAMES, HEIGHT, WIDTH)
        assert set(np.unique(mask)) <= {0, 255}


def test_same_params_write_the_same_bytes(scene: Path, tmp_path: Path) -> None:
    assert files_of(written(tmp_path / "again", seed=7)) == files_of(scene)


def test_other_seed_writes_other_clips(scene: Path, tmp_path: Path) -> None:
    other = files_of(written(tmp_path / "other", seed=8))
    for name, content in files_of(scene).items():
        if name.endswith(".avi"):
            assert other[name] != content


def test_labels_are_the_frames_with_mask(scene: Path) -> None:
    labels = labels_of(scene)
    for clip, mask in masks_of(scene).items():
        np.testing.assert_array_equal(labels[clip], mask.any(axis=(1, 2)))


def test_every_test_clip_has_a_row_so_that_none_is_unlabelled(scene: Path) -> None:
    empty = defaultdict(list)
    for row in rows_of(scene / "labels.csv"):
        empty[row["clip"]].append(row["first"] == row["last"] == "")
    assert set(empty) == set(TESTS)
    for clip, label in labels_of(scene).items():
        assert empty[clip] == [True] if not label.any() else not any(empty[clip])


def test_normal_mixed_and_abnormal_clips(scene: Path) -> None:
    parts = [float(label.mean()) for label in labels_of(scene).values()]
    assert parts.count(1.0) == 1
    assert parts.count(0.0) >= 1
    assert any(0 < part < 1 for part in parts)


def test_boxes_fit_the_masks(scene: Path) -> None:
    boxes: dict[tuple[str, int], list[tuple[int, ...]]] = defaultdict(list)
    for row in rows_of(scene / "tracks.csv"):
        edges = tuple(int(row[edge]) for edge in ("x_min", "y_min", "x_max", "y_max"))
        boxes[row["clip"], int(row["frame"])].append(edges)
    for clip, mask in masks_of(scene).items():
        for frame, pixels in enumerate(mask):
            inside = np.zeros(pixels.shape, bool)
            for x_min, y_min, x_max, y_max in boxes[clip, frame]:
                assert 0 <= x_min < x_max <= WIDTH
                assert 0 <= y_min < y_max <= HEIGHT
                assert pixels[y_min:y_max, x_min:x_max].any()
                inside[y_min:y_max, x_min:x_max] = True
            assert not pixels[~inside].any()


def test_anomalies_are_more_than_slivers(scene: Path) -> None:
    for mask in masks_of(scene).values():
        visible = np.count_nonzero(mask, axis=(1, 2))
        assert (visible[visible > 0] >= VISIBLE_PIXELS).all()


def test_training_clip_moves_in_front_of_a_fixed_camera(scene: Path) -> None:
    train, test = (frames_of(scene / name).mean(axis=3) for name in ("train/train_01.avi", "test/test_01.avi"))
    assert (np.abs(train[-1] - train[0]) > 25).mean() > 0.005
    facade = (slice(0, 30), slice(70, 180))  # where nobody walks and no tree sways
    first, second = np.median(train, axis=0)[facade], np.median(test, axis=0)[facade]
    assert 0.8 < first.mean() / second.mean() < 1.25  # the light may differ
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.97
    (across, down), _ = cv2.phaseCorrelate(first, second)
    assert abs(across) < 0.1
    assert abs(down) < 0.1


def test_nobody_walks_on_the_lawn_in_normal_clips() -> None:
    scene = campus.Scene(7, HEIGHT, WIDTH)
    for index in range(20):
        clip = campus.Clip(scene, np.random.default_rng(index), params(7), ())
        for actor in clip.actors:
            for frame in (0, FRAMES - 1):
                if (stood := actor.stand(frame)) is not None:
                    assert not campus.on_lawn(np.array(stood[1]), np.array(stood[2]))


def test_every_kind_of_anomaly_is_played_early() -> None:
    kinds = {event.kind for script in campus.SCRIPTS[:5] for event in script}
    assert {"cyclist", "skater", "runner", "walker"} <= kinds
    assert {"cart", "pushed cart"} & kinds


def test_unknown_and_missing_params_are_refused() -> None:
    with pytest.raises(ValidationError):
        campus.Params.model_validate({**params(7).model_dump(), "fog": True})
    with pytest.raises(ValidationError):
        campus.Params.model_validate({"seed": 7})
