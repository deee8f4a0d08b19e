"""What a reader gives, how one is found by name, and what readers share."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

import vadpipe.datasets
from vadpipe.errors import UserError, did_you_mean
from vadpipe.store.clips import Frame

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
CLIP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class RawClip:
    """A clip as it lies on disk.

    Attributes:
        split: `train` or `test`.
        frames: opens the clip and yields its frames in order.
    """

    split: str
    name: str
    frames: Callable[[], Iterator[Frame]]


@dataclass(frozen=True)
class RawDataset:
    """What a reader found: the layout is checked, no frame is decoded yet.

    Attributes:
        oddities: things that are no error but that the user should know.
        ordered: whether the frames of a clip follow each other in time; False for loose images.
    """

    clips: list[RawClip]
    oddities: list[str] = field(default_factory=list)
    ordered: bool = True


Reader = Callable[[Path], RawDataset]


def names() -> list[str]:
    """Return the names of all readers."""
    return sorted(m.name for m in pkgutil.iter_modules(vadpipe.datasets.__path__) if m.name != "base")


def get(name: str) -> Reader:
    """Return a reader: the function `scan(folder)` of `vadpipe/datasets/NAME.py`.

    Raises:
        UserError: there is no such reader.
    """
    if name not in names():
        raise UserError(f"there is no reader '{name}'{did_you_mean(name, names())}")
    return cast(Reader, importlib.import_module(f"vadpipe.datasets.{name}").scan)


def check_clips(root: Path, clips: list[RawClip]) -> list[RawClip]:
    """Return the clips sorted by split and name.

    Raises:
        UserError: a split is empty, two clips share a name, or a name could leave the folder.
    """
    seen: set[tuple[str, str]] = set()
    for clip in clips:
        if not CLIP_NAME.fullmatch(clip.name):
            raise UserError(
                f"{root}: the clip name '{clip.name}' is refused; use letters, digits, _ and -, no dots or slashes"
            )
        if (clip.split, clip.name) in seen:
            raise UserError(
                f"{root}: two clips of {clip.split} are named '{clip.name}' (a folder and a video, or two videos); "
                "rename one"
            )
        seen.add((clip.split, clip.name))
    for split in ("train", "test"):
        if not any(clip.split == split for clip in clips):
            raise UserError(f"{root}: there are no clips for '{split}'; a data set needs clips of both splits")
    return sorted(clips, key=lambda clip: (clip.split, natural(clip.name)))


def entries(folder: Path) -> list[Path]:
    """Return what a folder holds in natural order, without hidden files and editor back-ups (`*~`).

    Raises:
        UserError: the folder is not there.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not there; see the layouts in the README (`vadpipe data add --help`)")
    return sorted(
        (path for path in folder.iterdir() if not ignored(path.name)),
        key=lambda path: natural(path.name),
    )


def ignored(name: str) -> bool:
    """Say whether a file is none of the data set's: hidden, an editor's back-up, or Windows' thumbnails."""
    return name.startswith(".") or name.endswith("~") or name == "Thumbs.db"


def image_files(folder: Path) -> list[Path]:
    """Return the frames of a folder in natural order.

    Raises:
        UserError: there is none, something else lies among them, or two frames have one number.
    """
    files = entries(folder)
    for path in files:
        if path.is_dir() or path.suffix.lower() not in IMAGE_SUFFIXES:
            raise UserError(f"{path} does not belong among the frames of a clip; move it out of the folder")
    if not files:
        raise UserError(f"{folder} holds no frames; remove the folder or add its frames")
    return files


def number(path: Path) -> int | None:
    """Return the last number in a file's name (`frame007.bmp` -> 7), or None."""
    digits = re.findall(r"\d+", path.stem)
    return int(digits[-1]) if digits else None


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key under which `clip10` comes after `clip9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


def interval_labels(where: str, length: int, intervals: Iterable[tuple[int, int]], origin: int) -> npt.NDArray[np.int8]:
    """Return int8 (length,) labels from intervals.

    Args:
        where: how to name the place of the labels in messages.
        intervals: first and last abnormal frame, both included.
        origin: the number of the first frame, 0 or 1.

    Raises:
        UserError: an interval is reversed, overlaps another or ends past the clip.
    """
    labels = np.zeros(length, np.int8)
    for first, last in intervals:
        if last < first:
            raise UserError(f"{where}: the interval {first} to {last} ends before it begins; swap the numbers")
        if first < origin or last - origin >= length:
            raise UserError(
                f"{where}: the interval {first} to {last} leaves the clip, whose frames go from {origin} to "
                f"{origin + length - 1}; correct the interval or add the missing frames"
            )
        if labels[first - origin : last - origin + 1].any():
            raise UserError(f"{where}: the interval {first} to {last} overlaps another one; join them")
        labels[first - origin : last - origin + 1] = 1
    return labels
