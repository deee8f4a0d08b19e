"""What is known of the frames of a clip: abnormal intervals, masks and boxes, looked up as the frames come."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vadpipe.datasets.files import FrameFiles, frame_files
from vadpipe.errors import UserError
from vadpipe.store import images
from vadpipe.store.frames import Frame
from vadpipe.store.image_files import header_size
from vadpipe.store.sampling import Sampling
from vadpipe.stretches import stretches

# A mask by the position of its frame: a file, or numbers (H, W) or (H, W, C).
Masks = Sequence[Path] | Sequence[npt.NDArray[Any]] | npt.NDArray[Any]


class Intervals:
    """The abnormal frames of a clip as intervals of frame numbers, both ends included; none: a normal clip."""

    def __init__(self, where: str, intervals: Iterable[tuple[int, int]] = ()) -> None:
        """Take the intervals that stand at `where` (for messages), in any order.

        Raises:
            UserError: an interval is reversed or overlaps another one.
        """
        self.where = where
        self.intervals = sorted(intervals)
        self._firsts = [first for first, _ in self.intervals]
        for first, last in self.intervals:
            if last < first:
                raise UserError(f"{where}: the interval {first} to {last} ends before it begins; swap the numbers")
        for (_, before), (first, last) in pairwise(self.intervals):
            if first <= before:
                raise UserError(f"{where}: the interval {first} to {last} overlaps another one; join them")

    @classmethod
    def of(cls, where: str, flags: Sequence[bool] | npt.NDArray[Any]) -> Intervals:
        """Return the stretches of true flags, one a frame, as intervals of positions from 0."""
        return cls(where, [(first, end - 1) for first, end in stretches(np.asarray(flags, np.bool_))])

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._firsts, number) - 1
        return index >= 0 and number <= self.intervals[index][1]

    def check(self, numbers: Sequence[int]) -> None:
        """Check the intervals against the numbers, ascending, of all frames of their clip.

        Raises:
            UserError: an interval leaves the clip, or lies wholly among missing numbers.
        """
        for first, last in self.intervals:
            if first < numbers[0] or last > numbers[-1]:
                raise UserError(
                    f"{self.where}: the interval {first} to {last} leaves the clip, whose frames go from {numbers[0]} "
                    f"to {numbers[-1]}; correct the interval or add the missing frames"
                )
            if not _any_within(numbers, first, last):
                raise UserError(
                    f"{self.where}: the interval {first} to {last} covers no frame, since the names of the frames "
                    "leave these numbers out; correct the interval or add the missing frames"
                )


NORMAL = Intervals("the training split")


def _any_within(numbers: Sequence[int], first: int, last: int) -> bool:
    return bisect_left(numbers, first) < bisect_right(numbers, last)


class Box(NamedTuple):
    """An abnormal box, pixels from 0, x_max and y_max exclusive."""

    track: int
    x_min: int
    y_min: int
    x_max: int
    y_max: int

    def within(self, height: int, width: int) -> Box | None:
        """Return the box cut to a picture, or None if it lies off it by more than a pixel.

        One pixel beyond an edge is what tools write that round, or that count pixels in another way.
        """
        if min(self.x_min, self.y_min) < -1 or self.x_max > width + 1 or self.y_max > height + 1:
            return None
        x_min, y_min = max(self.x_min, 0), max(self.y_min, 0)
        x_max, y_max = min(self.x_max, width), min(self.y_max, height)
        return Box(self.track, x_min, y_min, x_max, y_max) if x_min < x_max and y_min < y_max else None


class Track(NamedTuple):
    """A box, and where it stands, for messages."""

    where: str
    box: Box


@dataclass
class Known:
    """What is known of a clip.

    Attributes:
        labels: None where the clip is unlabelled.
        boxes: by the number of their frame; None where the data set has none.
        masks: by the position of their frame in the source; None where the clip has none.
        masks_at: where the masks lie, for messages.
    """

    labels: Intervals | None
    boxes: Mapping[int, list[Track]] | None = None
    masks: Masks | None = None
    masks_at: Path | None = None
    _cut: int = field(default=0, init=False)

    def begin(self) -> None:
        """Forget what was done in an earlier reading of the clip."""
        self._cut = 0

    def tell(self, notes: list[str], others: Iterable[str] = ()) -> None:
        """Add to `notes` the others and what was done, but nothing twice."""
        told = list(others)
        if self._cut:
            told.append(f"boxes cut at the edge of the picture, which they cross by one pixel: {self._cut}")
        notes += [note for note in told if note not in notes]

    def check(self, numbers: Sequence[int]) -> None:
        """Check what is known against the numbers, ascending, of all frames of the clip.

        Raises:
            UserError: an interval or a box leaves the clip, a box lies in a frame that the labels call normal, or the
                masks are more or fewer than the frames.
        """
        if self.labels is not None:
            self.labels.check(numbers)
        for number, tracks in (self.boxes or {}).items():
            if not _any_within(numbers, number, number):
                raise UserError(
                    f"{tracks[0].where}: the clip has no frame {number}; its frames go from {numbers[0]} to "
                    f"{numbers[-1]}; correct the row"
                )
            self._check_label(number, tracks)
        if self.masks is not None and len(self.masks) != len(numbers):
            raise UserError(
                f"{self.masks_at} holds {len(self.masks)} masks but the clip has {len(numbers)} frames; "
                "give one mask a frame"
            )

    def _check_label(self, number: int, tracks: list[Track]) -> None:
        if self.labels is not None and number not in self.labels and tracks:
            raise UserError(
                f"{tracks[0].where}: there is a box in frame {number}, but {self.labels.where} calls it normal; "
                "extend the interval or remove the box"
            )

    def complete(self, frame: Frame, position: int, number: int) -> Frame:
        """Return a frame with its label, mask and boxes.

        Raises:
            UserError: a box lies off the picture, or in a frame that the labels call normal; masks are too few.
        """
        tracks = (self.boxes or {}).get(number, [])
        self._check_label(number, tracks)
        label = None if self.labels is None else int(number in self.labels)
        boxes = None if self.boxes is None else self._fitted(frame, tracks)
        return replace(frame, mask=self._mask(position), label=label, boxes=boxes)

    def _mask(self, position: int) -> Path | npt.NDArray[Any] | None:
        if self.masks is None:
            return None
        if position >= len(self.masks):
            raise UserError(
                f"{self.masks_at} holds {len(self.masks)} masks but the clip has more frames; give one mask a frame"
            )
        return self.masks[position]

    def _fitted(self, frame: Frame, tracks: list[Track]) -> list[dict[str, int]]:
        if not tracks:
            return []
        height, width = frame.image.shape[:2] if not isinstance(frame.image, Path) else image_size(frame.image)[:2]
        boxes = []
        for where, box in tracks:
            within = box.within(height, width)
            if within is None:
                raise UserError(
                    f"{where}: the box ({box.x_min}, {box.y_min}) to ({box.x_max}, {box.y_max}) leaves the picture "
                    f"{frame.name}, whose edges are (0, 0) and ({width}, {height}); correct it"
                )
            self._cut += within != box
            boxes.append(within._asdict())
        return boxes


def image_size(path: Path) -> images.Size:
    """Return the size of an image file by its header.

    Raises:
        UserError: it is no image.
    """
    try:
        return header_size(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}; replace the file or remove it") from None


def paired_masks(files: FrameFiles, masks: Path) -> list[Path]:
    """Return the masks of a folder in the order of the frames: by number where both carry numbers, else as they lie.

    Raises:
        UserError: as `frame_files`; a frame has no mask, or a mask no frame.
    """
    found = frame_files(masks)
    if not (files.digits and found.digits):
        return found.paths
    by_number = dict(zip(found.numbers, found.paths, strict=True))
    for number, path in zip(files.numbers, files.paths, strict=True):
        if number not in by_number:
            raise UserError(
                f"{masks}: there is no mask for {path}, none has the number {number}; give one mask a frame"
            )
    for number in sorted(by_number.keys() - set(files.numbers)):
        raise UserError(f"{by_number[number]}: there is no frame of this number; give one mask a frame")
    return found.paths


def folder_frames(files: FrameFiles, known: Known, notes: list[str], sampling: Sampling) -> Iterator[Frame]:
    """Yield the frames that are taken of a folder.

    Raises:
        UserError: a box lies off its picture, or times are asked of frames without a rate.
    """
    known.begin()
    timed = sampling.fps is not None
    if not timed and sampling != Sampling(every=sampling.every):
        raise UserError(
            f"{files.paths[0].parent}: a folder of frames does not say how many there are a second, so it has no times "
            "to take frames by; give its fps"
        )
    timed_files = zip(files.seconds(sampling.fps or 1.0), range(len(files.paths)), strict=True)
    for time, position in replace(sampling, fps=None).take(timed_files):
        path = files.paths[position]
        yield known.complete(Frame(str(path), path, time=time if timed else None), position, files.numbers[position])
    known.tell(notes)
