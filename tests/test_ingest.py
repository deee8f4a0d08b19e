"""Readers and the clip store: what goes in comes out, and nothing wrong goes in."""

from __future__ import annotations

import errno
import json
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages import ingest
from tests.conftest import (
    HEIGHT,
    WIDTH,
    draw,
    ingest_params,
    run_stage,
    tiny_params,
    ucsd_dataset,
    write_frames,
    write_params,
    write_video,
)
from vadpipe import params, paths
from vadpipe.datasets import base
from vadpipe.errors import UserError
from vadpipe.store import atomic, images, open_clips, open_store
from vadpipe.store.sampling import Sampling

RAW = Path("data/raw/tiny")
OUT = Path("data/clips/tiny")
LABELS = Path("data/labels/tiny")


def by_name() -> dict:
    return {clip.name: clip for clip in open_clips(OUT)}


def truths() -> dict:
    return {clip.name: clip for clip in open_store(LABELS, "labels").all_clips()}


def test_bytes_of_jpeg_and_png_are_taken_over(tiny: Path) -> None:
    ingest.main("tiny")
    clips = by_name()
    for name, folder in (("a1", "train/a1"), ("b1", "test/b1")):
        files = sorted((RAW / folder).iterdir())
        stored = [data for group in clips[name].encoded() for data in group]
        assert stored == [file.read_bytes() for file in files]
        assert clips[name].column("name") == [str(file) for file in files]


def test_video_frames_labels_masks_and_boxes(tiny: Path) -> None:
    ingest.main("tiny")
    clips, known = by_name(), truths()
    lengths = {"a1": 40, "a2": 36, "b1": 34, "b2": 33, "b3": 12}
    assert {name: clip.length for name, clip in clips.items()} == lengths
    assert {name: clip.length for name, clip in known.items()} == lengths
    labels = known["b1"].labels()
    assert labels.nonzero()[0].tolist() == list(range(10, 20))
    assert known["b2"].labels().nonzero()[0].tolist() == [*range(5), *range(6, 33)]
    assert not known["b3"].labels().any()
    assert not known["a1"].labels().any()
    masks = [images.decode_grey(data) for data in known["b1"].column("mask")]
    assert [bool(mask.any()) for mask in masks] == labels.astype(bool).tolist()
    assert set(known["b2"].column("mask")) == {None}
    box = {"track": 0, "x_min": 4, "y_min": 8, "x_max": 12, "y_max": 16}
    assert known["b1"].column("boxes")[10:12] == [[box], []]
    decoded = np.concatenate(list(clips["a2"].chunks()))
    assert decoded.shape == (36, HEIGHT, WIDTH, 3)
    # MJPG loses a little; the store (PNG) nothing more. RGB: the square is yellow.
    assert np.abs(decoded[3].astype(int) - draw(3)[..., ::-1]).mean() < 12
    assert decoded[3, 12, 7].tolist() != draw(3)[12, 7].tolist()
    info = clips["a2"].info
    assert (info["kind"], info["height"], info["width"], info["channels"], info["fps"]) == ("clips", 24, 36, 3, 10.0)
    assert known["a2"].info == {**info, "kind": "labels"}


def test_row_groups_bound_memory(tiny: Path) -> None:
    ingest.main("tiny")
    assert [len(group) for group in by_name()["a1"].encoded()] == [32, 8]


def test_frame_gives_one_frame_of_any_row_group(tiny: Path) -> None:
    ingest.main("tiny")
    clip = by_name()["a1"]
    frames = np.concatenate(list(clip.chunks()))
    for index in (0, 31, 32, 39):
        assert (clip.frame(index) == frames[index]).all()


def test_ucsd_with_its_traps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = ucsd_dataset(tmp_path / "raw")
    from vadpipe.prepare.ingest import ingest as run

    run("ped", params.Ingest(**ingest_params(reader="ucsd")), root, OUT, LABELS)
    clips, known = by_name(), truths()
    assert sorted(clips) == ["Test001", "Test002", "Test003", "Train001", "Train002"]
    assert known["Test001"].labels().tolist() == [0, 0, 1, 1, 1, 1]  # not the [1:1] of the .m~
    assert known["Test003"].labels().tolist() == [1, 1, 0, 1, 1, 1]
    for name in ("Test001", "Test002"):
        masks = [images.decode_grey(data) for data in known[name].column("mask")]
        assert [bool(mask.any()) for mask in masks] == [False, False, True, True, True, True]
        assert set(np.unique(masks)) == {0, 255}
    assert set(known["Test003"].column("mask")) == {None}
    frames = np.concatenate(list(clips["Train001"].chunks()))
    assert (frames[2] == draw(2)[..., ::-1]).all()  # TIFF to PNG: exact
    # The files do not say how many frames there are in a second; the sets are taken to have ten.
    assert clips["Train001"].info["fps"] == 10.0
    assert truths()["Train001"].column("time") == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])


