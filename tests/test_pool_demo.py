"""The generated pool: layout, determinism, boxes that fit, and that no threshold finds the swimmers."""

from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from vadpipe.scenes import pool_demo
from vadpipe.scenes.pool_demo import Photograph, draw, seen_views, unseen_views

COUNTS = {"train": 2, "train_empty": 1, "test": 1, "test_empty": 0}
FULL = {"train": 48, "train_empty": 24, "test": 32, "test_empty": 16}


def params(seed: int = 7, height: int = 180, width: int = 320, **counts: int) -> pool_demo.Params:
    return pool_demo.Params(seed=seed, height=height, width=width, **{**COUNTS, **counts})


@pytest.fixture(scope="module")
def photographs() -> list[Photograph]:
    """One picture of each view, in the size that the project uses."""
    full = params(seed=11, height=360, width=640, **FULL)
    views = {"train": seen_views.VIEWS, "test": unseen_views.VIEWS}
    return [draw(full, split, index) for split in views for index in range(len(views[split]))]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    pool_demo.write(params(), folder)
    return folder


def same(first: Photograph, second: Photograph) -> bool:
    layers = all(np.array_equal(mask, second.layers[name]) for name, mask in first.layers.items())
    return np.array_equal(first.image, second.image) and first.boxes == second.boxes and layers


def test_same_bits_in_any_order_and_other_bits_for_another_seed() -> None:
    jobs = [("train", 0), ("test_empty", 1)]
    forwards = [draw(params(), *job) for job in jobs]
    backwards = [draw(params(), *job) for job in reversed(jobs)][::-1]
    more = [draw(params(train=40, test=9), *job) for job in jobs]  # numbers of images change no image
    for first, second, third in zip(forwards, backwards, more, strict=True):
        assert same(first, second)
        assert same(first, third)
    for job, photograph in zip(jobs, forwards, strict=True):
        assert not np.array_equal(draw(params(seed=8), *job).image, photograph.image)
    assert not np.array_equal(draw(params(), "train", 6).image, forwards[0].image)  # the same view once more


def test_layout_and_annotations_agree_with_draw(written: Path) -> None:
    expected = set()
    for split, count in COUNTS.items():
        for index in range(count):
            photograph = draw(params(), split, index)
            expected.add(f"{split}/images/{photograph.name}.jpg")
            image = cv2.imread(str(written / split / "images" / f"{photograph.name}.jpg"))
            assert image is not None
            error = image[..., ::-1].astype(int) - photograph.image
            assert np.abs(error).mean() < 10, "JPEG loses noise only"
            if not split.endswith("_empty"):
                expected.add(f"{split}/annotations/{photograph.name}.xml")
                _annotation_agrees(written / split / "annotations" / f"{photograph.name}.xml", photograph)
    assert {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()} == expected
    assert not (written / "test_empty").exists()


def _annotation_agrees(file: Path, photograph: Photograph) -> None:
    root = ElementTree.parse(file).getroot()
    assert root.tag == "annotation"
    assert root.findtext("filename") == f"{photograph.name}.jpg"
    size = [int(root.findtext(f"size/{name}", "")) for name in ("height", "width", "depth")]
    assert size == list(photograph.image.shape)
    boxes = []
    for thing in root.findall("object"):
        assert thing.findtext("name") == "swimmer"
        edges = [int(thing.findtext(f"bndbox/{name}", "")) for name in ("xmin", "ymin", "xmax", "ymax")]
        boxes.append((edges[0] - 1, edges[1] - 1, edges[2], edges[3]))  # from 1, inclusive, to 0 and exclusive
    assert boxes == photograph.boxes


def test_writing_twice_gives_the_same_bytes(written: Path, tmp_path: Path) -> None:
    pool_demo.write(params(), tmp_path)
    files = [path.relative_to(written) for path in written.rglob("*") if path.is_file()]
    assert files
    for file in files:
        assert (tmp_path / file).read_bytes() == (written / file).read_bytes()


