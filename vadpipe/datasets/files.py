"""What lies in the folders of a data set: clutter left out, links and special files checked, frames numbered."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from vadpipe import files
from vadpipe.errors import UserError
from vadpipe.files import KINDS, kind, reading
from vadpipe.store.video import VIDEO_SUFFIXES

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
TEXT_SUFFIXES = {".txt", ".md", ".pdf"}  # a word about the data, which may lie beside them
# What file systems, their servers and archives leave behind, in lower case.
_CLUTTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "#recycle", "@recycle"}
_CLUTTER |= {"$recycle.bin", "system volume information", "lost+found"}
ONE_FRAME = "has 1 frame: nothing temporal can be measured"
_TOLD = 5  # gaps that are named one by one


def ignored(name: str) -> bool:
    """Say whether a file is none of the data set's: hidden, an editor's back-up or lock, or a file system's clutter.

    Half-written files (`*.tmp`, `*.part`) are not ignored: a copy that did not end must not pass unseen.
    """
    return name.startswith((".", "~$")) or name.endswith("~") or name.lower() in _CLUTTER


def entries(folder: Path) -> list[Path]:
    """Return the files and folders that a folder holds, in natural order, without what is `ignored`.

    Raises:
        UserError: the folder is not there, no folder, or unreadable; a link dangles; a special file lies in it.
    """
    check_folder(folder)
    try:
        with os.scandir(folder) as found:
            kept = [entry for entry in found if not ignored(entry.name)]
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror}; change its permissions") from None
    for entry in kept:
        if not entry.name.isascii():
            _check_text(folder / entry.name)
        if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
            _check_ordinary(folder / entry.name)
    return sorted((folder / entry.name for entry in kept), key=lambda path: natural(path.name))


def _check_text(path: Path) -> None:
    """Check that a name is text: neither a table nor a store could hold another one."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{str(path)!a}: this name is no UTF-8, as of an old archive; rename it") from None


def layout(root: Path, reader: str, folders: set[str], files: set[str]) -> dict[str, Path]:
    """Return what lies in a folder of fixed names, by name; texts about the data may lie beside it.

    Raises:
        UserError: as `entries`; something else lies there, or a file lies where a folder belongs, or the reverse.
    """
    found = {}
    for path in entries(root):
        if path.name in folders:
            check_folder(path)
        elif path.name in files:
            with reading(path):
                pass
        else:
            _check_stray(path, reader, folders | files)
            continue
        found[path.name] = path
    return found


def _check_stray(path: Path, reader: str, known: set[str]) -> None:
    meant = {name.lower(): name for name in known}.get(path.name.lower().removesuffix(".txt"))
    if meant:
        raise UserError(f"{path} is probably meant as {meant}; rename it to exactly that")
    if path.suffix.lower() not in TEXT_SUFFIXES or path.is_dir():
        video = path.suffix.lower() in VIDEO_SUFFIXES and {"train", "test"} <= known
        way_out = "move the video into train (normal) or test" if video else "move it elsewhere"
        raise UserError(f"{path} does not belong to the layout of {reader} ({', '.join(sorted(known))}); {way_out}")


def check_folder(path: Path) -> None:
    """Check that a path leads to a folder.

    Raises:
        UserError: it is not there, a link dangles, or it is something else.
    """
    if kind(path) == stat.S_IFREG and path.suffix.lower() in VIDEO_SUFFIXES:
        raise UserError(
            f"{path} is a video, but a folder is wanted here: put normal videos into FOLDER/train, those to be judged "
            "into FOLDER/test, and give FOLDER with the reader `folder`"
        )
    files.check_folder(path)


def _check_ordinary(path: Path) -> None:
    """Refuse what is neither a file nor a folder, and a link that leads to neither."""
    found = kind(path)
    if found not in {stat.S_IFREG, stat.S_IFDIR}:
        what = KINDS.get(found, "no file")
        raise UserError(f"{path} is {what}, from which no data can be read; remove it from the data set")


def natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key under which `clip10` comes after `clip9`."""
    return [(int(part), "") if index % 2 else (-1, part) for index, part in enumerate(_parts(name)) if part]


def _parts(name: str) -> list[str]:
    """Return a name split into text, digits, text, ..., text."""
    return re.split(r"([0-9]+)", name)


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder in natural order.

    Raises:
        UserError: as `entries`; there is none, or something else lies among them.
    """
    found = entries(folder)
    for path in found:
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.is_dir():
            raise UserError(f"{path} does not belong among the frames of a clip; move it out of the folder")
    if not found:
        raise UserError(f"{folder} holds no frames; remove the folder or add its frames")
    return found


