"""Pixels and boxes from stores to JSON and pictures: stage `evaluate` on fabricated stores with maps."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import PIL.Image
import pytest
from ruamel.yaml import YAML

from stages.evaluate import main as evaluate_stage
from tests.conftest import REPO, ingest_params, write_params
from tests.conftest import write_clips as write_stores
from vadpipe.errors import UserError
from vadpipe.evaluation import strips as strips_module
from vadpipe.evaluation.pixels import pixel_metrics
from vadpipe.evaluation.truth import clip_truths
from vadpipe.pictures.heat import Scale
from vadpipe.pictures.strips import Strip, draw_strips
from vadpipe.store import open_store
from vadpipe.store.frames import Frame
from vadpipe.store.scores import Scores, ScoreWriter
from vadpipe.store.seal import seal

HEIGHT, WIDTH, CELL = 60, 80, 2  # of frames, and of a cell of the maps, pixels
GREEN, BRIGHTEST = (40, 200, 60), (252, 255, 164)
SCALE = Scale(1.0, 10.0, "what training says")
STORES = Path("data/clips/tiny"), Path("data/labels/tiny")
Truth = list[tuple[int, int, int, int]]


def truths(seed: int, images: int, objects: int) -> list[Truth]:
    """Return boxes for images, none for every fourth one."""
    rng = np.random.default_rng(seed)
    # Side by side, so that no two touch.
    corners = [
        (40 * (i % 2) + int(x), int(y)) for i, (x, y) in enumerate(rng.integers(0, (20, 46), (images * objects, 2)))
    ]
    each = [corners[i * objects : (i + 1) * objects] for i in range(images)]
    return [[] if i % 4 == 3 else [(x, y, x + 16, y + 12) for x, y in boxes] for i, boxes in enumerate(each)]


def masked(boxes: Truth) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for x_min, y_min, x_max, y_max in boxes:
        mask[y_min:y_max, x_min:x_max] = 255
    return mask


def maps(seed: int, images: list[Truth], strength: float = 4.0) -> np.ndarray:
    """Return maps, float16 (T, h, w): smooth noise, and the objects a little blurred."""
    rng = np.random.default_rng([seed, 1])
    out = []
    for boxes in images:
        noise = cv2.GaussianBlur(rng.gamma(2, 1, (HEIGHT, WIDTH)).astype(np.float32), (0, 0), 2)
        blurred = cv2.GaussianBlur(masked(boxes).astype(np.float32) / 255, (0, 0), 1)
        out.append(noise[::CELL, ::CELL] + strength * blurred[::CELL, ::CELL])
    return np.array(out, np.float16)


SET = {"swimmers": truths(0, 8, 2), "empty": truths(1, 4, 0)}


def write_clips(form: str = "boxes", ordered: bool = False, stem: str = "{clip}_{index}") -> None:
    """Write data/clips/tiny and data/labels/tiny with the truth as boxes, as masks, as both, or none."""
    rng = np.random.default_rng(0)
    frames: dict[str, list[Frame]] = {}
    for clip, images in SET.items():
        of_clip = frames.setdefault(f"test/{clip}", [])
        for index, boxes in enumerate(images):
            sides = [dict(zip(("x_min", "y_min", "x_max", "y_max"), box, strict=True), track=0) for box in boxes]
            of_clip.append(
                Frame(
                    name=f"raw/{clip}/{stem.format(clip=clip, index=index)}.jpg",
                    image=rng.integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8),
                    mask=masked(boxes) if form in {"masks", "both"} else None,
                    label=int(bool(boxes)),
                    boxes=sides if form in {"boxes", "both"} else None,
                )
            )
    write_stores(*STORES, frames, ordered=ordered)
    write_training_clip([0] * 10)


def write_training_clip(labels: list[int | None]) -> None:
    """Write the training clip of both stores; what is labelled 1 was annotated, and then inpainted."""
    grey = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    frames = [Frame(f"raw/train_{index}.jpg", grey, label=label) for index, label in enumerate(labels)]
    write_stores(*STORES, {"train/train": frames}, ordered=False)


def write_scores(
    seeds: tuple[int, ...] = (0,),
    training: bool = True,
    drawn: bool = False,
    strength: float = 4.0,
    remains: tuple[int, ...] = (),
) -> None:
    folder = Path("data/scores/tiny_run")
    folder.mkdir(parents=True, exist_ok=True)
    writer = ScoreWriter(folder, run="tiny_run")
    for seed in seeds:
        for index, (clip, images) in enumerate(SET.items()):
            values = maps(10 * seed + index, images, strength)
            pictures = {"reconstruction": np.full((len(values), 30, 40, 3), 90, np.uint8)} if drawn else {}
            components = {"other": values.mean((1, 2)), "error": values.max((1, 2)).astype(np.float32)}
            writer.write(seed, clip, len(values), [Scores(components, {"error": values}, pictures)])
        if training:
            # As what inpainting leaves beside the boxes that it fills.
            objects: list[Truth] = [[(10, 10, 34, 30)] if index in remains else [] for index in range(10)]
            normal = maps(100 + seed, objects, 8.0)
            writer.write_training(seed, "train", 10, [Scores({"error": normal.max((1, 2))}, {"error": normal})])
    writer.close()
    seal(folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    params_of()
    return tmp_path


def params_of(**evaluate: Any) -> None:
    empty: dict[str, Any] = {
        name: {} for name in ("generate", "archived", "inpaint", "pool_mask", "composite", "flow", "features")
    }
    defaults = YAML(typ="safe").load(REPO / "params.yaml")["evaluate"] | {"bootstrap": 100}
    run = {"dataset": "tiny", "method": "brightness", "uses": "data/clips/tiny", "train": {}, "score": {}}
    write_params(
        {
            **empty,
            "ingest": {"tiny": ingest_params(reader="folder", fps=10.0)},
            "methods": {"brightness": {"train": {}, "score": {}}},
            "evaluate": defaults,
            "runs": {"tiny_run": {**run, "evaluate": {"box_area": [0.01, 0.25], **evaluate}}},
        }
    )


def evaluated() -> dict[str, Any]:
    evaluate_stage("tiny_run")
    found: dict[str, Any] = json.loads(Path("metrics/runs/tiny_run.json").read_text())
    return found


def sheet() -> PIL.Image.Image:
    path = Path("plots/tiny_run/pictures/strips.png")
    assert path.stat().st_size < 400_000
    return PIL.Image.open(path)


def rows_and_panels() -> tuple[int, int]:
    """Return how many rows and panels the sheet has, by its size: 320 pixels a panel, three lines beside rows."""
    width, height = sheet().size
    panel = 320 * HEIGHT // WIDTH
    return (height - 2 * 18) // (panel + 4 + 18), (width - 4) // 324


def test_levels_come_from_training_images_that_show_nothing_abnormal(here: Path) -> None:
    def boxes(labels: list[int | None], remains: tuple[int, ...]) -> Any:
        write_training_clip(labels)
        write_scores(remains=remains)
        evaluate_stage("tiny_run")
        return json.loads(Path("metrics/runs/tiny_run.json").read_text())["boxes"]

    write_clips()
    plain, unknown = [0] * 10, [None] * 10
    clean = boxes(plain, ())
    spoilt = boxes(plain, (0, 1, 2))
    assert spoilt["threshold"]["mean"] > clean["threshold"]["mean"] + 1
    annotated = boxes([1, 1, 1, *[0] * 7], (0, 1, 2))
    assert annotated["threshold"]["mean"] < spoilt["threshold"]["mean"] / 2
    assert annotated["iou30"]["recall"]["mean"] > spoilt["iou30"]["recall"]["mean"]
    # Where nothing else is known all of them count, so that there is a threshold.
    assert boxes([1] * 10, (0, 1, 2)) == spoilt == boxes(unknown, (0, 1, 2))


def test_maps_of_other_training_frames_are_refused(here: Path) -> None:
    write_clips()
    write_scores()
    write_training_clip([0] * 9)
    with pytest.raises(UserError, match="the training clip 'train' has 9 frames but 10 maps; run `dvc repro score@"):
        evaluate_stage("tiny_run")


def test_a_set_of_images_is_measured(here: Path) -> None:
    write_clips()
    write_scores(seeds=(0, 1, 2), strength=0.6)
    found = evaluated()
    pixels, boxes = found["pixels"], found["boxes"]
    assert (pixels["component"], pixels["images"], pixels["images_with_truth"], pixels["coverage"]) == (
        "error",
        12,
        6,
        1,
    )
    assert (boxes["true_boxes"], boxes["images"]) == (12, 12)
    for figure in (pixels["auroc"], pixels["average_precision"], pixels["aupro"], boxes["iou30"]["average_precision"]):
        assert len(figure["per_seed"]) == 3
        assert figure["ci95"][0] < figure["mean"] < figure["ci95"][1]
        assert figure["bootstrap95"][0] < figure["mean"] < figure["bootstrap95"][1]
    assert boxes["iou30"]["average_precision"]["mean"] > 0.6
    assert boxes["iou30"]["average_precision"]["mean"] >= boxes["iou50"]["average_precision"]["mean"] > 0.3
    assert boxes["iou30"]["recall"]["mean"] > 0.5
    expected = [
        pixel_metrics(
            [m for i, clip in enumerate(SET) for m in maps(10 * seed + i, SET[clip], 0.6)],
            [masked(boxes) > 0 for clip in SET for boxes in SET[clip]],
        )
        for seed in range(3)
    ]
    for index, name in enumerate(("auroc", "average_precision", "aupro")):
        assert pixels[name]["per_seed"] == pytest.approx([one[index] for one in expected], abs=1e-6)


def test_intervals_of_loose_images_are_over_images(here: Path) -> None:
    write_clips()
    write_scores()
    found = evaluated()
    for figures in found["components"].values():
        assert figures["raw"]["macro_auc"]["mean"] is None
        assert figures["raw"]["macro_padded"]["mean"] is None
        assert figures["per_clip_minmax"]["micro_auc"]["mean"] is None
        low, high = figures["raw"]["micro_auc"]["bootstrap95"]
        assert low <= figures["raw"]["micro_auc"]["mean"] <= high
    # Two clips, of which one is all normal: drawing clips, half of all draws would have one class.
    assert found["components"]["other"]["raw"]["micro_auc"]["bootstrap_skipped"] < 5
    assert found["pixels"]["auroc"]["bootstrap_skipped"] < 5
    assert "loose images" in found["note"]
    assert found["ordered"] is False


def test_videos_are_drawn_clip_by_clip(here: Path) -> None:
    write_clips(ordered=True)
    write_scores()
    found = evaluated()
    # Of the draws of two clips, those of the empty one alone have nothing to find.
    assert 10 < found["pixels"]["auroc"]["bootstrap_skipped"] < 40
    assert found["boxes"]["iou30"]["recall"]["bootstrap_skipped"] == found["pixels"]["auroc"]["bootstrap_skipped"]
    assert found["components"]["error"]["raw"]["macro_auc"]["mean"] is not None


def test_masks_and_boxes_are_one_truth(here: Path) -> None:
    write_scores()
    found = {}
    for form in ("boxes", "masks", "both"):
        write_clips(form)
        found[form] = evaluated()
    assert found["boxes"]["pixels"] == found["masks"]["pixels"] == found["both"]["pixels"]
    assert found["boxes"]["boxes"] == found["both"]["boxes"]
    assert found["masks"]["boxes"] == found["both"]["boxes"]
    assert found["boxes"]["boxes"]["iou30"]["average_precision"]["mean"] == 1
    # The one folder with something abnormal, beside the empty one, is the whole set.
    (kind,) = found["masks"]["kinds"].values()
    for name in ("auroc", "average_precision", "aupro"):
        assert kind["pixels"][name]["mean"] == pytest.approx(found["masks"]["pixels"][name]["mean"], abs=1e-6)


@pytest.mark.parametrize(("form", "with_maps"), [("none", True), ("boxes", False)])
def test_without_truth_or_maps_there_is_nothing(here: Path, form: str, with_maps: bool) -> None:
    write_clips(form)
    write_scores()
    if not with_maps:
        for path in Path("data/scores/tiny_run/maps").rglob("*.npy"):
            path.unlink()
        seal(Path("data/scores/tiny_run"))
    found = evaluated()
    assert found["pixels"] is None
    assert found["boxes"] is None
    assert not Path("plots/tiny_run/pictures/strips.png").exists()
    assert Path("plots/tiny_run/detections.csv").read_text() == "recall,precision\n"


def test_maps_of_training_clips_must_be_there(here: Path) -> None:
    write_clips()
    write_scores(training=False)
    with pytest.raises(UserError, match=r"none of the training clips.*dvc repro score@tiny_run"):
        evaluate_stage("tiny_run")


def test_frames_of_unknown_truth_are_left_out(here: Path) -> None:
    image, box = np.zeros((8, 9, 3), np.uint8), {"track": 0, "x_min": 1, "y_min": 2, "x_max": 4, "y_max": 20}
    mask = np.eye(9, dtype=np.uint8)[:8]
    known = [Frame("a", image, label=0), Frame("b", image, boxes=[box]), Frame("c", image, mask=mask)]
    unknown = [
        Frame("d", image),
        Frame("e", image, label=1),
        Frame("f", image, boxes=[]),
        Frame("g", image, label=1, boxes=[]),
    ]
    write_stores(*STORES, {"test/x": known + unknown, "train/y": known}, ordered=False)
    clips, labels = (open_store(folder).clips("test") for folder in STORES)
    (truth,) = clip_truths(labels, clips)
    assert truth.known.tolist() == [True] * 3 + [False] * 4
    assert not truth.mask(0).any()
    assert truth.mask(1).sum() == 3 * 6  # what of a box lies outside the frame is cut off
    assert truth.boxes(1).tolist() == [[1, 2, 4, 20]]
    assert truth.boxes(2).tolist() == [[0, 0, 8, 8]]
    np.testing.assert_array_equal(truth.mask(2), mask > 0)


def test_the_curve_of_the_boxes(here: Path) -> None:
    write_clips()
    write_scores()
    found = evaluated()
    curve = pd.read_csv("plots/tiny_run/detections.csv")
    assert list(curve) == ["recall", "precision"]
    area = (np.diff(curve["recall"], prepend=0) * curve["precision"]).sum()
    assert area == pytest.approx(found["boxes"]["iou30"]["average_precision"]["mean"], abs=1e-4)


def test_the_sheet_has_its_rows_and_panels(here: Path) -> None:
    write_clips()
    write_scores()
    evaluate_stage("tiny_run")
    assert rows_and_panels() == (4, 3)  # best, median, worst, false alarm; input, map, boxes
    write_scores(drawn=True)
    params_of(chosen=["swimmers_3", "empty_1"])
    evaluate_stage("tiny_run")
    rows, panels = rows_and_panels()
    assert panels == 4
    assert rows in {5, 6}  # one of the chosen ones may be the highest false alarm too
    params_of(chosen=["swimers_3"])
    with pytest.raises(UserError, match=r"no test image 'swimers_3'.*did you mean 'swimmers_3'"):
        evaluate_stage("tiny_run")


def strip(image: np.ndarray, **changes: Any) -> Strip:
    none = np.empty((0, 4))
    values: dict[str, Any] = {
        "title": "best: a 1.jpg",
        "image": image,
        "drawn": None,
        "heat": np.zeros((6, 8), np.float32),
        "mask": None,
        "truths": none,
        "missed": np.empty(0, bool),
        "boxes": np.empty((0, 5)),
        "hits": np.empty(0, bool),
    }
    return Strip(**values | changes)


def colours(png: bytes) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.asarray(PIL.Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)}


def test_colours_of_boxes_survive_the_palette() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)
    truth, boxes = np.array([[5, 5, 40, 40], [60, 60, 90, 90.0]]), np.array([[5, 5, 38, 40, 3.2], [100, 5, 130, 40, 1]])
    drawn = strip(noise, truths=truth, missed=np.array([False, True]), boxes=boxes, hits=np.array([True, False]))
    assert {GREEN, (235, 40, 30), (255, 210, 0)} <= colours(draw_strips([drawn], SCALE))


def pixels_of(strips: list[Strip], scale: Scale = SCALE) -> np.ndarray:
    """Return what is drawn, uint8 (H, W, 3)."""
    return np.asarray(PIL.Image.open(io.BytesIO(draw_strips(strips, scale))).convert("RGB"))


def middle_of_map(pixels: np.ndarray) -> tuple[int, ...]:
    """Return the colour in the middle of the map of the first strip, whose image is 60 x 80 pixels."""
    return tuple(pixels[36 + 120, 4 + 324 + 160].tolist())


def test_a_map_is_drawn_on_the_scale_of_training_whatever_stands_beside_it() -> None:
    black = np.zeros((60, 80, 3), np.uint8)
    values = (-5.0, 1.0, 2.0, 5.0, 10.0, 1e4)
    maps = [strip(black, heat=np.full((6, 8), value, np.float32)) for value in values]
    hot = strip(black, heat=np.full((6, 8), 7e4, np.float32))
    seen = [middle_of_map(pixels_of([one])) for one in maps]
    assert seen == [middle_of_map(pixels_of([one, hot])) for one in maps]
    below, dark, third, two_thirds, bright, above = seen
    assert below == dark < third < two_thirds < bright == above == BRIGHTEST
    # By the root: a ninth of the way is a third bright, four ninths are two thirds.
    assert SCALE.shares(np.array([[1, 2, 5, 10, np.nan]], np.float32)) == pytest.approx(
        np.array([[0, 1 / 3, 2 / 3, 1, 0]])
    )


def test_training_alone_sets_the_scale(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scales = []
    monkeypatch.setattr(strips_module, "draw_strips", lambda _, scale: scales.append(scale) or b"")
    write_clips()
    for strength, remains in ((4.0, ()), (40.0, ()), (4.0, (0, 1, 2))):
        write_scores(strength=strength, remains=remains)
        evaluate_stage("tiny_run")
    assert scales[0] == scales[1] != scales[2]
    values = maps(100, [[]] * 10).astype(float)
    low, high = np.quantile(values, [0.98, 0.9995], method="inverted_cdf")
    assert scales[0][:2] == pytest.approx((low, low + 9 * (high - low)))
    assert scales[0].meaning.startswith("dark to the 98 % quantile of training maps, a third bright at that of 99.95 %")


def test_a_mask_is_outlined_exactly() -> None:
    grey = np.full((60, 80, 3), 90, np.uint8)
    rows, columns = np.mgrid[:60, :80]
    radius = np.hypot(rows - 30, columns - 40)
    ring = (radius < 20) & (radius > 8)  # an outline inside and one outside
    box = np.array([[20, 10, 61, 51.0]])
    shown = pixels_of([strip(grey, mask=ring, truths=box, missed=np.ones(1, bool))])[36 : 36 + 240, 4 : 4 + 320]
    green = (shown == GREEN).all(2)
    large = cv2.resize(ring.view(np.uint8), (320, 240), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(green, cv2.dilate(large, np.ones((3, 3), np.uint8)) > large)
    assert green[120, 160 - 32 : 160].any()
    # Without a mask the box is drawn.
    shown = pixels_of([strip(grey, truths=box, missed=np.ones(1, bool))])[36 : 36 + 240, 4 : 4 + 320]
    assert (shown[4 * 10 - 1, 4 * 20 : 4 * 60] == GREEN).all()


def test_a_thread_in_a_large_image_is_outlined() -> None:
    mask = np.zeros((900, 1200), bool)
    mask[100:800, 601] = True  # a quarter of a pixel of the panel
    shown = pixels_of([strip(np.full((900, 1200, 3), 90, np.uint8), mask=mask)])[36 : 36 + 240, 4 : 4 + 320]
    green = (shown == GREEN).all(2)
    assert green[40:200].any(1).all()
    assert not green[:20].any()


@pytest.mark.parametrize(("form", "outlined"), [("boxes", False), ("masks", True), ("both", True)])
def test_masks_come_from_the_label_store(
    here: Path, monkeypatch: pytest.MonkeyPatch, form: str, outlined: bool
) -> None:
    shown: list[Strip] = []
    monkeypatch.setattr(strips_module, "draw_strips", lambda strips, _: shown.extend(strips) or b"")
    write_clips(form)
    write_scores()
    params_of(chosen=["swimmers_1"])
    evaluate_stage("tiny_run")
    chosen = shown[0]
    assert chosen.title.startswith("chosen")
    assert len(chosen.truths) == 2
    if outlined:
        np.testing.assert_array_equal(chosen.mask, masked(SET["swimmers"][1]) > 0)
    else:
        assert chosen.mask is None


def test_images_of_one_name_are_told_apart_by_their_clips(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr(
        strips_module, "draw_strips", lambda strips, _: titles.extend(one.title for one in strips) or b""
    )
    write_clips(stem="{index:03d}")
    write_scores()
    params_of(chosen=["empty/002", "swimmers/002.jpg", "007"])  # the eighth image of the longer clip alone
    evaluate_stage("tiny_run")
    first = [title.split(",")[0].partition(": ")[2] for title in titles[:3]]
    assert first == ["empty 002.jpg", "swimmers 002.jpg", "swimmers 007.jpg"]
    assert all(title.startswith("chosen") for title in titles[:3])
    for wanted, message in (
        ("002", r"'002' could be (empty/002\.jpg, swimmers/002\.jpg); write which"),
        ("empty/02", r"no test image 'empty/02' with known truth; did you mean 'empty/00\d'"),
    ):
        params_of(chosen=[wanted])
        with pytest.raises(UserError, match=message):
            evaluate_stage("tiny_run")


def test_a_large_sheet_stays_under_the_limit() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (360, 640, 3)).astype(np.uint8)
    assert len(draw_strips([strip(noise, drawn=noise)] * 9, SCALE)) < 400_000
