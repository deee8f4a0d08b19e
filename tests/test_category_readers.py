"""The readers of data sets that fall into categories, on small copies of their layouts."""

from __future__ import annotations

import gzip
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from tests.conftest import ingest_params
from vadpipe import params
from vadpipe.datasets import base
from vadpipe.datasets.idx import read_idx, write_idx
from vadpipe.errors import UserError
from vadpipe.evaluation.run import _test_set
from vadpipe.evaluation.scored import align
from vadpipe.prepare.ingest import ingest
from vadpipe.store import Store, images, open_store
from vadpipe.store.scores import ScoreTable

Change = Callable[[Path], object]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "raw"


def stores(root: Path, reader: str) -> tuple[Store[Any], Store[Any]]:
    """Ingest a data set and return its clips and its labels."""
    ingest("set", params.Ingest(**ingest_params(reader=reader)), root, Path("clips"), Path("labels"))
    return open_store(Path("clips"), "clips"), open_store(Path("labels"), "labels")


def picture(path: Path, height: int = 12, width: int = 16, grey: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(len(str(path)) + grey)
    cv2.imwrite(str(path), (grey + chance.integers(-9, 9, (height, width, 3))).astype(np.uint8))


def mask(path: Path, height: int = 12, width: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.zeros((height, width), np.uint8)
    drawn[height // 3 : height // 3 * 2, width // 4 : width // 2] = 255
    cv2.imwrite(str(path), drawn)


def product(folder: Path, height: int = 12, width: int = 16, defects: tuple[str, ...] = ("bent", "cut_out")) -> Path:
    """Four training images, two good test images, two of each defect with masks."""
    for number in range(4):
        picture(folder / f"train/good/{number:03d}.png", height, width, 100 + number)
    for number in range(2):
        picture(folder / f"test/good/{number:03d}.png", height, width, 110 + number)
        for defect in defects:
            picture(folder / f"test/{defect}/{number:03d}.png", height, width, 150 + number)
            mask(folder / f"ground_truth/{defect}/{number:03d}_mask.png", height, width)
    return folder


def names(store: Store[Any], split: str) -> list[str]:
    return [clip.name for clip in store.clips(split)]


def test_products_are_categories(root: Path) -> None:
    product(root / "nut")
    product(root / "bolt", 20, 24, ("rust",))
    (root / "readme.txt").write_text("about the set")
    clips, labels = stores(root, "mvtec")
    assert clips.categories() == ["bolt", "nut"]
    assert names(clips, "train") == ["bolt_good", "nut_good"]
    assert names(clips.of("nut"), "test") == ["nut_bent", "nut_cut_out", "nut_good"]
    assert [clip.info["height"] for clip in clips.of("bolt").all_clips()] == [20, 20, 20]
    assert {clip.name: clip.labels().tolist() for clip in labels.of("bolt").clips("test")} == {
        "bolt_good": [0, 0],
        "bolt_rust": [1, 1],
    }
    first = images.decode_grey(labels.of("bolt").clips("test")[1].column("mask")[0]) > 0
    assert first[6:12, 6:12].all()
    assert first.sum() == 36


def test_one_product_alone_is_a_data_set_without_categories(root: Path) -> None:
    clips, labels = stores(product(root), "mvtec")
    assert clips.categories() == []
    assert names(clips, "test") == ["bent", "cut_out", "good"]
    assert all("categories" not in clip.info for clip in clips.all_clips())
    assert labels.clips("test")[0].labels().tolist() == [1, 1]


def test_a_folder_of_one_product_is_the_same(root: Path) -> None:
    product(root / "nut")
    assert names(stores(root, "mvtec")[0], "test") == ["bent", "cut_out", "good"]


def test_masks_are_paired_by_name(root: Path) -> None:
    product(root)
    # The second image has the larger mask; sorted pairing would give it to the first when names have no zeros.
    for old, new in (("000", "10"), ("001", "9")):
        (root / f"test/bent/{old}.png").rename(root / f"test/bent/{new}.png")
        (root / f"ground_truth/bent/{old}_mask.png").rename(root / f"ground_truth/bent/{new}.png")
    cv2.imwrite(str(root / "ground_truth/bent/9.png"), np.full((12, 16), 255, np.uint8))
    bent = stores(root, "mvtec")[1].clips("test")[0]
    whole = [bool((images.decode_grey(data) > 0).all()) for data in bent.column("mask")]
    assert whole == ["/9.png" in name for name in open_store(Path("clips")).clips("test")[0].column("name")]


def test_images_of_several_sizes_are_brought_to_the_median(root: Path) -> None:
    product(root)
    picture(root / "train/good/000.png", 30, 40)
    picture(root / "test/bent/001.png", 24, 32)
    mask(root / "ground_truth/bent/001_mask.png", 24, 32)
    told = base.scan(root, "mvtec", None).oddities
    assert told == [
        "raw: its images have 3 sizes; all are brought to 12x16 (height x width), the median of the training images"
    ]
    clips, labels = stores(root, "mvtec")
    assert {frame.shape for clip in clips.all_clips() for chunk in clip.chunks() for frame in chunk} == {(12, 16, 3)}
    large, small = (images.decode_grey(data) > 0 for data in reversed(labels.clips("test")[0].column("mask")))
    assert (large == small).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "ground_truth/bent/001_mask.png").unlink(), "test/bent/001.png has no mask"),
        (lambda root: mask(root / "ground_truth/bent/001_mask.png", 6, 8), "001_mask.png is 6x8 pixels .* 12x16"),
    ],
)
def test_a_missing_mask_costs_the_pixel_figures_alone(root: Path, change: Change, message: str) -> None:
    product(root)
    change(root)
    (told,) = base.scan(root, "mvtec", None).oddities
    assert re.search(message, told)
    assert told.endswith("no pixel figures are given")
    labels = stores(root, "mvtec")[1]
    assert [data for clip in labels.clips("test") for data in clip.column("mask")] == [None] * 6
    assert labels.clips("test")[0].labels().tolist() == [1, 1]
    # The table says so, too.
    rows = [(0, clip.name, frame, 0.5) for clip in labels.clips("test") for frame in range(clip.length)]
    table = ScoreTable(pd.DataFrame(rows, columns=["seed", "clip", "frame", "distance"]), ["distance"], {})
    assert re.search(message, _test_set(align("raw_run", table, labels.clips("test")))["note"])