@dataclass(frozen=True)
class FrameFiles:
    """The frames of a folder in order.

    Attributes:
        paths: their files.
        numbers: by which labels mean them, ascending: the numbers in the names, or the positions from 0.
        digits: how many digits these numbers have in the names at least; 0 where the names carry none.
    """

    paths: list[Path]
    numbers: list[int]
    digits: int

    @cached_property
    def step(self) -> int:
        """The common step of the numbers: 5 for frames 0, 5, 15."""
        return math.gcd(*(after - before for before, after in pairwise(self.numbers))) or 1

    @cached_property
    def gaps(self) -> list[tuple[int, int]]:
        """The first and last number of each stretch that is missing."""
        step = self.step
        return [(before + step, after - step) for before, after in pairwise(self.numbers) if after - before > step]

    @cached_property
    def missing(self) -> int:
        """How many numbers are missing."""
        return sum((last - first) // self.step + 1 for first, last in self.gaps)

    @property
    def counting(self) -> bool:
        """Whether the numbers count frames; those of time stamps leave out more than they hold."""
        return self.missing <= len(self.numbers)

    def seconds(self, fps: float) -> Iterator[float]:
        """Yield the time of each frame from the first, at `fps` frames a second; a gap takes its time too."""
        for position, number in enumerate(self.numbers):
            yield ((number - self.numbers[0]) // self.step if self.counting else position) / fps

    def notes(self) -> list[str]:
        """Return what is odd about the numbers and their count."""
        notes = []
        if not self.counting:
            notes.append(
                f"the numbers in the names of its frames, {self.numbers[0]} to {self.numbers[-1]}, do not count them: "
                "labels mean these numbers, time goes by the order of the frames"
            )
        elif self.gaps:
            gaps = [self._gap(first, last) for first, last in self.gaps]
            what = f"number {gaps[0]} is" if self.missing == 1 else f"numbers {_listed(gaps)} are"
            notes.append(f"{what} missing among its frames; labels mean the numbers in the names")
        if self.step > 1:
            notes.append(f"the numbers in the names of its frames go in steps of {self.step}")
        if len(self.paths) == 1:
            notes.append(ONE_FRAME)
        return notes

    def _gap(self, first: int, last: int) -> str:
        return f"{first:0{self.digits}d}" + ("" if first == last else f" to {last:0{self.digits}d}")


def _listed(parts: list[str]) -> str:
    if len(parts) > _TOLD:
        return f"{', '.join(parts[:_TOLD])} and {len(parts) - _TOLD} more stretches"
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


def frame_files(folder: Path) -> FrameFiles:
    """Return the frames of a folder, in the order of the numbers in their names.

    Raises:
        UserError: as `image_files`; two frames have one number.
    """
    paths = image_files(folder)
    digits = _digits([path.stem for path in paths])
    numbers = None if digits is None else [int(text) for text in digits]
    keys = [natural(path.stem) for path in paths] if numbers is None else numbers
    order = sorted(range(len(paths)), key=keys.__getitem__)
    for one, other in pairwise(order):
        if keys[one] == keys[other]:
            by = "name" if numbers is None else f"number, {numbers[one]}"
            raise UserError(
                f"{paths[one]} and {paths[other]} have one {by}, so they would be the same frame; remove one, or give "
                "each frame of the clip a number of its own"
            )
    paths = [paths[index] for index in order]
    if numbers is None or digits is None:
        return FrameFiles(paths, list(range(len(paths))), 0)
    return FrameFiles(paths, sorted(numbers), min(map(len, digits)))


def _digits(stems: list[str]) -> list[str] | None:
    """Return the digits of the number that each name carries, or None where they carry none, or several that vary.

    In names of one form it is the number that varies (`007` in `cam2_007_640x480`), in others the last one.
    """
    parts = [_parts(stem) for stem in stems]
    if not all(name[1::2] for name in parts):
        return None
    last = [name[-2] for name in parts]
    if len({tuple(name[::2]) for name in parts}) > 1:
        return last
    varying = [column for column in zip(*(name[1::2] for name in parts), strict=True) if len(set(map(int, column))) > 1]
    if len(varying) > 1:
        return None
    return list(varying[0]) if varying else last
