"""Reader `pool`: photographs with Pascal VOC annotations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages import features, ingest, inpaint
from tests.conftest import pool_image, run_stage, tiny_params, voc, write_params
from vadpipe.datasets import pool
from vadpipe.errors import UserError
from vadpipe.store import open_clips, open_store

RAW = Path("data/raw/tinypool")
XML = RAW / "train/annotations/train_02.xml"
IMAGE = RAW / "train/images/train_02.png"


def by_split() -> dict:
    return {(clip.split, clip.name): clip for clip in open_clips(Path("data/clips/tinypool"))}


def truths() -> dict:
    store = open_store(Path("data/labels/tinypool"), "labels")
    return {(clip.split, clip.name): clip for clip in store.all_clips()}


def test_splits_labels_and_boxes(tiny: Path) -> None:
    ingest.main("tinypool")
    clips = by_split()
    assert {key: clip.length for key, clip in clips.items()} == {
        ("train", "swimmers"): 6,
        ("train", "empty"): 3,
        ("test", "swimmers"): 4,
        ("test", "empty"): 2,
    }
    known = truths()
    assert {key: clip.length for key, clip in known.items()} == {key: clip.length for key, clip in clips.items()}
    assert known["test", "swimmers"].labels().all()
    assert not known["test", "empty"].labels().any()
    # Pixels of Pascal VOC count from 1 and both ends are inside the box; ours from 0, the far end is outside.
    assert known["train", "swimmers"].column("boxes")[1] == [
        {"track": 0, "x_min": 11, "y_min": 13, "x_max": 31, "y_max": 22}
    ]
    assert known["train", "empty"].column("boxes") == [[], [], []]
    assert clips["train", "swimmers"].column("name")[2] == str(IMAGE)
    assert not any(clip.info["ordered"] for clip in clips.values())
    stored = [data for group in clips["train", "swimmers"].encoded() for data in group]
    assert stored[2] == IMAGE.read_bytes()


def test_images_of_several_sizes_become_a_clip_each(tiny: Path) -> None:
    cv2.imwrite(str(RAW / "test_empty/images/large.png"), pool_image(3, 60, 80))
    ingest.main("tinypool")
    assert {name for split, name in by_split() if split == "test"} == {"swimmers", "empty_48x64", "empty_60x80"}


def test_what_is_read_of_an_annotation(tmp_path: Path) -> None:
    """Parts have boxes of their own, the order of the ends is free, numbers may be written as floats."""
    path = tmp_path / "a.xml"
    path.write_text(
        "<annotation><size><height>48</height><width>64</width></size><object><name>swimmer</name>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
        "<bndbox><ymax>48</ymax><xmax>64.0</xmax><ymin>1</ymin><xmin>1.0</xmin></bndbox></object></annotation>"
    )
    size = pool.images.Size(48, 64, 3)
    assert pool.read_annotation(path, tmp_path / "a.png", size) == [
        {"track": 0, "x_min": 0, "y_min": 0, "x_max": 64, "y_max": 48}
    ]
    path.write_text(voc("a.png", []))
    assert pool.read_annotation(path, tmp_path / "a.png", size) == []


def test_an_image_without_annotation_can_be_scored_but_not_inpainted(tiny: Path) -> None:
    (RAW / "test/annotations/test_01.xml").unlink()
    ingest.main("tinypool")
    clip = truths()["test", "swimmers"]
    assert clip.column("label") == [1, None, 1, 1]
    assert clip.column("boxes")[1] is None
    inpaint.main("tinypool")
    XML.unlink()
    ingest.main("tinypool")
    with pytest.raises(UserError, match=r"train_02\.png"):
        inpaint.main("tinypool")


def test_grey_and_rgba(tiny: Path) -> None:
    grey = pool_image(1)[..., 1]
    cv2.imwrite(str(RAW / "train/images/train_00.png"), grey)
    cv2.imwrite(str(RAW / "train/images/train_01.png"), np.dstack([pool_image(2), np.full((48, 64), 9, np.uint8)]))
    ingest.main("tinypool")
    frames = np.concatenate(list(by_split()["train", "swimmers"].chunks()))
    assert (frames[0] == grey[..., None]).all()
    assert (frames[1] == pool_image(2)[..., ::-1]).all()


BOX = (7, 5, 20, 30)
WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "broken XML": (lambda: XML.write_text("<annotation><size>"), r"train_02\.xml is no valid XML"),
    "other XML": (lambda: XML.write_text("<html/>"), r"train_02\.xml: the root is <html>"),
    "inverted box": (lambda: XML.write_text(voc("x", [(20, 5, 7, 30)])), r"train_02\.xml: the box of .* is inverted"),
    "box outside": (lambda: XML.write_text(voc("x", [(7, 5, 65, 30)])), r"train_02\.xml: .* leaves the image"),
    "box from 0": (lambda: XML.write_text(voc("x", [(0, 5, 20, 30)])), r"train_02\.xml: .* leaves the image"),
    "no number": (lambda: XML.write_text(voc("x", [BOX]).replace(">7<", ">x<")), r"<xmin> of <bndbox> is 'x'"),
    "no box": (lambda: XML.write_text(voc("x", [BOX]).replace("bndbox", "bbox")), r"train_02\.xml: .* has no <bndbox>"),
    "other size": (lambda: XML.write_text(voc("x", [BOX], height=50)), r"train_02\.xml is for an image of 50x64"),
    "no image": (IMAGE.unlink, r"train_02\.xml: there is no image of this name"),
    "one name": (lambda: cv2.imwrite(str(IMAGE.with_suffix(".jpg")), pool_image(1)), r"train_02.* have one name"),
    "no image file": (lambda: IMAGE.write_bytes(b"x"), r"train_02\.png: not an image"),
    "stray folder": ((RAW / "val").mkdir, "val does not belong to the layout"),
    "stray file": (lambda: (RAW / "train/x.jpg").write_bytes(b""), "x.jpg does not belong to the layout"),
    "stray annotation": (lambda: XML.with_suffix(".json").write_text("{}"), "train_02.json is no annotation"),
    "annotated empty images": ((RAW / "train_empty/annotations").mkdir, "known to be empty have none"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_data_are_refused(tiny: Path, wrong: str) -> None:
    spoil, message = WRONG[wrong]
    spoil()
    with pytest.raises(UserError, match=message):
        ingest.main("tinypool")
    assert not Path("data/clips/tinypool").exists()
    assert not Path("data/labels/tinypool").exists()


def test_an_error_is_one_line_with_exit_code_2(tiny: Path) -> None:
    XML.write_text("<annotation>")
    done = run_stage("ingest", "tinypool")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_video_needs_frames_a_second(tiny: Path) -> None:
    params = tiny_params()
    params["ingest"]["tiny"]["fps"] = None
    write_params(params)
    with pytest.raises(UserError, match=r"ingest\.tiny\.fps is null"):
        ingest.main("tiny")


def test_features_tell_what_share_of_a_cell_matters(tiny: Path) -> None:
    from stages import pool_mask
    from vadpipe.store.prepared import PreparedClip

    for stage in (ingest, inpaint, pool_mask):
        stage.main("tinypool")
    features.main("tinypool_cells")
    prepared = {(clip.split, clip.name): clip for clip in open_clips(Path("data/pools/tinypool"))}
    for clip in open_store(Path("data/features/tinypool_cells"), "features").all_clips():
        source = prepared[clip.split, clip.name]
        assert isinstance(source, PreparedClip)
        matters = np.concatenate(list(source.regions())) & ~np.concatenate(list(source.filled()))
        shares = matters.reshape(-1, 3, 16, 4, 16).mean((2, 4)).reshape(-1, 12)
        assert np.concatenate(list(clip.regions())) == pytest.approx(shares, abs=1e-4)
    # A store without regions: every cell matters.
    ingest.main("tiny")
    features.main("tiny_net")
    clip = open_store(Path("data/features/tiny_net")).all_clips()[0]
    assert (np.concatenate(list(clip.regions())) == 1).all()