def test_grey_and_rgba(tiny: Path) -> None:
    folder = RAW / "train" / "a3"
    folder.mkdir()
    grey = draw(0)[..., 1]
    cv2.imwrite(str(folder / "1.png"), np.dstack([draw(0), np.full((HEIGHT, WIDTH), 9, np.uint8)]))
    cv2.imwrite(str(folder / "2.png"), grey)
    ingest.main("tiny")
    frames = np.concatenate(list(by_name()["a3"].chunks()))
    assert (frames[0] == draw(0)[..., ::-1]).all()
    assert (frames[1] == grey[..., None]).all()


def test_frames_sort_by_number(tiny: Path) -> None:
    folder = RAW / "train" / "a4"
    folder.mkdir()
    for index in (1, 2, 10):
        cv2.imwrite(str(folder / f"f{index}.png"), draw(index))
    ingest.main("tiny")
    assert [Path(name).name for name in by_name()["a4"].column("name")] == ["f1.png", "f2.png", "f10.png"]


# Each case: what is done to the data set, and what the message must name.


def truncate_jpeg() -> None:
    file = RAW / "train/a1/005.jpg"
    file.write_bytes(file.read_bytes()[:-400])


def truncate_png() -> None:
    file = RAW / "test/b1/005.png"
    file.write_bytes(file.read_bytes()[:-30])


def damage_png() -> None:
    file = RAW / "test/b1/006.png"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(bytes(data))


def no_image() -> None:
    (RAW / "train/a1/006.jpg").write_text("hello")


def empty_image() -> None:
    (RAW / "train/a1/006.jpg").write_bytes(b"")


def text_among_frames() -> None:
    (RAW / "train/a1/notes.txt").write_text("hello")


def empty_clip() -> None:
    (RAW / "test/b9").mkdir()


def unreadable_video() -> None:
    (RAW / "test/b9.avi").write_bytes(b"RIFF nothing")


def cut_video() -> None:
    file = RAW / "train/a2.avi"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def size_changes() -> None:
    cv2.imwrite(str(RAW / "train/a1/007.jpg"), draw(0, height=30))


def label_past_the_end() -> None:
    (RAW / "labels.csv").write_text("clip,first,last\nb1,30,35\n")


def labels_overlap() -> None:
    (RAW / "labels.csv").write_text("clip,first,last\nb1,10,19\nb1,19,22\n")


def label_reversed() -> None:
    (RAW / "labels.csv").write_text("clip,first,last\nb1,19,10\n")


def label_of_unknown_clip() -> None:
    (RAW / "labels.csv").write_text("clip,first,last\nb7,10,19\n")


def label_of_train_clip() -> None:
    (RAW / "labels.csv").write_text("clip,first,last\na1,10,19\n")


def label_no_number() -> None:
    (RAW / "labels.csv").write_text("clip,first,last\nb1,10,x\n")


def label_columns() -> None:
    (RAW / "labels.csv").write_text("clip,start,end\nb1,10,19\n")


def label_short_row() -> None:
    (RAW / "labels.csv").write_text("clip,first,last\nb1,10\n")


def mask_of_another_size() -> None:
    np.save(RAW / "masks/b1.npy", np.zeros((34, HEIGHT, WIDTH + 1), np.uint8))


def mask_count() -> None:
    np.save(RAW / "masks/b1.npy", np.zeros((33, HEIGHT, WIDTH), np.uint8))


def mask_where_normal() -> None:
    np.save(RAW / "masks/b1.npy", np.ones((34, HEIGHT, WIDTH), np.uint8))


def mask_cut_off() -> None:
    file = RAW / "masks/b1.npy"
    file.write_bytes(file.read_bytes()[:1000])


def mask_of_unknown_clip() -> None:
    (RAW / "masks/b1.npy").rename(RAW / "masks/b8.npy")


def two_clips_of_one_name() -> None:
    write_video(RAW / "train/a1.avi", 4)


def stray_file() -> None:
    (RAW / "stray.bin").write_bytes(b"x")


