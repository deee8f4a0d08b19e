"""Readers `folder` and `ucsd`: what names, labels, masks and boxes mean, and what lies in the way."""

from __future__ import annotations

import os
import shutil
import socket
import unicodedata
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.conftest import HEIGHT, WIDTH, draw, folder_dataset, ingest_params, ucsd_dataset, write_frames, write_video
from vadpipe import params
from vadpipe.datasets import base, folder, ucsd
from vadpipe.datasets.base import RawClip, RawDataset, safe_name
from vadpipe.datasets.files import frame_files, ignored, natural
from vadpipe.datasets.labels import Intervals
from vadpipe.errors import UserError
from vadpipe.prepare.ingest import ingest
from vadpipe.store import open_store
from vadpipe.store.frames import Frame
from vadpipe.store.sampling import Sampling


def write(folder: Path, *names: str, height: int = HEIGHT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), draw(index, height=height))
    return folder


def numbered(first: int, last: int, suffix: str = ".png") -> list[str]:
    return [f"{number:03d}{suffix}" for number in range(first, last + 1)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A training clip of 12 frames, and a test clip `b` of the frames 000 to 011, other pictures in it."""
    write(tmp_path / "train" / "a", *numbered(0, 11), height=HEIGHT)
    write(tmp_path / "test" / "b", *numbered(0, 11, ".jpg"))
    return tmp_path


def label(root: Path, rows: str) -> None:
    (root / "labels.csv").write_text(f"clip,first,last\n{rows}")


def track(root: Path, *rows: str) -> None:
    (root / "tracks.csv").write_text("clip,track,frame,x_min,y_min,x_max,y_max\n" + "\n".join(rows) + "\n")


def clip(root: Path, name: str = "b", split: str = "test") -> RawClip:
    return {(found.split, found.name): found for found in folder.scan(root).clips}[split, name]


def frames(root: Path, name: str = "b", sampling: Sampling = Sampling()) -> list[Frame]:  # noqa: B008
    return list(clip(root, name).frames(sampling))


def abnormal(root: Path, name: str = "b", sampling: Sampling = Sampling()) -> list[str]:  # noqa: B008
    """Return the names, without folders, of the frames that are labelled abnormal."""
    return [Path(frame.name).name for frame in frames(root, name, sampling) if frame.label == 1]


def refused(root: Path, read: Callable[[Path], object] = folder.scan) -> str:
    with pytest.raises(UserError) as error:
        read(root)
    assert "\n" not in str(error.value)
    return str(error.value)


def read_all(root: Path) -> None:
    for found in folder.scan(root).clips:
        list(found.frames(Sampling()))


# Frames have names.


def test_labels_mean_the_numbers_in_names_across_a_gap(root: Path) -> None:
    (root / "test/b/003.jpg").unlink()
    label(root, "b,4,7\n")
    assert abnormal(root) == numbered(4, 7, ".jpg")
    assert clip(root).notes == ["number 003 is missing among its frames; labels mean the numbers in the names"]


@pytest.mark.parametrize("first", [0, 1, 117])
def test_labels_mean_the_numbers_wherever_they_begin(tmp_path: Path, first: int) -> None:
    write(tmp_path / "train" / "a", "0.png")
    write(tmp_path / "test" / "b", *(f"f{number}.png" for number in range(first, first + 12)))
    label(tmp_path, f"b,{first + 9},{first + 11}\n")
    assert abnormal(tmp_path) == [f"f{number}.png" for number in range(first + 9, first + 12)]
    assert clip(tmp_path).notes == []
    label(tmp_path, f"b,{first + 9},{first + 12}\n")
    message = refused(tmp_path)
    assert f"clip b: the interval {first + 9} to {first + 12} leaves the clip" in message
    assert f"whose frames go from {first} to {first + 11}" in message


@pytest.mark.parametrize(
    ("one", "other"),
    [("002.jpg", "002.png"), ("3.png", "003.png"), ("f3.png", "f03.jpg"), ("left_2.png", "right_2.png")],
)
def test_two_frames_of_one_number_are_refused(tmp_path: Path, one: str, other: str) -> None:
    write(tmp_path / "train" / "a", "000.png", one, other)
    write(tmp_path / "test" / "b", "000.png")
    message = refused(tmp_path)
    assert str(tmp_path / "train/a" / one) in message
    assert str(tmp_path / "train/a" / other) in message
    assert "have one number, " in message


def test_two_frames_of_one_name_without_number_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "first.png", "second.png", "second.jpg")
    with pytest.raises(UserError, match=r"second\.(png|jpg) and .*second\.(png|jpg) have one name"):
        frame_files(tmp_path)


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["f1.png", "f2.png", "f10.png"], [1, 2, 10]),
        (["cam2_007_640x480.png", "cam2_012_640x480.png"], [7, 12]),
        (["003.bmp", "frame001.bmp", "frame002.bmp"], [1, 2, 3]),
        (["12-00-01.png", "12-00-59.png", "12-01-00.png"], None),  # a time: no one number
        (["begin.png", "end.png"], None),
        (["begin.png", "end1.png"], None),
        (["x7.png"], [7]),
        (["s01e05.png"], [5]),
    ],
)
def test_which_number_a_name_carries(tmp_path: Path, names: list[str], numbers: list[int] | None) -> None:
    found = frame_files(write(tmp_path, *names))
    assert (found.numbers if found.digits else None) == numbers
    assert found.numbers == (numbers or list(range(len(names))))
    by_number = sorted(names, key=lambda name: (len(name) > 7, name)) if numbers is None else names
    assert sorted(path.name for path in found.paths) == sorted(by_number)


def test_frames_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    found = frame_files(write(tmp_path, "frame_10.png", "2.png", "frame_9.png"))
    assert [path.name for path in found.paths] == ["2.png", "frame_9.png", "frame_10.png"]


@pytest.mark.parametrize(
    ("kept", "note"),
    [
        ([0, 1, 2, 4, 5], "number 0003 is missing among"),
        ([0, 1, 4, 5, 6], "numbers 0002 to 0003 are missing"),
        ([0, 2, 3, 6, 7, 8], "numbers 0001 and 0004 to 0005 are missing"),
        ([0, 2, 3, 5, 6, 8, 9], "numbers 0001, 0004 and 0007 are missing"),
        ([0, 5, 10, 15], "go in steps of 5"),
        ([0, 5, 15, 20], "number 0010 is missing"),
        ([7, 999], "go in steps of 992"),
        ([10, 500, 1733, 9000], "10 to 9000, do not count them"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, kept: list[int], note: str) -> None:
    notes = frame_files(write(tmp_path, *(f"f{number:04d}.png" for number in kept))).notes()
    assert note in notes[0]
    assert len(notes) == 1 + ("0010" in note)


def test_many_gaps_are_not_listed_one_by_one(tmp_path: Path) -> None:
    kept = [number for number in range(30) if number % 3]
    (note,) = frame_files(write(tmp_path, *(f"{number:03d}.png" for number in kept))).notes()
    assert note.startswith("numbers 003, 006, 009, 012, 015 and 4 more stretches are missing")


def test_time_goes_on_in_a_gap(root: Path) -> None:
    (root / "test/b/003.jpg").unlink()
    times = [frame.time for frame in frames(root, sampling=Sampling(fps=4.0))]
    assert times == [number / 4 for number in range(12) if number != 3]
    assert [frame.time for frame in frames(root)] == [None] * 11
    steps = frame_files(write(root / "steps", "f10.png", "f15.png", "f25.png"))
    assert list(steps.seconds(2.0)) == [0.0, 0.5, 1.5]
    stamps = frame_files(write(root / "stamps", "t10.png", "t500.png", "t1733.png", "t9001.png"))
    assert list(stamps.seconds(2.0)) == [0.0, 0.5, 1.0, 1.5]


def test_an_interval_of_missing_frames_alone_is_refused(root: Path) -> None:
    (root / "test/b/003.jpg").unlink()
    (root / "test/b/004.jpg").unlink()
    label(root, "b,3,4\n")
    assert "the interval 3 to 4 covers no frame" in refused(root)
    label(root, "b,3,5\n")
    assert abnormal(root) == ["005.jpg"]


def test_labels_of_frames_without_a_number_mean_their_order(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a", "0.png")
    write(tmp_path / "test" / "b", "12-00-01.png", "12-00-59.png", "12-01-00.png")
    label(tmp_path, "b,2,2\n")
    assert abnormal(tmp_path) == ["12-01-00.png"]
    assert "labels mean their order, from 0" in clip(tmp_path).notes[0]


def test_a_clip_of_one_frame_is_told(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a", "0.png")
    write_video(tmp_path / "test" / "b.avi", 1)
    found = {made.name: made for made in folder.scan(tmp_path).clips}
    for made in found.values():
        assert len(list(made.frames(Sampling()))) == 1
        assert made.notes == ["has 1 frame: nothing temporal can be measured"]


def test_natural_order_knows_ascii_digits_only() -> None:
    assert sorted(["a²", "a10", "a9", "²"], key=natural) == ["a9", "a10", "a²", "²"]


# Only some frames are taken.


def test_labels_masks_and_boxes_of_taken_frames(tmp_path: Path) -> None:
    folder_dataset(tmp_path)
    taken = frames(tmp_path, "b1", Sampling(every=3))
    assert [Path(frame.name).name for frame in taken] == numbered(1, 34)[::3]
    assert [frame.label for frame in taken] == [int(11 <= number <= 20) for number in range(1, 35, 3)]
    masks = np.stack([frame.mask for frame in taken])
    assert masks.any((1, 2)).tolist() == [11 <= number <= 20 for number in range(1, 35, 3)]
    video = frames(tmp_path, "b2", Sampling(every=4))
    assert [frame.label for frame in video] == [int(number != 5) for number in range(0, 33, 4)]
    assert [frame.name.rsplit("#")[1] for frame in video] == [str(number) for number in range(0, 33, 4)]
    cut = frames(tmp_path, "b1", Sampling(fps=10.0, start=0.95, end=1.25))
    assert [Path(frame.name).name for frame in cut] == ["011.png", "012.png", "013.png"]
    assert [frame.time for frame in cut] == pytest.approx([1.0, 1.1, 1.2])
    assert cut[0].boxes == [{"track": 0, "x_min": 4, "y_min": 8, "x_max": 12, "y_max": 16}]
    assert cut[1].boxes == []


def test_every_does_not_hide_labels_beyond_the_end(tmp_path: Path) -> None:
    folder_dataset(tmp_path)  # b2 has the frames 0 to 32
    label(tmp_path, "b2,31,32\n")
    assert abnormal(tmp_path, "b2", Sampling(every=10)) == []
    label(tmp_path, "b2,31,33\n")
    with pytest.raises(UserError, match=r"clip b2: the interval 31 to 33 leaves the clip, .* from 0 to 32"):
        frames(tmp_path, "b2", Sampling(every=10))
    # What `end` cuts away is not looked at.
    assert len(frames(tmp_path, "b2", Sampling(end=1.0))) == 10


def test_times_of_frames_need_a_rate(root: Path) -> None:
    for sampling in (Sampling(start=1.0), Sampling(end=1.0), Sampling(rate=2.0)):
        with pytest.raises(UserError, match=r"test/b: a folder of frames does not say how many there are a second"):
            frames(root, sampling=sampling)


def test_reading_twice_gives_the_same_and_tells_nothing_twice(root: Path) -> None:
    label(root, "b,4,7\n")
    track(root, f"b,0,4,0,0,{WIDTH + 1},5")
    found = clip(root)
    first, second = (list(found.frames(Sampling())) for _ in range(2))
    assert first == second
    assert found.notes == ["boxes cut at the edge of the picture, which they cross by one pixel: 1"]


# What a row of labels.csv says, and what none says.


def test_a_clip_without_a_row_is_unlabelled(root: Path) -> None:
    write(root / "test" / "c", *numbered(0, 4))
    write(root / "test" / "d", *numbered(0, 2))
    write(root / "test" / "e", *numbered(0, 2))
    label(root, "b,4,7\nc,,\n")
    labels = {found.name: {frame.label for frame in found.frames(Sampling())} for found in folder.scan(root).clips}
    assert labels == {"a": {0}, "b": {0, 1}, "c": {0}, "d": {None}, "e": {None}}
    told = [oddity for oddity in folder.scan(root).oddities if "labels.csv" in oddity]
    assert told == [
        "d, e have no row in labels.csv, so they are unlabelled; write `d,,` if it is normal throughout",
    ]


def test_without_the_file_all_are_unlabelled(root: Path) -> None:
    assert {frame.label for frame in frames(root)} == {None}
    assert "there is no labels.csv" in folder.scan(root).oddities[0]


def test_a_header_alone_labels_nothing(root: Path) -> None:
    label(root, "")
    assert {frame.label for frame in frames(root)} == {None}
    assert folder.scan(root).oddities[0].startswith("b has no row in labels.csv, so it is unlabelled; write `b,,`")


@pytest.mark.parametrize("rows", ["b,,\nb,4,7\n", "b,4,7\nb,,\n"])
def test_a_clip_is_not_both_normal_and_abnormal(root: Path, rows: str) -> None:
    label(root, rows)
    line = 2 + rows.splitlines().index("b,,")
    assert f"labels.csv, line {line}: this row calls b normal throughout" in refused(root)


@pytest.mark.parametrize("row", ["b,4,", "b,,7", "b,4.5,7", "b,4,99999999999999999999"])
def test_half_a_row_is_refused(root: Path, row: str) -> None:
    label(root, row)
    assert "labels.csv, line 2: " in refused(root)


def test_integral_floats_are_frame_numbers(root: Path) -> None:
    label(root, "b,4.0,7.0\n")
    assert abnormal(root) == numbered(4, 7, ".jpg")


def test_the_file_as_a_spreadsheet_saves_it(root: Path) -> None:
    text = "Clip;First;Last\r\nb;4;7\r\n;;\r\n"
    (root / "labels.csv").write_bytes(text.encode("utf-16"))
    assert abnormal(root) == numbered(4, 7, ".jpg")


def test_intervals() -> None:
    found = Intervals("here", [(8, 9), (2, 4), (5, 5)])
    assert [number for number in range(12) if number in found] == [2, 3, 4, 5, 8, 9]
    assert 3 not in Intervals("here")


# Names of clips.


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("gate-1_b", "gate-1_b"),
        ("cam 1.2", "cam_1_2"),
        ("Hof Süd (1)", "Hof_Sud_1"),
        ("Größe", "Grosse"),
        (unicodedata.normalize("NFD", "Süd"), "Sud"),
        ("_x", "x"),
        ("a__b", "a__b"),
        ("东门 3", "3"),
        ("2024-01-01T12:00:00+01:00", "2024-01-01T12_00_00_01_00"),
    ],
)
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize("name", ["东门", "...", "_", "x" * 201])
def test_names_of_which_nothing_can_be_made(name: str) -> None:
    with pytest.raises(UserError, match="cannot be written in 1 to 200 letters"):
        safe_name(name)


@pytest.mark.parametrize("spelt", ["Hof Süd 1.2.avi", "Hof Süd 1.2", "Hof_Sud_1_2", "Hof Su\u0308d 1.2"])
def test_tables_may_use_any_name_of_a_clip(root: Path, spelt: str) -> None:
    write_video(root / "test" / "Hof Süd 1.2.avi", 6)
    label(root, f"{spelt},2,3\n")
    track(root, f"{spelt},0,2,1,1,5,5")
    (root / "masks").mkdir()
    np.save(root / "masks" / f"{spelt}.npy", np.zeros((6, HEIGHT, WIDTH), np.uint8))
    found = frames(root, "Hof_Sud_1_2")
    assert [frame.label for frame in found] == [0, 0, 1, 1, 0, 0]
    assert [len(frame.boxes) for frame in found] == [0, 0, 1, 0, 0, 0]
    assert all(frame.mask is not None for frame in found)
    assert "names of clips in stores and tables: 'Hof Süd 1.2' is Hof_Sud_1_2" in folder.scan(root).oddities


def test_names_that_become_one_are_refused(root: Path) -> None:
    write(root / "test" / "cam 1", "0.png")
    write(root / "test" / "cam.1", "0.png")
    message = refused(root)
    assert "two clips of test are named 'cam_1' in the store" in message
    assert "cam 1" in message
    assert "cam.1" in message


def test_an_unknown_clip_names_the_nearest(root: Path) -> None:
    write(root / "test" / "gate north", "0.png")
    label(root, "gate nort,0,0\n")
    assert "labels.csv, line 2: there is no test clip 'gate nort'; did you mean 'gate north'?" in refused(root)


# Boxes.


def test_boxes_in_normal_frames_are_refused(root: Path) -> None:
    label(root, "b,4,7\n")
    track(root, "b,0,4,1,1,5,5", "b,0,3,1,1,5,5")
    message = refused(root)
    assert "tracks.csv, line 3: there is a box in frame 3, but " in message
    assert "labels.csv, clip b calls it normal" in message


def test_boxes_in_normal_frames_of_a_video_are_refused(tmp_path: Path) -> None:
    folder_dataset(tmp_path)
    track(tmp_path, "b2,0,5,1,1,5,5")
    with pytest.raises(
        UserError, match=r"tracks\.csv, line 2: there is a box in frame 5, but .* clip b2 calls it normal"
    ):
        frames(tmp_path, "b2")
    # The frame need not be taken.
    with pytest.raises(UserError, match=r"line 2: there is a box in frame 5"):
        frames(tmp_path, "b2", Sampling(every=2))


def test_boxes_of_unlabelled_clips_stay(root: Path) -> None:
    track(root, "b,7,3,1,2,5,6")
    assert frames(root)[3].boxes == [{"track": 7, "x_min": 1, "y_min": 2, "x_max": 5, "y_max": 6}]
    assert frames(root)[4].boxes == []


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ((0, 0, WIDTH, HEIGHT), (0, 0, WIDTH, HEIGHT)),
        ((-1, 3, 9, 9), (0, 3, 9, 9)),
        ((3, -1, 9, 9), (3, 0, 9, 9)),
        ((3, 3, WIDTH + 1, HEIGHT + 1), (3, 3, WIDTH, HEIGHT)),
    ],
)
@pytest.mark.parametrize("name", ["b", "v"])
def test_one_pixel_over_the_edge_is_cut(root: Path, name: str, box: tuple[int, ...], kept: tuple[int, ...]) -> None:
    write_video(root / "test" / "v.avi", 5)
    track(root, f"{name},0,2," + ",".join(map(str, box)))
    found = clip(root, name)
    boxes = list(found.frames(Sampling()))[2].boxes
    assert boxes == [dict(zip(("track", "x_min", "y_min", "x_max", "y_max"), (0, *kept), strict=True))]
    cut = ["boxes cut at the edge of the picture, which they cross by one pixel: 1"]
    assert found.notes == ([] if box == kept else cut)


@pytest.mark.parametrize(
    "box",
    [
        (-2, 3, 9, 9),
        (3, -2, 9, 9),
        (3, 3, WIDTH + 2, 9),
        (3, 3, 9, HEIGHT + 2),
        (WIDTH, 3, WIDTH + 1, 9),
        (-1, 3, 0, 9),
    ],
)
@pytest.mark.parametrize("name", ["b", "v"])
def test_boxes_off_the_picture_are_refused(root: Path, name: str, box: tuple[int, ...]) -> None:
    write_video(root / "test" / "v.avi", 5)
    track(root, f"{name},0,2," + ",".join(map(str, box)))
    message = refused(root, read_all)
    assert "tracks.csv, line 2: the box " in message
    assert "leaves the picture" in message
    assert f"({WIDTH}, {HEIGHT})" in message


def test_boxes_go_by_numbers(root: Path) -> None:
    (root / "test/b/003.jpg").unlink()
    track(root, "b,0,4,1,1,5,5")
    assert [Path(frame.name).name for frame in frames(root) if frame.boxes] == ["004.jpg"]
    track(root, "b,0,3,1,1,5,5")
    assert "tracks.csv, line 2: the clip has no frame 3" in refused(root)


def test_a_box_beyond_a_video_is_found_at_its_end(tmp_path: Path) -> None:
    folder_dataset(tmp_path)
    (tmp_path / "labels.csv").unlink()
    track(tmp_path, "b2,0,33,1,1,5,5")
    with pytest.raises(UserError, match=r"line 2: the clip has no frame 33; its frames go from 0 to 32"):
        frames(tmp_path, "b2")


def test_track_ids_fit_the_store(root: Path) -> None:
    track(root, f"b,{2**31},3,1,2,5,6")
    assert "the track 2147483648 is beyond 32 bits" in refused(root)


# Masks.


def write_masks(folder: Path, *names: str) -> None:
    """Write masks whose one abnormal pixel says which it is."""
    folder.mkdir(parents=True)
    for index, name in enumerate(names):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[0, index] = 255
        cv2.imwrite(str(folder / name), mask)


def test_masks_of_a_folder_go_by_numbers(root: Path) -> None:
    (root / "test/b/003.jpg").unlink()
    write_masks(root / "masks" / "b", *(f"mask{number}.png" for number in range(12) if number != 3))
    assert [Path(frame.mask).stem for frame in frames(root)] == [f"mask{n}" for n in range(12) if n != 3]
    (root / "masks/b/mask5.png").rename(root / "masks/b/mask3.png")
    assert "there is no mask for" in refused(root)
    assert "005.jpg" in refused(root)
    (root / "masks/b/mask5.png").write_bytes((root / "masks/b/mask3.png").read_bytes())
    assert "mask3.png: there is no frame of this number" in refused(root)


def test_masks_without_numbers_go_by_order(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a", "0.png")
    write(tmp_path / "test" / "b", "05.png", "07.png", "08.png")
    write_masks(tmp_path / "masks" / "b", "x.png", "y.png", "z.png")
    assert [Path(frame.mask).name for frame in frames(tmp_path)] == ["x.png", "y.png", "z.png"]
    (tmp_path / "masks/b/z.png").unlink()
    assert "holds 2 masks but the clip has 3 frames" in refused(tmp_path)


def test_masks_of_a_video_are_one_a_frame(tmp_path: Path) -> None:
    folder_dataset(tmp_path)
    masks = tmp_path / "masks" / "b2.npy"
    np.save(masks, np.zeros((34, HEIGHT, WIDTH), np.uint8))
    with pytest.raises(UserError, match=r"b2\.npy holds 34 masks but the clip has 33 frames"):
        frames(tmp_path, "b2")
    np.save(masks, np.zeros((32, HEIGHT, WIDTH), np.uint8))
    with pytest.raises(UserError, match=r"b2\.npy holds 32 masks but the clip has more frames"):
        frames(tmp_path, "b2")
    with pytest.raises(UserError, match=r"b2\.npy holds 32 masks but the clip has 33 frames"):
        frames(tmp_path, "b2", Sampling(every=3))
    assert len(frames(tmp_path, "b2", Sampling(end=3.2))) == 32


def test_two_masks_of_one_clip_are_refused(root: Path) -> None:
    write_masks(root / "masks" / "b", *numbered(0, 11))
    np.save(root / "masks" / "b.npy", np.zeros((12, HEIGHT, WIDTH), np.uint8))
    assert "are both masks of b" in refused(root)


# What lies in the way.


CLUTTER = [
    *("desktop.ini", "Desktop.ini", "Thumbs.db", "ehthumbs.db", ".DS_Store", "._000.png", ".hidden", "labels.csv~"),
    *(".~lock.labels.csv#", "~$labels.csv", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found"),
    *("System Volume Information", "Icon\r"),
]


def test_clutter_is_ignored_everywhere(root: Path) -> None:
    (root / "masks").mkdir()
    np.save(root / "masks" / "b.npy", np.zeros((12, HEIGHT, WIDTH), np.uint8))
    label(root, "b,4,7\n")
    before = folder.scan(root)
    for place in (root, root / "train", root / "test", root / "test/b", root / "train/a", root / "masks"):
        for name in CLUTTER:
            assert ignored(name)
            if "." in name or name.startswith("~"):
                (place / name).write_bytes(b"\0")
            else:
                (place / name).mkdir()
    after = folder.scan(root)
    assert [found.name for found in after.clips] == [found.name for found in before.clips]
    assert after.oddities == before.oddities
    assert len(frames(root)) == 12


@pytest.mark.parametrize("name", ["004.jpg.tmp", "004.part", "notes.txt", "more"])
def test_half_a_copy_or_something_else_among_frames_is_named(root: Path, name: str) -> None:
    (root / "test/b" / name).mkdir() if name == "more" else (root / "test/b" / name).write_bytes(b"x")
    assert f"{name} does not belong among the frames" in refused(root)


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def looping(path: Path) -> None:
    path.symlink_to(path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def plug(path: Path) -> None:
    # The path of a socket may have about 100 characters only.
    with socket.socket(socket.AF_UNIX) as made:
        before = Path.cwd()
        os.chdir(path.parent)
        made.bind(path.name)
        os.chdir(before)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


SPECIAL = {
    dangling: "which cannot be reached",
    looping: "is a link that leads back to itself",
    pipe: "is a named pipe",
    plug: "is a socket",
    device: "is a device",
}
PLACES = [
    *("labels.csv", "tracks.csv", "masks", "readme.txt", "train/c", "train/c.mp4", "test/c", "test/c.avi"),
    *("train/a/012.png", "test/b/012.jpg", "masks/b", "masks/b.npy", "masks/b/000.png"),
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("make", SPECIAL, ids=lambda make: make.__name__)
def test_links_and_special_files_are_named_wherever_they_lie(root: Path, make: Callable, place: str) -> None:
    (root / place).parent.mkdir(exist_ok=True, parents=True)
    make(root / place)
    message = refused(root)
    assert message.startswith(str(root / place))
    assert SPECIAL[make] in message


@pytest.mark.parametrize("make", SPECIAL, ids=lambda make: make.__name__)
def test_a_root_that_is_special_is_named(tmp_path: Path, make: Callable) -> None:
    make(tmp_path / "set")
    assert SPECIAL[make] in refused(tmp_path / "set")


def test_links_that_lead_somewhere_are_followed(root: Path) -> None:
    label(root, "b,4,7\n")
    (root / "labels.csv").rename(root.parent / f"{root.name}.csv")
    (root / "labels.csv").symlink_to(root.parent / f"{root.name}.csv")
    (root / "test/c").symlink_to(root / "test/b", target_is_directory=True)
    assert abnormal(root) == numbered(4, 7, ".jpg")
    assert len(frames(root, "c")) == 12


def test_a_name_that_is_no_text_is_shown(root: Path) -> None:
    (root / "test/b/000.jpg").rename(os.fsdecode(os.fsencode(root / "test/b") + b"/S\xfcd 000.jpg"))
    assert "test/b/S\\udcfcd 000.jpg': this name is no UTF-8" in refused(root)


@pytest.mark.parametrize("name", ["labels.csv", "tracks.csv"])
def test_a_folder_in_the_place_of_a_file(root: Path, name: str) -> None:
    (root / name).mkdir()
    assert f"{name} is a folder, but a file is wanted here" in refused(root)


@pytest.mark.parametrize("name", ["masks", "test"])
def test_a_file_in_the_place_of_a_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path / "train" / "a", "0.png")
    (tmp_path / name).write_bytes(b"x")
    assert f"{name} is a file, but a folder is wanted here" in refused(tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("labels.CSV", "labels.csv"),
        ("Labels.csv", "labels.csv"),
        ("labels.csv.txt", "labels.csv"),
        ("Tracks.csv.TXT", "tracks.csv"),
        ("Masks", "masks"),
    ],
)
def test_names_that_are_nearly_right(root: Path, name: str, meant: str) -> None:
    (root / name).write_text("clip,first,last\n")
    assert f"{name} is probably meant as {meant}; rename it" in refused(root)


@pytest.mark.parametrize("place", ["", "test", "train/a"])
def test_a_folder_that_may_not_be_listed(root: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = os.scandir

    def forbidden(path: Path) -> object:
        if Path(path) == root / place:
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    assert refused(root).startswith(f"{root / place} cannot be read: Permission denied")


def test_a_video_in_the_place_of_the_data_set(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", 3)
    for read in (folder.scan, ucsd.scan):
        message = refused(tmp_path / "clip.avi", read)
        assert "clip.avi is a video, but a folder is wanted here" in message
        assert "FOLDER/train" in message


def test_a_video_beside_the_layout(root: Path) -> None:
    write_video(root / "clip.avi", 3)
    assert "clip.avi does not belong to the layout" in refused(root)
    assert "move the video into train (normal) or test" in refused(root)


def test_more_kinds_of_files(root: Path) -> None:
    write(root / "test" / "w", "0.webp", "1.webp")
    assert [Path(frame.name).name for frame in frames(root, "w")] == ["0.webp", "1.webp"]
    (root / "test" / "t.ts").write_bytes(b"no video")
    assert "t.ts" in refused(root)
    assert "is neither a video" not in refused(root)


# What is the same, or other, in train and test.


def oddities(found: RawDataset) -> list[str]:
    return [oddity for oddity in found.oddities if "labels.csv" not in oddity]


def test_the_same_bytes_in_train_and_test_are_told(root: Path) -> None:
    write_video(root / "train" / "v.avi", 5)
    write_video(root / "test" / "w.avi", 5, speed=2)
    assert oddities(folder.scan(root)) == []
    (root / "test" / "x.avi").write_bytes((root / "train" / "v.avi").read_bytes())
    write(root / "test" / "y", *numbered(0, 11))
    assert oddities(folder.scan(root)) == [
        f"{root / 'train/a'} and {root / 'test/y'} hold the same bytes: the test judges what was learned",
        f"{root / 'train/v.avi'} and {root / 'test/x.avi'} hold the same bytes: the test judges what was learned",
    ]


def test_a_size_that_no_training_clip_has_is_told(root: Path) -> None:
    write(root / "test" / "large", "0.png", height=HEIGHT + 6)
    assert oddities(folder.scan(root)) == [
        f"no training clip has the frame size of {HEIGHT + 6}x{WIDTH} (large); those of training are {HEIGHT}x{WIDTH} "
        "(height x width)"
    ]


def test_the_rate_of_a_video_is_what_the_file_says(root: Path) -> None:
    write_video(root / "test" / "v.avi", 5)
    assert clip(root, "v").fps == pytest.approx(10.0)
    assert clip(root, "b").fps is None
    assert [frame.time for frame in frames(root, "v")] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


# UCSD counts from 1, in its files as in its labels.


def ucsd_clip(root: Path, name: str) -> RawClip:
    return next(found for found in ucsd.scan(root).clips if found.name == name)


def test_ucsd_with_a_gap(tmp_path: Path) -> None:
    root = ucsd_dataset(tmp_path / "ucsd")  # Test001 is abnormal in 3:6, Test003 in 1:2 and 4:6
    (root / "Test/Test003/003.tif").unlink()
    (root / "Train/Train001/001.tif").unlink()
    found = ucsd_clip(root, "Test003")
    assert [frame.label for frame in found.frames(Sampling())] == [1, 1, 1, 1, 1]
    assert "number 003 is missing" in found.notes[0]
    assert ucsd_clip(root, "Train001").notes == ["its frames begin with number 2, not 1 as in UCSD"]
    taken = list(ucsd_clip(root, "Test001").frames(Sampling(every=2)))
    assert [frame.label for frame in taken] == [0, 1, 1]
    assert [Path(frame.mask).name for frame in taken] == ["001.bmp", "003.bmp", "005.bmp"]
    (root / "Test/Test001/003.tif").unlink()
    assert "003.bmp: there is no frame of this number" in refused(root, ucsd.scan)


def test_ucsd_without_numbers(tmp_path: Path) -> None:
    root = ucsd_dataset(tmp_path / "ucsd")
    for path in (root / "Train/Train001").glob("*.tif"):
        path.rename(path.with_name(f"{'abcdefgh'[int(path.stem.strip('._')) - 1]}.tif"))
    assert "Train001/a.tif has no frame number in its name" in refused(root, ucsd.scan)


def cameras(root: Path) -> Path:
    """Two cameras whose clips have the same names."""
    for camera, length in (("gate", 6), ("yard 2", 5)):
        write_video(root / "train" / camera / "a.avi", length)
        write_video(root / "test" / camera / "a.avi", length)
        write_frames(root / "test" / camera / "b", length)
    (root / "labels.csv").write_text("clip,first,last\ngate/a,1,2\nyard 2/a,,\ngate/b,1,1\nyard_2_b,4,5\n")
    return root


def test_cameras_are_categories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = params.Ingest(**ingest_params(reader="folder", fps=10.0))
    ingest("cams", values, cameras(tmp_path / "raw"), Path("clips"), Path("labels"))
    clips, labels = (open_store(Path(kind), kind) for kind in ("clips", "labels"))
    assert clips.categories() == ["gate", "yard_2"]
    assert [clip.name for clip in clips.clips("train")] == ["gate_a", "yard_2_a"]
    found = {clip.name: clip.labels().tolist() for clip in labels.of("yard_2").clips("test")}
    assert found == {"yard_2_a": [0] * 5, "yard_2_b": [0, 0, 0, 1, 1]}
    assert {clip.name for clip in labels.of("gate").clips("test")} == {"gate_a", "gate_b"}


def test_a_clip_beside_cameras_is_refused(tmp_path: Path) -> None:
    write_video(cameras(tmp_path) / "test" / "c.avi", 5)
    with pytest.raises(UserError, match=r"c\.avi is a clip, but .*gate is the folder of a camera"):
        base.scan(tmp_path, "folder", None)


def test_cameras_in_one_split_alone_are_refused(tmp_path: Path) -> None:
    cameras(tmp_path)
    shutil.rmtree(tmp_path / "train")
    write_video(tmp_path / "train" / "a.avi", 5)
    with pytest.raises(UserError, match="one lies in the folder of a camera, the other does not"):
        base.scan(tmp_path, "folder", None)


def test_a_name_that_several_cameras_have_is_none(tmp_path: Path) -> None:
    (cameras(tmp_path) / "labels.csv").write_text("clip,first,last\na,1,2\n")
    with pytest.raises(UserError, match=r"there is no test clip 'a'"):
        base.scan(tmp_path, "folder", None)
