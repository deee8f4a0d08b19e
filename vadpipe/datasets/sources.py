"""Clips on disk, each a video or a folder of frames: what the readers of footage share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vadpipe.datasets.base import RawClip, safe_name
from vadpipe.datasets.files import ONE_FRAME, FrameFiles, entries, frame_files
from vadpipe.datasets.labels import Intervals, Known, folder_frames, image_size
from vadpipe.errors import UserError
from vadpipe.store.frames import Frame
from vadpipe.store.sampling import Sampling
from vadpipe.store.video import VIDEO_SUFFIXES, Video


@dataclass(frozen=True)
class Source:
    """A clip: a video, or a folder of frames.

    Attributes:
        name: in the store.
        files: the frames of a folder.
        fps: frames a second as the header of the video says.
        expected: frames as the header of the video promises, or files there are.
        size: height and width by the header of the video or of the first frame, pixels.
        camera: that took it, where clips lie in a folder a camera.
    """

    path: Path
    name: str
    files: FrameFiles | None
    fps: float | None
    expected: int | None
    size: tuple[int, int]
    camera: str | None = None

    @property
    def plain(self) -> str:
        """Return the name without the extension of a video, `CAMERA/CLIP` where there are cameras."""
        name = self.path.stem if self.files is None else self.path.name
        return name if self.camera is None else f"{self.path.parent.name}/{name}"


def sources(folder: Path) -> list[Source]:
    """Return the clips of a folder, in natural order.

    Raises:
        UserError: something else lies there, a clip cannot be read, or two have one name in the store.
    """
    found: dict[str, Source] = {}
    for path in entries(folder):
        one = source(path)
        other = found.setdefault(one.name, one)
        if other is not one:
            raise UserError(
                f"{folder.parent}: two clips of {folder.name} are named '{one.name}' in the store, "
                f"{other.path.name} and {path.name}; rename one"
            )
    return list(found.values())


def source(path: Path) -> Source:
    """Return the clip at a path.

    Raises:
        UserError: it is neither a video nor a folder of frames, or its header cannot be read.
    """
    if path.is_dir():
        files = frame_files(path)
        size = image_size(files.paths[0])
        return Source(path, _named(path, path.name), files, None, len(files.paths), (size.height, size.width))
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        raise UserError(
            f"{path} is neither a video ({', '.join(sorted(VIDEO_SUFFIXES))}) nor a folder of frames; "
            "move it out of the layout"
        )
    video = Video(path)
    expected = round(video.duration * video.fps) if video.duration and video.fps else None
    return Source(path, _named(path, path.stem), None, video.fps, expected, (video.height, video.width))


def _named(path: Path, name: str) -> str:
    try:
        return safe_name(name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def numbered(intervals: Intervals, clip: Source) -> Intervals:
    """Return intervals of positions, from 0, as those of the numbers by which a folder calls its frames.

    Raises:
        UserError: they go beyond the frames of the folder.
    """
    if clip.files is None:
        return intervals
    numbers = clip.files.numbers
    if intervals.intervals and intervals.intervals[-1][1] >= len(numbers):
        raise UserError(
            f"{intervals.where}: frame {intervals.intervals[-1][1]}, counted from 0, is abnormal, "
            f"but {clip.path} holds {len(numbers)} frames; add those that are missing"
        )
    return Intervals(intervals.where, [(numbers[first], numbers[last]) for first, last in intervals.intervals])


def raw_clip(split: str, clip: Source, known: Known | Callable[[], Known], fps: float | None = None) -> RawClip:
    """Return a clip with what is known of it.

    Args:
        known: or what reads it, when the clip is read: of a benchmark, whose masks are large.
        fps: frames a second of a folder of frames, where the data set is known to have so many.

    Raises:
        UserError: what is known does not fit the frames of a folder.
    """
    notes: list[str] = []
    if clip.files is not None:
        notes += clip.files.notes()
        if isinstance(known, Known):
            known.check(clip.files.numbers)
            if not clip.files.digits and (known.boxes or (known.labels and known.labels.intervals)):
                notes.append("the names of its frames carry no number of their own; labels mean their order, from 0")
    frames = partial(_frames, clip, known, notes, fps)
    rate = fps if clip.fps is None else clip.fps
    categories = () if clip.camera is None else (clip.camera,)
    return RawClip(split, clip.name, frames, rate, clip.expected, categories, notes=notes)


def _frames(
    clip: Source, known: Known | Callable[[], Known], notes: list[str], fps: float | None, sampling: Sampling
) -> Iterator[Frame]:
    if not isinstance(known, Known):
        known = known()
        if clip.files is not None:
            known.check(clip.files.numbers)
    if clip.files is None:
        yield from _video_frames(clip.path, known, notes, sampling)
    else:
        yield from folder_frames(clip.files, known, notes, replace(sampling, fps=sampling.fps or fps))


def _video_frames(path: Path, known: Known, notes: list[str], sampling: Sampling) -> Iterator[Frame]:
    """Yield the frames that are taken of a video; what is known is checked against its length once it is read."""
    video = Video(path)
    known.begin()
    for frame in video.frames(sampling):
        yield known.complete(Frame(f"{path}#{frame.index}", frame.pixels, time=frame.time), frame.index, frame.index)
    if video.count:
        known.check(range(video.count))
        notes += [ONE_FRAME] if video.count == 1 and ONE_FRAME not in notes else []
    known.tell(notes, video.notes)


def refuse_sampling(where: Path, sampling: Sampling) -> None:
    """Refuse to take some of loose images.

    Raises:
        UserError: frames are to be taken by their number or time.
    """
    if sampling != Sampling(fps=sampling.fps):
        raise UserError(f"{where} holds images without order and time; take all of them (every: 1)")