MVTEC: dict[str, tuple[Change, str]] = {
    "without good to train": (lambda root: (root / "train/good").rename(root / "train/fine"), "has no train/good"),
    "without good to test": (lambda root: (root / "test/good").rename(root / "test/fine"), "has no test/good"),
    "a defect in training": (lambda root: picture(root / "train/bent/000.png"), r"train/bent: training has images"),
    "a mask of no image": (lambda root: mask(root / "ground_truth/bent/7_mask.png"), "7_mask.png is the mask of no"),
    "masks of no defect": (lambda root: mask(root / "ground_truth/rust/0_mask.png"), "masks of images that are not"),
    "two masks": (lambda root: mask(root / "ground_truth/bent/000.png"), "are both masks of"),
    "a table": (lambda root: (root / "train/good/list.csv").write_text(""), "does not belong among the frames"),
    "half an image": (
        lambda root: (root / "test/bent/001.png").write_bytes((root / "test/bent/001.png").read_bytes()[:60]),
        "test/bent/001.png",
    ),
    "two names": (lambda root: picture(root / "test/bent/001.jpg"), "have one name, so a mask could mean either"),
}


@pytest.mark.parametrize("wrong", MVTEC)
def test_wrong_products_are_refused(root: Path, wrong: str) -> None:
    change, message = MVTEC[wrong]
    change(product(root))
    with pytest.raises(UserError, match=message):
        stores(root, "mvtec")


def test_a_category_without_test_images_is_named(root: Path) -> None:
    product(root / "nut")
    product(root / "bolt")
    (root / "stray.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"stray.zip does not belong to the layout of `mvtec`"):
        stores(root, "mvtec")


def folders(root: Path) -> Path:
    for name, grey in (("ant", 40), ("bee", 120), ("cat", 200)):
        for split, count in (("train", 5), ("test", 3)):
            for number in range(count):
                picture(root / split / name / f"{number}.png", 8, 8, grey + number)
    return root


def idx(root: Path, packed: bool = True) -> Path:
    root.mkdir(parents=True)
    for prefix, count in (("train", 10), ("t10k", 6)):
        labels = (np.arange(count) % 3).astype(np.uint8)
        pixels = np.broadcast_to((60 * labels)[:, None, None], (count, 5, 7)).astype(np.uint8)
        for name, values in ((f"{prefix}-images-idx3-ubyte", pixels), (f"{prefix}-labels-idx1-ubyte", labels)):
            write_idx(root / f"{name}.gz", values)
            if not packed:
                (root / name).write_bytes(gzip.decompress((root / f"{name}.gz").read_bytes()))
                (root / f"{name}.gz").unlink()
    return root


def batches(root: Path) -> Path:
    root.mkdir(parents=True)
    for name, count in (("data_batch_1", 6), ("data_batch_2", 4), ("test_batch", 4)):
        labels = [index % 2 for index in range(count)]
        pixels = np.zeros((count, 3, 32, 32), np.uint8)
        pixels[:, 1, 3] = 200  # the fourth row is green
        pixels[:, 0] += np.array(labels, np.uint8)[:, None, None] * np.uint8(90)
        batch = {b"data": pixels.reshape(count, -1), b"labels": labels, b"batch_label": b"training batch 1 of 5"}
        (root / name).write_bytes(pickle.dumps(batch, protocol=2))
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"airplane", b"truck"]}, protocol=2))
    return root


