"""Stage `inpaint`: what the boxes of training images hold is filled, nothing else changes."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from stages import inpaint as stage
from tests.conftest import tiny_params, write_clips, write_params
from vadpipe.errors import UserError
from vadpipe.params import Inpaint
from vadpipe.prepare.inpaint import Rect, fill, groups, write_inpainted
from vadpipe.store import images, open_store
from vadpipe.store.clips import SCHEMA, Frame
from vadpipe.store.prepared import PreparedClip

HEIGHT, WIDTH = 90, 120
Boxes = list[tuple[int, int, int, int]]


def values(**changes: object) -> Inpaint:
    return Inpaint.model_validate({"method": "telea", "radius": 3.0, "margin": 2, **changes})


def picture(seed: int = 0, grey: bool = False, height: int = HEIGHT, width: int = WIDTH) -> images.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (height, width) if grey else (height, width, 3))
    return cv2.GaussianBlur(noise.astype(np.uint8), (0, 0), 2)


def frame(name: str, boxes: Boxes | None, image: images.Image | None = None) -> Frame:
    sides = ("x_min", "y_min", "x_max", "y_max")
    rows = None if boxes is None else [{"track": 0, **dict(zip(sides, box, strict=True))} for box in boxes]
    return Frame(name, picture() if image is None else image, boxes=rows)


def write(folder: Path, clips: dict[str, list[Frame]], quality: int | None = 90) -> tuple[Path, Path]:
    """Write folder/clips/tiny and folder/labels/tiny, and return both."""
    stores = folder / "clips" / "tiny", folder / "labels" / "tiny"
    write_clips(*stores, clips, quality, reader="pool", fps=None, ordered=False)
    return stores


def store(folder: Path) -> tuple[Path, Path]:
    boxed = [
        frame("a", [(10, 20, 40, 50)]),
        frame("b", [(0, 0, 12, 9), (110, 80, 120, 90)], picture(1)),
        frame("c", [], picture(2)),
    ]
    empty = [frame("d", [], picture(3))]
    test = [frame("e", [(10, 20, 40, 50)], picture(4)), frame("f", None, picture(5))]
    return write(folder, {"train/swimmers": boxed, "train/empty": empty, "test/swimmers": test})


def opened(folder: Path) -> dict[str, PreparedClip]:
    return {f"{clip.split}/{clip.name}": clip for clip in open_store(folder, "inpainted").all_clips()}


def encoded(folder: Path) -> dict[str, bytes]:
    clips = open_store(folder).all_clips()
    return {
        name: data for clip in clips for name, data in zip(clip.column("name"), chain(*clip.encoded()), strict=True)
    }


@pytest.mark.parametrize("method", ["telea", "navier_stokes"])
@pytest.mark.parametrize("radius", [0.4, 3.0, 7.6])
@pytest.mark.parametrize("grey", [False, True])
def test_a_crop_gives_what_the_whole_image_gives(method: str, radius: float, grey: bool) -> None:
    rng = np.random.default_rng(5)
    for seed in range(4):
        image = picture(seed, grey, 160, 220)
        corners = rng.integers(0, (200, 140), (4, 2))
        boxes = [Rect(int(x), int(y), int(x + 1 + 3 * seed), int(y + 18 - 4 * seed)) for x, y in corners]
        found, filled = fill(image, boxes, values(method=method, radius=radius))
        flag = cv2.INPAINT_TELEA if method == "telea" else cv2.INPAINT_NS
        assert (found == cv2.inpaint(image, filled.astype(np.uint8), radius, flag)).all()


def test_groups_touch_nowhere_and_hold_all() -> None:
    boxes = [Rect(0, 0, 4, 4), Rect(10, 0, 14, 4), Rect(3, 3, 11, 6), Rect(20, 20, 22, 22), Rect(14, 0, 16, 2)]
    assert sorted(groups(boxes)) == [(0, 0, 14, 6), (14, 0, 16, 2), (20, 20, 22, 22)]
    # What a merged rectangle newly touches is merged too.
    assert groups([Rect(0, 8, 2, 10), Rect(0, 0, 2, 2), Rect(8, 8, 9, 9), Rect(1, 1, 9, 9)]) == [(0, 0, 9, 10)]


def test_only_boxes_with_their_margin_change(tmp_path: Path) -> None:
    clips, truth = store(tmp_path)
    write_inpainted(values(), clips, truth, tmp_path / "out")
    clip = opened(tmp_path / "out")["train/swimmers"]
    expected = np.zeros((3, HEIGHT, WIDTH), bool)
    expected[0, 18:52, 8:42] = True
    expected[1, :11, :14] = True
    expected[1, 78:, 108:] = True
    assert (np.concatenate(list(clip.filled())) == expected).all()
    before, after = encoded(clips), encoded(tmp_path / "out")
    for index, name in enumerate("abc"):
        changed = (images.decode(before[name]) != images.decode(after[name])).any(axis=2)
        assert not changed[~expected[index]].any()
        if expected[index].any():
            assert changed[expected[index]].mean() > 0.9
            assert after[name][1:4] == b"PNG"
    # What is known of the frames stays in the label store.
    assert pq.read_schema(clip.path).names == [*SCHEMA.names, "filled", "region", "confidence"]
    assert not {"label", "mask", "boxes"} & set(SCHEMA.names)
    assert clip.info["method"] == "telea"
    assert clip.info["kind"] == "inpainted"


def test_everything_else_keeps_its_bytes(tmp_path: Path) -> None:
    clips, truth = store(tmp_path)
    write_inpainted(values(), clips, truth, tmp_path / "out")
    before, after = encoded(clips), encoded(tmp_path / "out")
    assert list(before) == list(after)
    assert {name for name in before if before[name] == after[name]} == set("cdef")
    found = opened(tmp_path / "out")
    assert found["test/swimmers"].column("filled") == [None, None]
    assert found["train/empty"].column("filled") == [None]
    assert found["train/swimmers"].column("filled")[2] is None


def test_the_methods_differ(tmp_path: Path) -> None:
    clips, truth = store(tmp_path)
    found = {}
    for method in ("telea", "navier_stokes"):
        write_inpainted(values(method=method), clips, truth, tmp_path / method)
        found[method] = images.decode(encoded(tmp_path / method)["a"])
    assert (found["telea"][20:50, 10:40] != found["navier_stokes"][20:50, 10:40]).any()


def test_grey_and_colour_in_one_clip(tmp_path: Path) -> None:
    frames = [frame("grey", [(10, 20, 40, 50)], picture(0, grey=True)), frame("colour", [(10, 20, 40, 50)])]
    clips, truth = write(tmp_path, {"train/x": frames}, None)
    write_inpainted(values(), clips, truth, tmp_path / "out")
    stored = [images.decode_as_stored(data) for data in encoded(tmp_path / "out").values()]
    assert [images.size_of(image).channels for image in stored] == [1, 3]


def test_one_core_and_two_give_the_same(tmp_path: Path) -> None:
    clips, truth = store(tmp_path)
    for workers in (1, 2):
        write_inpainted(values(), clips, truth, tmp_path / str(workers), workers)
    for file in ("train/swimmers.parquet", "train/empty.parquet", "test/swimmers.parquet", "preview.png"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()


def test_a_training_image_without_annotation_is_refused(tmp_path: Path) -> None:
    clips, truth = write(tmp_path, {"train/x": [frame("a.jpg", []), frame("lost.jpg", None)]})
    with pytest.raises(UserError, match=r"lost\.jpg has no annotation.*train_empty"):
        write_inpainted(values(), clips, truth, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("boxes", [[(0, 0, WIDTH, HEIGHT)], [(0, 0, 62, HEIGHT), (58, 1, 119, 89)]])
def test_boxes_that_leave_nothing_are_refused(tmp_path: Path, boxes: Boxes) -> None:
    clips, truth = write(tmp_path, {"train/x": [frame("all.jpg", boxes)]})
    with pytest.raises(UserError, match=r"all\.jpg: its boxes.*cover all of it.*inpaint\.margin"):
        write_inpainted(values(), clips, truth, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_stage_says_what_it_did(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tiny_params()
    tree |= {"inpaint": {"tiny": values().model_dump()}, "pool_mask": {}, "features": {}, "runs": {}}
    write_params(tree)
    store(Path("data"))
    stage.main("tiny")
    out = capsys.readouterr().out
    assert "3 boxes" in out
    assert "6 images" in out
    assert "images/s -> data/inpainted/tiny" in out
    sheet = images.decode(Path("data/inpainted/tiny/preview.png").read_bytes())
    # Two images with boxes, each above what it became.
    assert sheet.shape == (2 * 360, 2 * 484, 3)


def test_nothing_to_fill(tmp_path: Path) -> None:
    clips, truth = write(tmp_path, {"train/x": [frame("a", [])], "test/x": [frame("b", None)]})
    write_inpainted(values(), clips, truth, tmp_path / "out")
    assert encoded(clips) == encoded(tmp_path / "out")
    assert (tmp_path / "out" / "preview.png").exists()
