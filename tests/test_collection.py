"""Data sets come and go whole: added after all of it was read, removed without a trace."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from tests.conftest import HEIGHT, WIDTH, draw, folder_dataset, tiny_params, write_frames, write_params
from vadpipe import cli, collection, edit, params, paths
from vadpipe.errors import UserError
from vadpipe.prepare import place

GIVEN: dict[str, Any] = {"reader": "folder", "fps": 10.0, "rate": None, "side": None, "objects": None, "labels": None}


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository without data sets."""
    monkeypatch.chdir(tmp_path)
    sections = ("ingest", "archived", "inpaint", "pool_mask", "composite", "flow", "features", "runs")
    write_params({**tiny_params(), **{name: {} for name in sections}})
    return tmp_path


def files() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def test_what_was_added_is_removed_without_a_trace(empty: Path) -> None:
    source = folder_dataset(empty / "elsewhere")
    Path("dvc.lock").write_text("schema: '2.0'\nstages:\n  other@x:\n    cmd: y\n")
    before = files()
    _, runs = collection.add("mine", source, GIVEN, "copy")
    # What its stages would leave.
    stores = [where("mine") for where in (paths.clips, paths.labels, paths.flow)]
    for path in (*stores, paths.model(runs[0]), paths.plots(runs[0])):
        (path / "train").mkdir(parents=True)
        (path / "train" / "x").touch()
    for path in (paths.run_metrics(runs[0]), paths.roc(runs[0])):
        path.parent.mkdir(parents=True)
        path.touch()
    lock = Path("dvc.lock").read_text()
    Path("dvc.lock").write_text(f"{lock}  ingest@mine:\n    cmd: a\n  train@{runs[0]}:\n    cmd: b\n    deps: []\n")
    collection.remove("mine")
    assert files() == before


def test_a_link_is_removed_and_what_it_leads_to_stays(empty: Path) -> None:
    source = folder_dataset(empty / "elsewhere")
    collection.add("mine", source, GIVEN, "link")
    assert paths.raw("mine").is_symlink()
    collection.remove("mine")
    assert not paths.raw("mine").is_symlink()
    assert (source / "train/a1/001.jpg").is_file()


def test_nothing_is_added_of_data_that_ingest_would_refuse(empty: Path) -> None:
    source = folder_dataset(empty / "elsewhere")
    file = source / "test/b1/020.png"
    file.write_bytes(file.read_bytes()[:-30])
    before = files()
    with pytest.raises(UserError, match=r"020\.png"):
        collection.add("mine", source, GIVEN, "copy")
    assert files() == before