def stray_among_clips() -> None:
    (RAW / "train/notes.docx").write_bytes(b"x")


def no_test() -> None:
    (RAW / "test").rename(RAW.parent / "elsewhere")


def empty_train() -> None:
    (RAW / "train").rename(RAW.parent / "elsewhere")
    (RAW / "train").mkdir()


def track_past_the_end() -> None:
    (RAW / "tracks.csv").write_text("clip,track,frame,x_min,y_min,x_max,y_max\nb1,0,99,4,8,12,16\n")


def track_inverted() -> None:
    (RAW / "tracks.csv").write_text("clip,track,frame,x_min,y_min,x_max,y_max\nb1,0,9,14,8,12,16\n")


BAD = {
    truncate_jpeg: "005.jpg",
    truncate_png: "005.png",
    damage_png: "006.png",
    no_image: "006.jpg",
    empty_image: "006.jpg",
    text_among_frames: "notes.txt",
    empty_clip: "b9",
    unreadable_video: "b9.avi",
    cut_video: "a2.avi",
    size_changes: "007.jpg is 30x36 pixels",
    label_past_the_end: "clip b1: the interval 30 to 35",
    labels_overlap: "clip b1: the interval 19 to 22 overlaps",
    label_reversed: "19 to 10",
    label_of_unknown_clip: "labels.csv, line 2: there is no test clip 'b7'",
    label_of_train_clip: "labels.csv, line 2: there is no test clip 'a1'",
    label_no_number: "labels.csv, line 2",
    label_columns: "clip,first,last",
    label_short_row: "labels.csv, line 2",
    mask_of_another_size: "b1",
    mask_count: "33 masks but the clip has 34 frames",
    mask_where_normal: "call data/raw/tiny/test/b1/001.png normal",
    mask_cut_off: "b1.npy",
    mask_of_unknown_clip: "b8",
    two_clips_of_one_name: "two clips of train are named 'a1'",
    stray_file: "stray.bin",
    stray_among_clips: "notes.docx",
    no_test: "test is not there",
    empty_train: "no clips for 'train'",
    track_past_the_end: "no frame 99",
    track_inverted: "tracks.csv, line 2",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_bad_input_is_named_and_nothing_is_written(tiny: Path, spoil) -> None:
    spoil()
    with pytest.raises(UserError) as error:
        ingest.main("tiny")
    assert BAD[spoil] in str(error.value)
    for out in (OUT, LABELS):
        assert not out.exists()
        assert list(out.parent.glob("*")) == list(out.parent.glob(".*")) == []


def test_a_mistake_ends_in_one_line_and_exit_code_2(tiny: Path) -> None:
    size_changes()
    done = run_stage("ingest", "tiny")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("error: ")] == done.stderr.splitlines()[-1:]


def ucsd_mask_missing(root: Path) -> None:
    (root / "Test/Test002_gt/frame004.bmp").unlink()


def ucsd_interval_missing(root: Path) -> None:
    (root / "Test/UCSDped2.m").write_text("TestVideoFile{end+1}.gt_frame = [3:6];\n")


def ucsd_interval_past_the_end(root: Path) -> None:
    text = (root / "Test/UCSDped2.m").read_text()
    (root / "Test/UCSDped2.m").write_text(text.replace("4:6", "4:7"))


def ucsd_no_intervals(root: Path) -> None:
    (root / "Test/UCSDped2.m").unlink()


def ucsd_stray(root: Path) -> None:
    write_frames(root / "Test" / "Test4", 2)


def ucsd_masks_without_clip(root: Path) -> None:
    (root / "Test/Test001_gt").rename(root / "Test/Test009_gt")


UCSD_BAD = {
    ucsd_mask_missing: "no mask for",
    ucsd_interval_missing: "intervals for 1 clips, but there are 3 test clips",
    ucsd_interval_past_the_end: "UCSDped2.m, line 4: the interval 4 to 7",
    ucsd_no_intervals: "found 0",
    ucsd_stray: "Test4",
    ucsd_masks_without_clip: "Test009_gt",
}


@pytest.mark.parametrize("spoil", UCSD_BAD, ids=lambda spoil: spoil.__name__)
def test_bad_ucsd_is_named(tmp_path: Path, spoil) -> None:
    from vadpipe.datasets.ucsd import scan

    root = ucsd_dataset(tmp_path / "raw")
    spoil(root)
    with pytest.raises(UserError) as error:
        scan(root)
    assert UCSD_BAD[spoil] in str(error.value)


