"""The readers of Avenue, ShanghaiTech and UBnormal, on small copies of their layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from tests.conftest import HEIGHT, WIDTH, draw, ingest_params, write_frames, write_video
from vadpipe import params
from vadpipe.datasets import base
from vadpipe.errors import UserError
from vadpipe.prepare.ingest import ingest
from vadpipe.store import images, open_store

Truths = dict[str, Any]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "raw"


def read(root: Path, **changes: Any) -> Truths:
    """Ingest a data set and return what is known of its test clips."""
    values = params.Ingest(**ingest_params(**changes))
    ingest("set", values, root, Path("clips"), Path("labels"))
    return {clip.name: clip for clip in open_store(Path("labels"), "labels").all_clips() if clip.split == "test"}


def masks(clip: Any) -> list[np.ndarray | None]:
    return [None if data is None else images.decode_grey(data) > 0 for data in clip.column("mask")]


def refused(root: Path, message: str, **changes: Any) -> None:
    with pytest.raises(UserError, match=message):
        read(root, **changes)


def cell(arrays: list[np.ndarray]) -> np.ndarray:
    found = np.empty((1, len(arrays)), object)
    for index, array in enumerate(arrays):
        found[0, index] = array
    return found


def squares(count: int, abnormal: range) -> list[np.ndarray]:
    """Return masks of 0 and 1, one a frame, with a square in those that are abnormal."""
    found = [np.zeros((HEIGHT, WIDTH), np.uint8) for _ in range(count)]
    for index in abnormal:
        found[index][4:8, 6:12] = 1
    return found


def avenue(root: Path, folders: bool = False) -> Path:
    """Two training and two test clips; the masks of 02 leave a gap that the intervals bridge."""
    if folders:
        for part, number in (("training", "01"), ("training", "02"), ("testing", "01"), ("testing", "02")):
            write_frames(root / part / "frames" / number, 12)
    else:
        for number in ("01", "02"):
            write_video(root / "training_videos" / f"{number}.avi", 12)
            write_video(root / "testing_videos" / f"{number}.avi", 12)
    at = root / "ground_truth_demo" / "testing_label_mask"
    at.mkdir(parents=True)
    savemat(at / "1_label.mat", {"volLabel": cell(squares(12, range(3, 9)))})
    gap = squares(12, range(2, 10))
    gap[5][:] = 0
    savemat(at / "2_label.mat", {"volLabel": cell(gap)})
    spans = [np.array([[4], [8]], np.uint8), np.array([[3], [10]], np.uint16)]
    savemat(root / "avenue.mat", {"gt": cell(spans)})
    return root


def labels(clip: Any) -> str:
    """Return the labels of a clip as `0` and `1` in a row."""
    return "".join(map(str, clip.labels()))


def areas(clip: Any) -> list[int]:
    return [int(mask.sum()) for mask in masks(clip)]


@pytest.mark.parametrize("folders", [False, True])
def test_avenue_by_masks(root: Path, folders: bool) -> None:
    truths = read(avenue(root, folders), reader="avenue")
    assert {name: labels(clip) for name, clip in truths.items()} == {"01": "000111111000", "02": "001110111100"}
    assert areas(truths["01"]) == [0] * 3 + [24] * 6 + [0] * 3
    assert masks(truths["01"])[4][4:8, 6:12].all()
    assert truths["01"].info["fps"] == (25.0 if folders else 10.0)


@pytest.mark.parametrize("folders", [False, True])
def test_avenue_by_intervals_which_bridge_gaps(root: Path, folders: bool) -> None:
    truths = read(avenue(root, folders), reader="avenue", labels="intervals")
    assert {name: labels(clip) for name, clip in truths.items()} == {"01": "000111110000", "02": "001111111100"}
    # A mask in a frame that the intervals call normal is empty: pixels and frames agree.
    assert areas(truths["01"]) == [0] * 3 + [24] * 5 + [0] * 4


def test_avenue_saved_anew(root: Path) -> None:
    """A column in the place of a row, and pictures that are turned, as copies of other programs have them."""
    avenue(root)
    turned = np.empty((12, 1), object)
    for index, mask in enumerate(squares(12, range(3, 9))):
        turned[index, 0] = mask.T
    savemat(root / "ground_truth_demo/testing_label_mask/1_label.mat", {"volLabel": turned})
    assert areas(read(root, reader="avenue")["01"]) == [0] * 3 + [24] * 6 + [0] * 3


def test_frames_of_avenue_that_are_taken_keep_their_truth(root: Path) -> None:
    truths = read(avenue(root), reader="avenue", every=3)
    assert labels(truths["02"]) == "001110111100"[::3]


def label_mat(root: Path, values: dict[str, Any]) -> None:
    savemat(root / "ground_truth_demo/testing_label_mask/2_label.mat", values)


AVENUE: dict[str, tuple[Callable[[Path], object], dict[str, str], str]] = {
    "too short": (
        lambda root: label_mat(root, {"volLabel": cell(squares(11, range(3)))}),
        {},
        r"2_label\.mat holds 11 masks but the clip has",
    ),
    "too long": (
        lambda root: label_mat(root, {"volLabel": cell(squares(14, range(3)))}),
        {},
        r"2_label\.mat holds 14 masks but the clip has 12 frames",
    ),
    "of another size": (
        lambda root: label_mat(root, {"volLabel": cell([np.zeros((5, 7), np.uint8)] * 12)}),
        {},
        r"2_label\.mat, frame 0 has the shape \(5, 7\)",
    ),
    "another variable": (lambda root: label_mat(root, {"vol": 1}), {}, r"2_label\.mat has no variable 'volLabel'"),
    "no cells": (lambda root: label_mat(root, {"volLabel": np.eye(3)}), {}, r"wanted is a cell array in a row"),
    "text": (
        lambda root: label_mat(root, {"volLabel": cell([np.array("a")] * 12)}),
        {},
        r"2_label\.mat: cell 1 of 'volLabel' holds .* not numbers",
    ),
    "missing": (
        lambda root: (root / "ground_truth_demo/testing_label_mask/2_label.mat").unlink(),
        {},
        r"there is no 2_label\.mat for the test clip 02",
    ),
    "damaged": (
        lambda root: (root / "ground_truth_demo/testing_label_mask/2_label.mat").write_bytes(b"MATLAB 5.0" * 20),
        {},
        r"2_label\.mat is no whole MATLAB file",
    ),
    "no intervals": (
        lambda root: (root / "avenue.mat").unlink(),
        {"labels": "intervals"},
        r"avenue\.mat is not there, but `labels: intervals` asks for it",
    ),
    "intervals of other clips": (
        lambda root: savemat(root / "avenue.mat", {"gt": cell([np.array([[1], [2]])])}),
        {"labels": "intervals"},
        r"avenue\.mat has intervals for 1 clips, but there are 2 test clips",
    ),
    "an interval that leaves its clip": (
        lambda root: savemat(root / "avenue.mat", {"gt": cell([np.array([[1], [13]]), np.array([[1], [2]])])}),
        {"labels": "intervals"},
        r"avenue\.mat, cell 1: the interval 0 to 12 leaves the clip",
    ),
    "a truth that is none": (lambda root: None, {"labels": "mask"}, r"knows no labels 'mask'; did you mean 'masks'"),
    "both layouts": (lambda root: (root / "training" / "frames").mkdir(parents=True), {}, r"and both are there"),
    "something else": (
        lambda root: (root / "ground_truth_demo/testing_label_mask/masks.zip").touch(),
        {},
        r"masks\.zip does not belong among the masks of Avenue",
    ),
}


@pytest.mark.parametrize("case", AVENUE)
def test_avenue_that_is_not_as_it_should_be(root: Path, case: str) -> None:
    spoil, changes, message = AVENUE[case]
    spoil(avenue(root))
    refused(root, message, reader="avenue", **changes)


def test_other_readers_know_one_truth(root: Path) -> None:
    refused(
        shanghaitech(root), "the reader shanghaitech knows no choice of labels", reader="shanghaitech", labels="masks"
    )


def shanghaitech(root: Path) -> Path:
    """Two training videos, two test clips of frames that count from 0."""
    for name in ("01_001", "13_002"):
        write_video(root / "training" / "videos" / f"{name}.avi", 8)
    for kind in ("test_frame_mask", "test_pixel_mask"):
        (root / "testing" / kind).mkdir(parents=True)
    for name, abnormal in (("01_0014", range(3, 6)), ("12_0175", range(10))):
        folder = root / "testing" / "frames" / name
        folder.mkdir(parents=True)
        for index in range(10):
            cv2.imwrite(str(folder / f"{index:03d}.jpg"), draw(index))
        flags = np.zeros(10, np.uint8)
        flags[list(abnormal)] = 1
        np.save(root / "testing" / "test_frame_mask" / f"{name}.npy", flags)
        np.save(root / "testing" / "test_pixel_mask" / f"{name}.npy", np.stack(squares(10, abnormal)))
    return root


@pytest.mark.parametrize("time_last", [False, True])
def test_shanghaitech(root: Path, time_last: bool) -> None:
    shanghaitech(root)
    pixels = root / "testing" / "test_pixel_mask" / "01_0014.npy"
    if time_last:
        np.save(pixels, np.moveaxis(np.load(pixels), 0, 2))
    truths = read(root, reader="shanghaitech")
    assert {name: labels(clip) for name, clip in truths.items()} == {"01_0014": "0001110000", "12_0175": "1111111111"}
    assert areas(truths["01_0014"]) == [0] * 3 + [24] * 3 + [0] * 4
    assert truths["01_0014"].info["fps"] == 24.0


def test_shanghaitech_without_pixel_masks_and_with_frames_from_1(root: Path) -> None:
    shanghaitech(root)
    for path in (root / "testing" / "test_pixel_mask").iterdir():
        path.unlink()
    (root / "testing" / "test_pixel_mask").rmdir()
    for path in sorted((root / "testing" / "frames" / "01_0014").iterdir(), reverse=True):
        path.rename(path.with_name(f"{int(path.stem) + 1:06d}.jpg"))
    truths = read(root, reader="shanghaitech")
    assert labels(truths["01_0014"]) == "0001110000"
    assert masks(truths["01_0014"]) == [None] * 10


SHANGHAITECH: dict[str, tuple[Callable[[Path], object], str]] = {
    "labels too short": (
        lambda at: np.save(at / "test_frame_mask/01_0014.npy", np.zeros(9, np.uint8)),
        r"01_0014\.npy labels 9 frames, but .*01_0014 holds 10",
    ),
    "labels of other numbers": (
        lambda at: np.save(at / "test_frame_mask/01_0014.npy", np.arange(10)),
        r"01_0014\.npy holds int64 of the shape \(10,\); wanted is 0 or 1",
    ),
    "masks too many": (
        lambda at: np.save(at / "test_pixel_mask/01_0014.npy", np.stack(squares(11, range(3, 6)))),
        r"01_0014\.npy holds 11 masks but the clip has 10 frames",
    ),
    "a clip without labels": (
        lambda at: (at / "test_frame_mask/01_0014.npy").unlink(),
        r"test_frame_mask/01_0014\.npy is not there",
    ),
    "labels without a clip": (
        lambda at: np.save(at / "test_frame_mask/01_0099.npy", np.zeros(9, np.uint8)),
        r"01_0099\.npy is of a test clip that is not there",
    ),
    "masks where labels say normal": (
        lambda at: np.save(at / "test_frame_mask/01_0014.npy", np.zeros(10, np.uint8)),
        r"marks abnormal pixels but the labels call",
    ),
}


@pytest.mark.parametrize("case", SHANGHAITECH)
def test_shanghaitech_that_is_not_as_it_should_be(root: Path, case: str) -> None:
    spoil, message = SHANGHAITECH[case]
    spoil(shanghaitech(root) / "testing")
    refused(root, message, reader="shanghaitech")


TRAIN = ("normal_scene_1_scenario_1", "normal_scene_1_scenario1_2")
NORMAL, ABNORMAL = "normal_scene_2_scenario_3_fog", "abnormal_scene_2_scenario_4"


def ubnormal(root: Path) -> Path:
    """Two training videos, and a normal and an abnormal test video, with id maps that are larger than their frames."""
    for name in (*TRAIN, NORMAL, ABNORMAL):
        scene = root / f"Scene{name.split('_')[2]}"
        write_video(scene / f"{name}.avi", 10)
        notes = scene / f"{name}_annotations"
        notes.mkdir()
        for index in range(10):
            ids = np.zeros((HEIGHT + 6, WIDTH + 4), np.uint8)
            ids[4:8, 6:12] = 3  # a person who falls in frames 2 to 5
            ids[10:14, 2 + index : 6 + index] = 7  # a car, from frame 4 on
            ids[20, 20] = 7  # and a speck of it
            ids[HEIGHT + 2 :, :] = 7  # outside the frame
            ids[15:18, 30:33] = 1  # somebody normal
            cv2.imwrite(str(notes / f"{name}_{index:04d}_gt.png"), ids)
    tracks = "7.000000000000000000e+00,4.000000000000000000e+00,9.000000000000000000e+00\r\n3,2,5\r\n"
    (root / "Scene2" / f"{ABNORMAL}_annotations" / f"{ABNORMAL}_tracks.txt").write_text(tracks)
    (root / "scripts").mkdir()
    lists = {"normal_training": TRAIN, "normal_test": (NORMAL,), "abnormal_test": (ABNORMAL,)}
    for kind, names in lists.items():
        (root / "scripts" / f"{kind}_video_names.txt").write_text("\n".join(names))
    return root


def test_ubnormal(root: Path) -> None:
    truths = read(ubnormal(root), reader="ubnormal")
    assert {name: labels(clip) for name, clip in truths.items()} == {NORMAL: "0" * 10, ABNORMAL: "0011111111"}
    # 24 pixels of the person in frames 2 to 5, 16 and the speck of the car from frame 4 on.
    assert areas(truths[ABNORMAL]) == [0, 0, 24, 24, 41, 41, 17, 17, 17, 17]
    boxes = truths[ABNORMAL].column("boxes")
    assert boxes[1] == []
    # Tracks go by the number of the object, 3 before 7; the speck is no part of the box.
    assert [list(box.values()) for box in boxes[4]] == [[0, 6, 4, 12, 8], [1, 6, 10, 10, 14]]
    assert truths[NORMAL].column("boxes") == [[]] * 10


def test_new_tracks_count_where_they_are_there(root: Path) -> None:
    at = ubnormal(root) / "Scene2" / f"{ABNORMAL}_annotations"
    (at / f"{ABNORMAL}_new_tracks.txt").write_text("3,2,5\n")
    assert labels(read(root, reader="ubnormal")[ABNORMAL]) == "0011110000"


def test_ubnormal_without_id_maps(root: Path) -> None:
    for path in ubnormal(root).rglob("*_gt.png"):
        path.unlink()
    truths = read(root, reader="ubnormal")
    assert labels(truths[ABNORMAL]) == "0011111111"
    assert masks(truths[ABNORMAL]) == [None] * 10


UBNORMAL: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "no list": (
        lambda root, at: (root / "scripts/normal_test_video_names.txt").unlink(),
        r"normal_test_video_names\.txt is not there; the lists come with UBnormal's scripts",
    ),
    "a video that is not there": (
        lambda root, at: (root / "Scene1" / f"{TRAIN[0]}.avi").unlink(),
        r"1 of its 2 videos are not there, normal_scene_1_scenario_1 first",
    ),
    "no tracks": (lambda root, at: (at / f"{ABNORMAL}_tracks.txt").unlink(), r"_tracks\.txt is not there"),
    "a row that is none": (
        lambda root, at: (at / f"{ABNORMAL}_tracks.txt").write_text("3,2,5\n3;2;5\n"),
        r"_tracks\.txt, line 2: cannot read '3;2;5'",
    ),
    "frames reversed": (
        lambda root, at: (at / f"{ABNORMAL}_tracks.txt").write_text("3,5,2\n"),
        r"line 1: 3,5,2 is no object from 1 with frames in order",
    ),
    "a row that leaves the clip": (
        lambda root, at: (at / f"{ABNORMAL}_tracks.txt").write_text("3,5,10\n"),
        r"the interval 5 to 10 leaves the clip",
    ),
    "an array under another name": (
        lambda root, at: (at / f"{ABNORMAL}_tracks.txt").write_bytes(b"\x93NUMPY\1\0"),
        r"is an array of NumPy under another name",
    ),
    "an object that no map shows": (
        lambda root, at: (at / f"{ABNORMAL}_tracks.txt").write_text("3,2,5\n9,2,5\n"),
        r"the object 9 is abnormal, but no id map of .* shows it",
    ),
    "a map that is missing": (
        lambda root, at: (at / f"{ABNORMAL}_0004_gt.png").unlink(),
        r"_0004_gt\.png is missing among the id maps",
    ),
    "maps too few": (
        lambda root, at: (at / f"{ABNORMAL}_0009_gt.png").unlink(),
        r"holds 9 id maps, the clip 10 frames",
    ),
    "a map too small": (
        lambda root, at: cv2.imwrite(str(at / f"{ABNORMAL}_0004_gt.png"), np.zeros((9, 9), np.uint8)),
        r"_0004_gt\.png has \(9, 9\) pixels, fewer than its frame",
    ),
    "a map with colours": (
        lambda root, at: cv2.imwrite(str(at / f"{ABNORMAL}_0004_gt.png"), draw(0)),
        r"_0004_gt\.png has colours",
    ),
    "a damaged map": (
        lambda root, at: (at / f"{ABNORMAL}_0004_gt.png").write_bytes(b"no picture"),
        r"_0004_gt\.png: ",
    ),
}


@pytest.mark.parametrize("case", UBNORMAL)
def test_ubnormal_that_is_not_as_it_should_be(root: Path, case: str) -> None:
    spoil, message = UBNORMAL[case]
    spoil(ubnormal(root), root / "Scene2" / f"{ABNORMAL}_annotations")
    refused(root, message, reader="ubnormal")


def test_what_is_called_a_reader_is_one() -> None:
    assert base.names() == ["avenue", "folder", "mvtec", "one_class", "pool", "shanghaitech", "ubnormal", "ucsd"]
    assert all(map(callable, map(base.get, base.names())))