def test_an_edit_made_while_the_data_are_copied_is_kept(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder_dataset(empty / "elsewhere")
    copy = place.place

    def slowly(*arguments: Any) -> None:
        copy(*arguments)
        text = Path("params.yaml").read_text()
        Path("params.yaml").write_text(text.replace("smoothing_s: 0.3", "smoothing_s: 0.7"))

    monkeypatch.setattr(place, "place", slowly)
    collection.add("mine", source, GIVEN, "copy")
    loaded = params.load()
    assert loaded.evaluate.smoothing_s == 0.7
    assert "mine" in loaded.ingest


def test_data_are_taken_back_if_the_name_was_taken_meanwhile(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = folder_dataset(empty / "elsewhere")
    copy = place.place

    def slowly(*arguments: Any) -> None:
        copy(*arguments)
        values = {
            "reader": "folder",
            "objects": None,
            "labels": None,
            "fps": 1.0,
            "every": 1,
            "rate": None,
            "start": 0.0,
        }
        edit.add_items({"ingest": {"mine": {**values, "end": None, "side": None, "quality": None}}})

    monkeypatch.setattr(place, "place", slowly)
    with pytest.raises(UserError, match="ingest has an item 'mine' already"):
        collection.add("mine", source, GIVEN, "copy")
    assert not paths.raw("mine").exists()


def video(path: Path, fps: float, count: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (WIDTH, HEIGHT))
    for index in range(count):
        writer.write(draw(index))
    writer.release()


@pytest.mark.parametrize(
    ("fps", "asked", "rate", "frames"),
    [(25.0, None, 5.0, 4), (10.0, None, 5.0, 10), (25.0, 25.0, 25.0, 20), (6.0, None, None, 20)],
)
def test_of_own_video_five_frames_a_second_are_taken(
    empty: Path, fps: float, asked: float | None, rate: float | None, frames: int
) -> None:
    for split in ("train", "test"):
        video(empty / "source" / split / "a.avi", fps)
    report, _ = collection.add("mine", empty / "source", {**GIVEN, "fps": None, "rate": asked}, "copy")
    assert params.load().ingest["mine"].rate == rate
    assert report.shortest == frames
    told = f"{rate:g} of {fps:g}" if rate not in {None, fps} else f"{fps:g}"
    assert f", {told} frames a second, " in report.lines[0]


def test_frames_in_folders_ask_for_their_rate(empty: Path) -> None:
    source = folder_dataset(empty / "elsewhere")
    with pytest.raises(UserError, match=r"a folder of frames.*`--fps`"):
        collection.add("mine", source, {**GIVEN, "fps": None}, "copy")


def test_clips_of_one_frame_get_no_run_that_needs_two(empty: Path) -> None:
    for split in ("train", "test"):
        write_frames(empty / "source" / split / "a", 1)
    collection.add("mine", empty / "source", GIVEN, "copy")
    loaded = params.load()
    assert {run.method for run in loaded.runs.values()} == {"brightness", "knn", "oc_svm"}
    assert not loaded.flow


def test_large_frames_get_flow_of_the_size_that_methods_need(empty: Path) -> None:
    for split in ("train", "test"):
        folder = empty / "source" / split / "a"
        folder.mkdir(parents=True)
        for index in range(2):
            cv2.imwrite(str(folder / f"{index}.png"), np.full((400, 720, 3), 90, np.uint8))
    collection.add("mine", empty / "source", GIVEN, "copy")
    assert params.load().flow["mine"].scale == 0.5


def test_a_generated_set_is_not_archived(empty: Path) -> None:
    source = folder_dataset(empty / "elsewhere")
    collection.add("campus", source, GIVEN, "copy")
    edit.add_items({"generate": {"campus": {"seed": 1}}})
    with pytest.raises(UserError, match="generated"):
        collection.archive("campus")
    shutil.rmtree(source)


def test_products_get_what_works_on_images(empty: Path) -> None:
    from vadpipe.scenes import generate

    generate("products", {"seed": 0, "train": 2, "good": 1, "defective": 1, "side": 48}, empty / "source")
    report, runs = collection.add("mine", empty / "source", {**GIVEN, "reader": "mvtec", "fps": None}, "copy")
    assert "categories, a model each: 3 (board, flange, sweets)" in report.lines
    loaded = params.load()
    methods = {loaded.runs[run].method for run in runs}
    assert methods == {"brightness", "knn", "oc_svm", "dfr", "spade", "padim", "patchcore"}
    # A defect may cover all of a product; runs that are added later start so too, whether or not raw data are there.
    for name in ("later", "without_raw"):
        result = CliRunner().invoke(cli.app, ["runs", "add", name, "--dataset", "mine", "--method", "brightness"])
        assert result.exit_code == 0, result.output
        if name == "later":
            edit.move_item("ingest", "archived", "mine", params.load().ingest["mine"].model_dump())
    assert all(run.evaluate["box_area"][1] == 1.0 for run in params.load().runs.values())
    assert {name: (store.layers, store.grid) for name, store in loaded.features.items()} == {
        "mine_lite0": ([], [1, 1]),
        "mine_lite0_cells": ([3, 4], [30, 40]),
        "mine_lite0_maps": ([1, 2, 3, 4], None),
    }
    assert not loaded.flow
    assert not loaded.inpaint


def test_classes_get_what_works_on_whole_images(empty: Path) -> None:
    from vadpipe.scenes import generate

    generate("digits", {"test": 0.3}, empty / "source")
    _, runs = collection.add("mine", empty / "source", {**GIVEN, "reader": "one_class", "fps": None}, "copy")
    loaded = params.load()
    assert {loaded.runs[run].method for run in runs} == {"brightness", "knn", "oc_svm"}
    assert set(loaded.features) == {"mine_lite0"}
