"""Reader `folder`: your own videos or folders of frames.

ROOT/train/CLIP.mp4 | CLIP.avi | ... or ROOT/train/CLIP/*.jpg | *.png | ...      normal clips
ROOT/test/...                                                                    clips to score
ROOT/labels.csv      `clip,first,last`: abnormal intervals of test clips, frames from 0, both ends included;
                     a test clip without a row is normal. Without the file the test clips have no labels.
ROOT/masks/CLIP.npy  optional: uint8 (T, H, W), above 0 = abnormal; or ROOT/masks/CLIP/*.png, one a frame
ROOT/tracks.csv      optional: `clip,track,frame,x_min,y_min,x_max,y_max` in pixels, x_max and y_max exclusive
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.datasets.base import RawClip, RawDataset, check_clips, entries, image_files, interval_labels
from vadpipe.errors import UserError
from vadpipe.store.clips import Frame

VIDEO_SUFFIXES = {".avi", ".mp4", ".mkv", ".mov", ".m4v", ".webm", ".mpg", ".mpeg"}
_LAYOUT = {"train", "test", "masks", "labels.csv", "tracks.csv"}
_TEXTS = {".txt", ".md"}

Intervals = dict[str, list[tuple[int, int]]]
Boxes = dict[str, dict[int, list[dict[str, int]]]]


def scan(root: Path) -> RawDataset:
    """Find the clips of a folder and check its labels, masks and tracks.

    Raises:
        UserError: something is missing, stray, or does not fit together.
    """
    for path in entries(root):
        if path.name not in _LAYOUT and path.suffix.lower() not in _TEXTS:
            raise UserError(f"{path} does not belong to the layout of `folder` ({', '.join(sorted(_LAYOUT))})")
    sources = {split: _sources(root / split) for split in ("train", "test")}
    tests = {_name(path) for path in sources["test"]}
    intervals = _intervals(root / "labels.csv", tests)
    boxes = _tracks(root / "tracks.csv", tests)
    masks = _masks(root / "masks", tests)
    clips = [RawClip("train", _name(path), partial(_train_frames, path)) for path in sources["train"]]
    for path in sources["test"]:
        name = _name(path)
        test = partial(_test_frames, path, root, intervals, masks.get(name), None if boxes is None else boxes[name])
        clips.append(RawClip("test", name, test))
    oddities = [] if intervals is not None else ["there is no labels.csv: clips are scored, but no AUC can be given"]
    return RawDataset(check_clips(root, clips), oddities)


def _name(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _sources(folder: Path) -> list[Path]:
    found = entries(folder)
    for path in found:
        if not path.is_dir() and path.suffix.lower() not in VIDEO_SUFFIXES:
            raise UserError(
                f"{path} is neither a video ({', '.join(sorted(VIDEO_SUFFIXES))}) nor a folder of frames; "
                "move it out of the layout"
            )
    return found


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row of a CSV stands, and the row."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        if reader.fieldnames != columns:
            raise UserError(f"{path}: the first line must be `{','.join(columns)}`, found {reader.fieldnames}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise UserError(f"{where}: expected {len(columns)} values: {','.join(columns)}")
            yield where, row


def _integers(where: str, row: dict[str, str], columns: list[str]) -> list[int]:
    try:
        return [int(row[column]) for column in columns]
    except ValueError:
        raise UserError(f"{where}: expected whole numbers for {', '.join(columns)}") from None


def _known(where: str, clip: str, tests: set[str]) -> str:
    if clip not in tests:
        raise UserError(f"{where}: there is no test clip '{clip}'; the test clips are {', '.join(sorted(tests))}")
    return clip


def _intervals(path: Path, tests: set[str]) -> Intervals | None:
    if not path.exists():
        return None
    found: Intervals = defaultdict(list)
    for where, row in _rows(path, ["clip", "first", "last"]):
        first, last = _integers(where, row, ["first", "last"])
        found[_known(where, row["clip"], tests)].append((first, last))
    return found


def _tracks(path: Path, tests: set[str]) -> Boxes | None:
    if not path.exists():
        return None
    sides = ["x_min", "y_min", "x_max", "y_max"]
    found: Boxes = defaultdict(lambda: defaultdict(list))
    for where, row in _rows(path, ["clip", "track", "frame", *sides]):
        track, frame, *box = _integers(where, row, ["track", "frame", *sides])
        if box[0] >= box[2] or box[1] >= box[3]:
            raise UserError(f"{where}: the box {box} is empty or inverted; x_min < x_max and y_min < y_max")
        values = {"track": track, **dict(zip(sides, box, strict=True))}
        found[_known(where, row["clip"], tests)][frame].append(values)
    return found


def _masks(folder: Path, tests: set[str]) -> dict[str, Path]:
    if not folder.exists():
        return {}
    found = {}
    for path in entries(folder):
        if not path.is_dir() and path.suffix != ".npy":
            raise UserError(f"{path} is neither CLIP.npy nor a folder of masks; move it out of the layout")
        found[_known(str(path), _name(path), tests)] = path
    return found


def _train_frames(path: Path) -> Iterator[Frame]:
    for name, image in _images(path):
        yield Frame(name, image, label=0)


def _test_frames(
    path: Path,
    root: Path,
    intervals: Intervals | None,
    masks: Path | None,
    boxes: dict[int, list[dict[str, int]]] | None,
) -> Iterator[Frame]:
    length = len(image_files(path)) if path.is_dir() else _count_frames(path)
    labels: npt.NDArray[np.int8] | None = None
    if intervals is not None:
        where = f"{root / 'labels.csv'}, clip {_name(path)}"
        labels = interval_labels(where, length, intervals.get(_name(path), []), origin=0)
    beyond = [frame for frame in boxes or {} if not 0 <= frame < length]
    if beyond:
        raise UserError(
            f"{root / 'tracks.csv'}: clip {_name(path)} has no frame {beyond[0]}; its frames go from 0 to {length - 1}"
        )
    for index, ((name, image), mask) in enumerate(zip(_images(path), _open_masks(masks, length), strict=False)):
        label = None if labels is None else int(labels[index])
        yield Frame(name, image, mask, label, None if boxes is None else boxes.get(index, []))


def _images(path: Path) -> Iterator[tuple[str, Path | npt.NDArray[np.uint8]]]:
    """Yield the name of each frame and its file or pixels, uint8 (H, W, 3) RGB."""
    if path.is_dir():
        for file in image_files(path):
            yield str(file), file
        return
    video = _open_video(path)
    promised = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    count = 0
    while True:
        there, frame = video.read()
        if not there:
            break
        yield f"{path}#{count}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)  # type: ignore[misc]
        count += 1
    if count < promised:
        raise UserError(
            f"{path}: the header promises {promised} frames but only {count} can be read; "
            "the video is cut off or damaged, encode it anew"
        )


def _open_video(path: Path) -> cv2.VideoCapture:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise UserError(f"{path} cannot be read as a video; encode it anew or give a folder of frames")
    return video


def _count_frames(path: Path) -> int:
    """Count the frames of a video by reading them: headers lie."""
    video = _open_video(path)
    count = 0
    while video.grab():
        count += 1
    return count


def _open_masks(path: Path | None, length: int) -> Iterator[Path | npt.NDArray[np.uint8] | None]:
    if path is None:
        yield from repeat(None, length)
        return
    if path.is_dir():
        files: list[Path] = image_files(path)
        count = len(files)
    else:
        try:
            volume = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise UserError(f"{path} is no whole .npy file: {error}") from None
        if volume.ndim != 3:
            raise UserError(f"{path} has the shape {volume.shape}; expected (frames, height, width)")
        count = len(volume)
    if count != length:
        raise UserError(f"{path} holds {count} masks but the clip has {length} frames; give one mask a frame")
    for index in range(length):
        yield files[index] if path.is_dir() else np.asarray(volume[index] > 0, np.uint8)