@pytest.mark.parametrize(
    ("make", "classes", "trained", "tested"),
    [
        (folders, ["ant", "bee", "cat"], [5, 5, 5], [3, 3, 3]),
        (idx, ["class0", "class1", "class2"], [4, 3, 3], [2, 2, 2]),
        (lambda root: idx(root, packed=False), ["class0", "class1", "class2"], [4, 3, 3], [2, 2, 2]),
        (batches, ["airplane", "truck"], [5, 5], [2, 2]),
    ],
)
def test_each_class_is_normal_once(
    root: Path, make: Callable[[Path], Path], classes: list[str], trained: list[int], tested: list[int]
) -> None:
    clips, labels = stores(make(root), "one_class")
    assert clips.categories() == classes
    assert [clip.length for clip in clips.clips("train")] == trained
    assert [clip.length for clip in clips.clips("test")] == tested
    for category in classes:
        assert names(clips.of(category), "train") == [category]
        assert names(clips.of(category), "test") == classes
        for clip in labels.of(category).clips("test"):
            assert clip.labels().tolist() == [int(clip.name != category)] * clip.length
            assert clip.column("label") == clip.labels().tolist()
    # Whoever asks for no category sees each class as normal.
    assert all(clip.labels().tolist() == [0] * clip.length for clip in labels.clips("test"))


def test_the_pixels_of_a_batch_are_rows_of_planes(root: Path) -> None:
    clips, _ = stores(batches(root), "one_class")
    truck = clips.of("truck").clips("train")[0].frame(0)
    assert truck.shape == (32, 32, 3)
    assert truck[3, 5].tolist() == [90, 200, 0]
    assert truck[4, 5].tolist() == [90, 0, 0]


def test_idx_files_come_back(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 3, 2), dtype=np.uint8)
    for name in ("a", "b"):
        write_idx(tmp_path / name, values)
    assert (read_idx(tmp_path / "a", 3) == values).all()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def cut(path: Path, end: int) -> None:
    path.write_bytes(path.read_bytes()[:end])


class Program:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("open('written', 'w')",))


ONE_CLASS: dict[str, tuple[Callable[[Path], Path], Change, str]] = {
    "no layout": (folders, lambda root: (root / "test").rename(root / "val"), "is no set of classes"),
    "one class": (
        idx,
        lambda root: [
            write_idx(root / f"{p}-labels-idx1-ubyte.gz", np.zeros(n, np.uint8))
            for p, n in (("train", 10), ("t10k", 6))
        ],
        "has one class",
    ),
    "a class without test images": (
        folders,
        lambda root: (root / "test/bee").rename(root / "gone"),
        "class 'bee' has images to train and none",
    ),
    "an empty class": (folders, lambda root: (root / "train/dog").mkdir(), "train/dog holds no frames"),
    "a cut gzip": (idx, lambda root: cut(root / "train-images-idx3-ubyte.gz", 40), "no whole gzip file"),
    "a cut idx": (
        lambda root: idx(root, packed=False),
        lambda root: cut(root / "t10k-images-idx3-ubyte", 100),
        r"promises 6x5x7 bytes but holds 84; copy it again",
    ),
    "labels for images": (
        idx,
        lambda root: shutil.copy(root / "train-labels-idx1-ubyte.gz", root / "train-images-idx3-ubyte.gz"),
        r"has 1 dimension\(s\), wanted are 3",
    ),
    "a missing file": (idx, lambda root: (root / "t10k-labels-idx1-ubyte.gz").unlink(), "has no t10k-labels-idx1"),
    "other labels": (
        idx,
        lambda root: write_idx(root / "train-labels-idx1-ubyte.gz", np.zeros(9, np.uint8)),
        "holds 10 images, .* 9 labels",
    ),
    "a cut batch": (batches, lambda root: cut(root / "data_batch_2", 900), "data_batch_2 is no whole batch"),
    "a program": (
        batches,
        lambda root: (root / "test_batch").write_bytes(pickle.dumps({b"data": Program()}, protocol=2)),
        "it asks for .*exec, which no batch needs",
    ),
    "no names": (batches, lambda root: (root / "batches.meta").unlink(), "batches.meta is not there"),
    "a class without a name": (
        batches,
        lambda root: (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"airplane"]}, protocol=2)),
        "no name of class 1",
    ),
    "no training": (
        batches,
        lambda root: [(root / f"data_batch_{number}").unlink() for number in (1, 2)],
        "has no data_batch_1",
    ),
}


@pytest.mark.parametrize("wrong", ONE_CLASS)
def test_wrong_classes_are_refused(root: Path, wrong: str) -> None:
    make, change, message = ONE_CLASS[wrong]
    change(make(root))
    with pytest.raises(UserError, match=message):
        stores(root, "one_class")
    assert not Path("written").exists()


def test_a_class_that_is_tested_alone_is_abnormal_for_all_others(root: Path) -> None:
    picture(folders(root) / "test/dog/0.png", 8, 8)
    assert base.scan(root, "one_class", None).oddities == [
        "classes without training images, abnormal for all others: dog"
    ]
    clips, labels = stores(root, "one_class")
    assert clips.categories() == ["ant", "bee", "cat"]
    assert names(clips.of("bee"), "test") == ["ant", "bee", "cat", "dog"]
    assert {clip.name for clip in labels.of("bee").clips("test") if clip.labels().all()} == {"ant", "cat", "dog"}