def test_boxes_are_tight_and_large_enough(photographs: list[Photograph]) -> None:
    for photograph in photographs:
        height, width = photograph.image.shape[:2]
        swimmers = photograph.layers["swimmers"]
        assert 3 <= len(photograph.boxes) <= 8
        inside = np.zeros_like(swimmers)
        for x_min, y_min, x_max, y_max in photograph.boxes:
            assert 0 <= x_min < x_max <= width
            assert 0 <= y_min < y_max <= height
            assert x_max - x_min >= 8
            assert y_max - y_min >= 4
            part = swimmers[y_min:y_max, x_min:x_max]
            for edge in (part[0], part[-1], part[:, 0], part[:, -1]):
                assert edge.any(), "a swimmer reaches every side of its box"
            inside[y_min:y_max, x_min:x_max] = True
        assert not swimmers[~inside].any()


def test_layers_are_masks_of_the_pool(photographs: list[Photograph]) -> None:
    for photograph in photographs:
        layers = photograph.layers
        assert {"pool", "swimmers", "ropes", "glitter", "splash"} <= set(layers)
        for mask in layers.values():
            assert mask.dtype == bool
            assert mask.shape == photograph.image.shape[:2]
        for name in ("swimmers", "ropes", "glitter"):
            assert (layers[name] & layers["pool"]).sum() > 0.9 * layers[name].sum(), name
        assert not (layers["swimmers"] & layers["ropes"]).any()
        assert layers["ropes"].any()
        assert 0.35 <= layers["pool"].mean() <= 0.8, photograph.name


def test_empty_pictures_are_lively_without_swimmers() -> None:
    for split in ("train_empty", "test_empty"):
        for index in range(2):
            photograph = draw(params(), split, index)
            assert photograph.boxes == []
            assert not photograph.layers["swimmers"].any()
            assert not photograph.layers["splash"].any()
            assert photograph.layers["ropes"].any()
            grey = photograph.image.mean(axis=2)[photograph.layers["pool"]]
            assert grey.std() > 8


def test_unseen_views_are_no_training_views() -> None:
    assert len({view.name for view in seen_views.VIEWS}) >= 4
    assert len(unseen_views.VIEWS) >= 2
    for test in unseen_views.VIEWS:
        for train in seen_views.VIEWS:
            assert test.name != train.name
            assert test.position != train.position
            assert test.water != train.water
            assert test.ropes != train.ropes
            assert test.hall != train.hall
    shown = {draw(params(height=90, width=160), "test", index).name[:5] for index in range(len(unseen_views.VIEWS))}
    assert shown == {view.name for view in unseen_views.VIEWS}


def test_near_swimmers_are_large_and_far_ones_small(photographs: list[Photograph]) -> None:
    longest = [[max(box[2] - box[0], box[3] - box[1]) for box in photograph.boxes] for photograph in photographs]
    everyone = np.concatenate(longest)
    assert 45 <= np.percentile(everyone, 90) <= 90
    assert 12 <= np.percentile(everyone, 5) <= 30
    assert everyone.max() < 130


def test_no_threshold_of_brightness_finds_the_swimmers(photographs: list[Photograph]) -> None:
    areas = [_distances(photograph) for photograph in photographs]
    scores = [float(roc_auc_score(labels, distances)) for labels, distances in areas]
    assert max(scores) < 0.9
    assert np.mean(scores) < 0.8


def _distances(photograph: Photograph) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    """Return whether pixels of the pool are swimmers, and how far their grey is from the usual one."""
    pool = photograph.layers["pool"]
    grey = photograph.image.mean(axis=2)[pool]
    return photograph.layers["swimmers"][pool], np.abs(grey - np.median(grey))


@pytest.mark.parametrize(
    "wrong", [{"fog": 1}, {"train": 0}, {"test": -1}, {"seed": -1}, {"height": 20}, {"width": 64.5}]
)
def test_wrong_params_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        pool_demo.Params.model_validate({**params().model_dump(), **wrong})


def test_missing_params_are_refused() -> None:
    with pytest.raises(ValidationError):
        pool_demo.Params.model_validate({"seed": 7})