def test_a_killed_ingest_leaves_nothing_and_runs_again(tiny: Path) -> None:
    for index in range(3, 30):
        write_frames(RAW / "train" / f"a{index}", 40)
    code = f"import sys; sys.argv = ['ingest', 'tiny']; sys.path.insert(0, '{Path(ingest.__file__).parent.parent}'); "
    code += "import vadpipe.prepare.ingest as i, time; w = i.write_clip; "
    code += "i.write_clip = lambda *a, **k: (time.sleep(0.3), w(*a, **k))[1]; "
    code += "from stages import ingest; ingest.main('tiny')"
    process = subprocess.Popen([sys.executable, "-c", code])
    partial = OUT.with_name(f".tiny.{process.pid}.partial")
    deadline = time.monotonic() + 30
    while not list(partial.glob("train/*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert partial.exists()
    assert not OUT.exists()
    assert not LABELS.exists()
    ingest.main("tiny")
    for out in (OUT, LABELS):
        assert [path.name for path in out.parent.iterdir()] == ["tiny"]
    assert len(by_name()) == len(truths()) == 32


def limited(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_no_space_is_one_line(tiny: Path) -> None:
    """A real limit of the kernel: files may not grow past 20 kB."""
    script = Path(ingest.__file__)
    done = subprocess.run(
        [sys.executable, str(script), "tiny"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: limited(20_000),
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write data/clips/tiny" in done.stderr
    assert "Traceback" not in done.stderr
    for out in (OUT, LABELS):
        assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_every_refusal_of_the_disk_names_the_output(tmp_path: Path, code: int) -> None:
    target = tmp_path / "out.json"
    with pytest.raises(UserError, match=r"cannot write .*out\.json"), atomic.replacing(target) as beside:
        beside.write_text("half")
        raise OSError(code, "refused")
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_one_line(tiny: Path) -> None:
    # Not even root may write below /proc or /sys.
    Path("data/clips").symlink_to("/sys/kernel")
    done = run_stage("ingest", "tiny")
    assert done.returncode == 2, done.stderr
    assert "cannot write data/clips/tiny" in done.stderr
    assert "Traceback" not in done.stderr


def test_replacing_keeps_the_old_output_when_it_fails(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(RuntimeError), atomic.replacing(target, folder=True) as beside:
        (beside / "new").touch()
        raise RuntimeError
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_damaged_store_is_named(tiny: Path) -> None:
    ingest.main("tiny")
    file = OUT / "test" / "b1.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"b1\.parquet is not what was written"):
        open_clips(OUT)


def test_check_reports_what_it_found(tiny: Path) -> None:
    from vadpipe.prepare.inspect import inspect

    values = params.load().ingest["tiny"]
    report = inspect(values, base.scan(paths.raw("tiny"), values.reader, values.objects, values.labels), "ingest.tiny")
    assert (report.ordered, report.shortest, report.longest_side) == (True, 12, WIDTH)
    text = "\n".join(report.lines)
    assert "train: 2 clips, 76 frames (36 to 40 a clip), 24x36 colour (2 clips)" in text
    assert "test: 3 clips, 79 frames" in text
    assert "labels: 42 of 79 test frames are abnormal" in text
    assert "masks: 34 frames; boxes: 1 frames" in text
    assert "oddity: b3 is normal in every frame" in text


def test_without_labels(tiny: Path) -> None:
    (RAW / "labels.csv").unlink()
    (RAW / "masks/b1.npy").unlink()
    ingest.main("tiny")
    assert truths()["b1"].labels() is None
    assert json.dumps(by_name()["b1"].info)


def test_unknown_reader_names_the_nearest(tiny: Path) -> None:
    tree = tiny_params()
    tree["ingest"]["tiny"] = ingest_params(reader="foldr", fps=1.0)
    write_params(tree)
    with pytest.raises(UserError, match="did you mean 'folder'"):
        ingest.main("tiny")


@pytest.mark.parametrize("promised", [10, 90])
def test_a_clip_has_the_frames_that_decode_whatever_its_header_promises(tiny: Path, promised: int) -> None:
    file = RAW / "train/a2.avi"
    data = bytearray(file.read_bytes())
    # dwTotalFrames of the main header, then that of the stream
    for chunk, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
        at = data.index(chunk) + offset
        data[at : at + 4] = promised.to_bytes(4, "little")
    file.write_bytes(bytes(data))
    assert cv2.VideoCapture(str(file)).get(cv2.CAP_PROP_FRAME_COUNT) == promised
    clip = next(clip for clip in base.get("folder")(RAW).clips if clip.name == "a2")
    assert len(list(clip.frames(Sampling()))) == 36
    assert clip.notes == [f"the header speaks of {promised} frames, 36 are there"]
    ingest.main("tiny")
    assert by_name()["a2"].length == 36


def with_ingest(**changes: object) -> None:
    tree = tiny_params()
    tree["ingest"]["tiny"] |= changes
    write_params(tree)


def test_fewer_frames_keep_their_labels_masks_boxes_and_times(tiny: Path) -> None:
    with_ingest(every=3, start=0.2)
    ingest.main("tiny")
    clips, known = by_name(), truths()
    # Files 003, 006, ...: times 0.2, 0.5, ...; abnormal are 011 to 020.
    assert [Path(name).stem for name in clips["b1"].column("name")] == [f"{n:03d}" for n in range(3, 35, 3)]
    assert known["b1"].column("time") == pytest.approx([0.2 + 0.3 * k for k in range(11)])
    assert known["b1"].labels().tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]
    masks = [images.decode_grey(data).any() for data in known["b1"].column("mask")]
    assert masks == [bool(label) for label in known["b1"].labels()]
    assert clips["a2"].info["fps"] == pytest.approx(10 / 3)
    assert [name.partition("#")[2] for name in clips["a2"].column("name")] == [str(n) for n in range(2, 36, 3)]


def test_a_rate_takes_frames_at_regular_times(tiny: Path) -> None:
    with_ingest(rate=4.0)
    ingest.main("tiny")
    clips, known = by_name(), truths()
    assert clips["b2"].info["fps"] == 4.0
    assert known["b2"].column("time") == pytest.approx([k / 4 for k in range(14)])
    # A frame stands until the next one comes: those of 0, 0.25, 0.5, ... are 0, 2, 5, 7, ...
    assert [int(name.partition("#")[2]) for name in clips["b2"].column("name")][:5] == [0, 2, 5, 7, 10]
    assert known["b2"].labels()[:4].tolist() == [1, 1, 0, 1]  # abnormal but for frame 5


def test_smaller_frames_have_smaller_masks_and_boxes(tiny: Path) -> None:
    with_ingest(side=18)
    ingest.main("tiny")
    clips, known = by_name(), truths()
    assert {(clip.info["height"], clip.info["width"]) for clip in clips.values()} == {(12, 18)}
    mask = images.decode_grey(known["b1"].column("mask")[10]) > 0
    expected = np.zeros((12, 18), bool)
    expected[4:8, 2:6] = True
    assert (mask == expected).all()
    assert known["b1"].column("boxes")[10] == [{"track": 0, "x_min": 2, "y_min": 4, "x_max": 6, "y_max": 8}]


def test_frames_of_16_bit_are_scaled_by_the_range_of_training(tiny: Path) -> None:
    rng = np.random.default_rng(0)
    for split, name in (("train", "t"), ("test", "s")):
        folder = RAW / split / name
        folder.mkdir()
        for index in range(4):
            counts = rng.integers(7200, 7261, (HEIGHT, WIDTH)).astype(np.uint16)
            counts[0, :2] = 7200, 7260
            if split == "test" and index == 2:
                counts[8:16, 8:16] = 7400
            cv2.imwrite(str(folder / f"{index}.png"), counts)
    for name in ("train/a1", "train/a2.avi", "test/b1", "test/b2.avi", "test/b3"):
        path = RAW / name
        path.rename(path.parents[1].with_name(f"gone_{path.name}"))
    for name in ("labels.csv", "tracks.csv", "masks/b1.npy"):
        (RAW / name).unlink()
    ingest.main("tiny")
    clip = by_name()["s"]
    assert clip.info["counts"] == [7200, 7260]
    frames = np.concatenate(list(clip.chunks(grey=True)))
    assert (frames[2, 8:16, 8:16] == 255).all()
    assert (frames[0].min(), frames[0].max()) == (64, 191)


def test_other_depths_in_training_and_test_are_refused(tiny: Path) -> None:
    cv2.imwrite(str(RAW / "test/b3/005.jpg").replace(".jpg", ".png"), np.full((HEIGHT, WIDTH), 9000, np.uint16))
    (RAW / "test/b3/005.jpg").unlink()
    with pytest.raises(UserError, match=r"005\.png has 16 bit, but the training clips begin with frames of 8"):
        ingest.main("tiny")
