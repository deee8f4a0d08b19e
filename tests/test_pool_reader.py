"""Reader `pool`: photographs with Pascal VOC annotations."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from stages import features, ingest, inpaint
from tests.conftest import pool_image, run_stage, tiny_params, voc, write_params
from vadpipe.datasets import pool
from vadpipe.datasets.voc import read_annotation
from vadpipe.errors import UserError
from vadpipe.store import images, open_clips, open_store
from vadpipe.store.sampling import Sampling

RAW = Path("data/raw/tinypool")
XML = RAW / "train/annotations/train_02.xml"
IMAGE = RAW / "train/images/train_02.png"
BOX = (7, 5, 20, 30)


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
    size = images.Size(48, 64, 3)
    (found,) = read_annotation(path, tmp_path / "a.png", size)
    assert (found.name, found.difficult, found.cut) == ("swimmer", False, False)
    assert found.box._asdict() == {"track": 0, "x_min": 0, "y_min": 0, "x_max": 64, "y_max": 48}
    path.write_text(voc("a.png", []))
    assert read_annotation(path, tmp_path / "a.png", size) == []


SIZE = images.Size(48, 64, 3)


def boxes_of(path: Path, text: str | bytes) -> list[tuple[int, ...]]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [one.box[1:] for one in read_annotation(path, path.with_suffix(".png"), SIZE)]


@pytest.mark.parametrize(
    ("corners", "box"),
    [
        # Pixels from 1, both ends inside.
        (("5", "9", "20", "30"), (4, 8, 20, 30)),
        (("1", "1", "64", "48"), (0, 0, 64, 48)),
        # A tool that counts from 0: what touches the edge is at the edge.
        (("0", "0", "63", "47"), (0, 0, 63, 47)),
        # One pixel over, as tools write that round.
        (("60", "40", "65", "49"), (59, 39, 64, 48)),
        # Fractions are widened to whole pixels, and less than one before the edge is the edge.
        (("5.6", "9.2", "20.1", "29.9"), (4, 8, 21, 30)),
        (("-0.4", "-0.9", "63.7", "48.5"), (0, 0, 64, 48)),
        ((" 5 ", "\n9\n", "20", "30"), (4, 8, 20, 30)),
    ],
)
def test_boxes_as_tools_write_them(tmp_path: Path, corners: tuple[str, ...], box: tuple[int, ...]) -> None:
    tags = "".join(
        f"<{tag}>{text}</{tag}>" for tag, text in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    text = f"<annotation><object><name>swimmer</name><bndbox>{tags}</bndbox></object></annotation>"
    assert boxes_of(tmp_path / "a.xml", text) == [box]


@pytest.mark.parametrize("box", [(-1, 5, 20, 30), (7, -1, 20, 30), (7, 5, 66, 30), (7, 5, 20, 50), (65, 5, 65, 30)])
def test_more_than_a_pixel_outside_is_refused(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    with pytest.raises(UserError, match=r"a\.xml: the box of object 1 \(swimmer\), .* leaves the image"):
        boxes_of(tmp_path / "a.xml", voc("a.png", [box]))


@pytest.mark.parametrize(
    "size",
    [
        "",
        "<size/>",
        "<size><width>0</width><height>0</height><depth>3</depth></size>",
        "<size><width>64</width><height>0</height></size>",
        "<size><width></width><height></height></size>",
        "<size><width>64</width></size>",
        "<size><width>64.0</width><height>48.0</height></size>",
    ],
)
def test_a_size_of_0_or_none_is_unknown(tmp_path: Path, size: str) -> None:
    text = voc("a.png", [BOX]).replace("<size><width>64</width><height>48</height><depth>3</depth></size>", size)
    assert "<size><width>64</width><height>48" not in text
    assert boxes_of(tmp_path / "a.xml", text) == [(6, 4, 20, 30)]


@pytest.mark.parametrize(
    ("encoding", "codec"),
    [
        *(("UTF-8", "utf-8"), ("utf-8", "utf-8-sig"), ("gb2312", "gb2312"), ("GBK", "gbk"), ("gb2312", "gbk")),
        *(("gb18030", "gb18030"), ("UTF-16", "utf-16"), ("Shift_JIS", "shift_jis"), ("big5", "big5")),
    ],
)
def test_encodings_that_a_file_declares(tmp_path: Path, encoding: str, codec: str) -> None:
    name = "游泳" if encoding != "Shift_JIS" else "水泳"
    text = f"<?xml version='1.0' encoding='{encoding}'?>\n" + voc("a.png", [BOX]).replace("swimmer", name)
    path = tmp_path / "a.xml"
    path.write_bytes(text.encode(codec))
    assert [one.name for one in read_annotation(path, tmp_path / "a.png", SIZE)] == [name]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"<?xml version='1.0' encoding='klingon'?><annotation/>",
            "declares the encoding 'klingon', which is not known",
        ),
        (b"<?xml version='1.0' encoding='base64'?><annotation/>", "declares the encoding 'base64', which is not known"),
        ("<annotation><folder>\u6e38</folder></annotation>".encode("gbk"), "is no text in utf-8; save it as UTF-8"),
        (b"<?xml version='1.0' encoding='gbk'?><annotation>\xff\xff</annotation>", "is no text in gbk"),
        (b"", "is no valid XML"),
        (b"\0\0", "is no valid XML"),
        (
            b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'a'><!ENTITY b '&a;&a;'>]><annotation>&b;</annotation>",
            "defines a document type or entities",
        ),
        (b"<!doctype html><html></html>", "defines a document type or entities"),
        (b"<annotation>&nbsp;</annotation>", "is no valid XML"),
    ],
)
def test_annotations_that_cannot_be_read_are_a_sentence(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=rf"a\.xml {message}") as error:
        boxes_of(tmp_path / "a.xml", data)
    assert "\n" not in str(error.value)


def test_entities_behind_another_encoding_are_found(tmp_path: Path) -> None:
    text = "<?xml version='1.0' encoding='utf-16'?><!DOCTYPE x [<!ENTITY a 'a'>]><annotation>&a;</annotation>"
    with pytest.raises(UserError, match="defines a document type or entities"):
        boxes_of(tmp_path / "a.xml", text.encode("utf-16"))


def oddities(objects: list[str] | None = None) -> list[str]:
    return pool.scan(RAW, objects).oddities


def two_names() -> None:
    """An image with a lane rope and a swimmer, another with a lane rope alone."""
    XML.write_text(voc("x", [BOX, (1, 1, 64, 3)]).replace("swimmer", "lane_rope", 1))
    path = RAW / "test/annotations/test_01.xml"
    path.write_text(voc("x", [BOX]).replace("swimmer", "lane_rope"))


def test_names_of_objects_are_told_where_there_are_several(tiny: Path) -> None:
    assert oddities() == []
    two_names()
    assert oddities() == [
        "test: objects: lane_rope 1, swimmer 3; all count, unless `objects` names those that do",
        "train: objects: lane_rope 1, swimmer 6; all count, unless `objects` names those that do",
    ]
    assert oddities(["swimmer", "lane_rope"]) == []


def test_a_choice_of_names(tiny: Path) -> None:
    two_names()
    assert oddities(["swimmer"]) == [
        "test: objects: lane_rope 1 left out, since `objects` names others",
        "train: objects: lane_rope 1 left out, since `objects` names others",
    ]
    found = {(clip.split, clip.name): list(clip.frames(Sampling())) for clip in pool.scan(RAW, ["swimmer"]).clips}
    # The track of a box is its place in the file.
    assert found["train", "swimmers"][2].boxes == [{"track": 1, "x_min": 0, "y_min": 0, "x_max": 64, "y_max": 3}]
    assert [frame.label for frame in found["test", "swimmers"]] == [1, 0, 1, 1]
    assert found["test", "swimmers"][1].boxes == []
    with pytest.raises(UserError, match=r"no object is named 'swimer'; did you mean 'swimmer'\?"):
        pool.scan(RAW, ["swimer"])


def test_difficult_objects_and_cut_boxes_are_told(tiny: Path) -> None:
    text = voc("x", [(0, 5, 20, 30), BOX])
    XML.write_text(text.replace("</name>", "</name><difficult>1</difficult>", 1))
    assert oddities() == [
        "objects marked as difficult, which count as the others: 1",
        "boxes cut at the edge of their image, which they cross by one pixel, or counted from 0: 1",
    ]
    clip = {(clip.split, clip.name): clip for clip in pool.scan(RAW).clips}["train", "swimmers"]
    assert [box["x_min"] for box in list(clip.frames(Sampling()))[2].boxes] == [0, 6]


def turned_image(path: Path, orientation: int) -> None:
    """Write a JPEG whose pixels are 48x64 and that a viewer turns."""
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    PIL.Image.fromarray(pool_image(1)).save(path, exif=exif)


@pytest.mark.parametrize("orientation", [6, 8])
def test_boxes_are_in_the_image_as_a_viewer_shows_it(tiny: Path, orientation: int) -> None:
    IMAGE.unlink()
    turned_image(IMAGE.with_suffix(".jpg"), orientation)
    with pytest.raises(UserError) as error:
        pool.scan(RAW)
    assert "train_02.xml is for an image of 48x64 pixels (height x width), but " in str(error.value)
    assert f"train_02.jpg is turned by EXIF orientation {orientation}, so that it is shown as 64x48" in str(error.value)
    XML.write_text(voc("x", [(7, 5, 20, 60)], height=64, width=48))
    clips = {(clip.split, clip.name): clip for clip in pool.scan(RAW).clips}
    (frame,) = clips["train", "swimmers_64x48"].frames(Sampling())
    assert frame.boxes == [{"track": 0, "x_min": 6, "y_min": 4, "x_max": 20, "y_max": 60}]


def test_images_have_no_time_to_take_them_by(tiny: Path) -> None:
    for sampling in (Sampling(every=2), Sampling(rate=1.0), Sampling(start=1.0), Sampling(end=1.0)):
        with pytest.raises(UserError, match="images without order and time"):
            list(pool.scan(RAW).clips[0].frames(sampling))
    assert list(pool.scan(RAW).clips[0].frames(Sampling(fps=2.0)))


@pytest.mark.parametrize("place", ["train", "test/images", "train/annotations", "train/annotations/train_02.xml"])
def test_a_dangling_link_is_named(tiny: Path, place: str) -> None:
    (RAW / place).rename(RAW.parent / "away")
    (RAW / place).symlink_to("nowhere")
    with pytest.raises(UserError, match=rf"{place} is a link to nowhere, which cannot be reached"):
        pool.scan(RAW)


def test_a_pipe_is_named(tiny: Path) -> None:
    os.mkfifo(RAW / "train/annotations/train_09.xml")
    with pytest.raises(UserError, match=r"train_09\.xml is a named pipe"):
        pool.scan(RAW)


def test_clutter_is_ignored(tiny: Path) -> None:
    for place in ("", "train", "train/images", "train/annotations", "test_empty"):
        (RAW / place / "@eaDir").mkdir()
        (RAW / place / "desktop.ini").write_bytes(b"x")
    assert oddities() == []


def test_a_name_that_is_nearly_right(tiny: Path) -> None:
    (RAW / "train_empty").rename(RAW / "Train_Empty")
    with pytest.raises(UserError, match="Train_Empty is probably meant as train_empty"):
        pool.scan(RAW)


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


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "broken XML": (lambda: XML.write_text("<annotation><size>"), r"train_02\.xml is no valid XML"),
    "other XML": (lambda: XML.write_text("<html/>"), r"train_02\.xml: the root is <html>"),
    "inverted box": (lambda: XML.write_text(voc("x", [(20, 5, 7, 30)])), r"train_02\.xml: the box of .* is inverted"),
    "box outside": (lambda: XML.write_text(voc("x", [(7, 5, 66, 30)])), r"train_02\.xml: .* leaves the image"),
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
