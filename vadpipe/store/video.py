"""Videos as they are: every frame that decodes, at its time, and a sentence where something is damaged or odd.

What ffmpeg hides is brought to light: it conceals damage and goes on, and so do the readers built on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from vadpipe.errors import UserError
from vadpipe.files import reading
from vadpipe.parallel import cores
from vadpipe.store import interlaced
from vadpipe.store.decoding import DamageError, opened, whole_frames
from vadpipe.store.sampling import Sampling
from vadpipe.store.stamps import Stamps

VIDEO_SUFFIXES = {
    *(".3gp", ".asf", ".avi", ".flv", ".h264", ".hevc", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
}

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
# Seconds, and a decoded frame with its number.
Timed = tuple[float, tuple[int, av.VideoFrame]]
# What is done to a picture to show it: (rows become columns, mirrored left to right, mirrored top to bottom).
Turn = tuple[bool, bool, bool]

_MOST_THREADS = 16  # each holds a frame
_WITH_DURATION = {"matroska,webm", "flv", "asf"}
_LOOKED_AT = 10  # frames, to find out whether a clip is interlaced
_TURNS = {
    (False, True, True): "turned by 180 degrees",
    (True, True, False): "turned by 90 degrees clockwise",
    (True, False, True): "turned by 90 degrees anticlockwise",
    (False, True, False): "mirrored left to right",
    (False, False, True): "mirrored top to bottom",
    (True, False, False): "turned by 90 degrees and mirrored",
    (True, True, True): "turned by 90 degrees and mirrored",
}


@dataclass(frozen=True)
class VideoFrame:
    """A frame of a video.

    Attributes:
        index: its number among the decoded frames, from 0.
        time: seconds from the first shown frame; with a `rate`, those at which it was taken.
        pixels: uint8 (H, W, 3) RGB, or uint16 (H, W) counts where the stream is grey of more than 8 bits.
    """

    index: int
    time: float
    pixels: Pixels


class Video:
    """A video file.

    Attributes:
        height: pixels, as a player shows it: turned if a tag says so; pixels that are not square are left as they are.
        width: the same.
        fps: average frame rate of the header, or None; once `frames` was read, what was measured where that differs.
        codec: `h264`, `mjpeg`, ...
        duration: seconds as the header says, or None.
        count: frames, once all were decoded, whether taken or not; else None.
        notes: oddities in plain words; complete once `frames` was read to its end.
    """

    def __init__(self, path: Path, workers: int | None = None) -> None:
        """Open a file: read its header and decode its first frame.

        Args:
            path: a regular file.
            workers: decoding threads, None = all cores.

        Raises:
            UserError: it is no video, or no frame can be decoded.
        """
        self.path = path
        self.count: int | None = None
        self.notes: list[str] = []
        self._workers = min(workers or cores(), _MOST_THREADS)
        self._coded: tuple[int, int] | None = None  # height and width before the turn
        _check_file(path)
        with opened(path, 1, self._note) as (container, stream):
            rate = stream.average_rate or stream.guessed_rate
            self.fps = float(rate) if rate else None
            self.codec = stream.codec_context.codec.canonical_name
            self.duration = _duration(container, stream)
            self._counted = stream.frames  # 0 if the header does not count them
            self._promised = self._counted or _frames_by_duration(container, self.fps)
            self._tick = stream.time_base or Fraction(1, 1000)
            aspect = stream.sample_aspect_ratio
        first = next(self._timed(Stamps(self._tick, self.fps), Sampling()), None)
        if first is None:
            raise UserError(f"{path} holds no frame that can be decoded; copy it again or encode it anew")
        height, width = first[1][1].height, first[1][1].width
        self._turn = _turn(first[1][1])
        self.height, self.width = (width, height) if self._turn[0] else (height, width)
        if any(self._turn):
            self._note(f"a tag has its pictures {_TURNS[self._turn]}; they are read as a player shows them")
        if aspect not in (None, 0, 1):
            self._note(
                f"its pixels are not square ({aspect.numerator}:{aspect.denominator}); they are left as they are"
            )
        self._opening_notes = tuple(self.notes)

    def frames(self, sampling: Sampling = Sampling()) -> Iterator[VideoFrame]:  # noqa: B008
        """Decode the video and yield the frames that `sampling` takes; memory does not grow with the length.

        Raises:
            UserError: something up to `sampling.end` cannot be decoded, or the size of the image changes.
        """
        self.count = None
        self.notes = list(self._opening_notes)
        reformatter = VideoReformatter()
        taken: VideoFrame | None = None
        stamps = Stamps(self._tick, self.fps)
        for time, (index, frame) in sampling.take(self._progressive(self._timed(stamps, sampling))):
            if taken is not None and taken.index == index:
                taken = replace(taken, time=time)
            else:
                taken = VideoFrame(index, time, _pixels(frame, reformatter, self._turn))
            yield taken
        self.notes += stamps.notes(resampled=sampling.rate is not None)
        self.fps = stamps.fps()

    def _timed(self, stamps: Stamps, sampling: Sampling) -> Iterator[Timed]:
        """Yield every frame with its time and number."""
        try:
            for frame in whole_frames(self.path, self._workers, self._note):
                index, time = stamps.count, stamps.next(frame.pts)
                if sampling.fps is not None:
                    time = index / sampling.fps
                self._check_size(frame, index, time)
                yield time, (index, frame)
        except DamageError as damage:
            ahead = stamps.count / sampling.fps if sampling.fps is not None else stamps.ahead
            if sampling.past_end(ahead):
                return
            # Rounded down: with this `end`, the next reading must not ask for the frame that is damaged.
            rest = f", or use what comes before with `end: {int(ahead * 1000) / 1000}`" if stamps.count else ""
            raise UserError(
                f"{self._where(stamps.count, ahead)} and what follows cannot be decoded: {damage}; the file is damaged "
                f"or cut off, copy it again or encode it anew{rest}"
            ) from None
        self.count = stamps.count
        self._note_promise(stamps)

    def _note_promise(self, stamps: Stamps) -> None:
        """Tell where the header promises another number of frames, by a count or, rounded, by a duration."""
        difference = abs(self._promised - stamps.count)
        if self._promised and difference and (self._counted or (difference > 1 and not stamps.variable())):
            self._note(f"the header speaks of {self._promised} frames, {stamps.count} are there")

    def _progressive(self, timed: Iterator[Timed]) -> Iterator[Timed]:
        """Yield the frames deinterlaced, if they are interlaced."""
        head = list(islice(timed, _LOOKED_AT))
        flagged = 2 * sum(frame.interlaced_frame for _, (_, frame) in head) > len(head)
        together = flagged and interlaced.belongs_together([frame for _, (_, frame) in head])
        everything = chain(head, timed)
        del head  # or its frames would be held to the end
        if not flagged or together:
            if together:
                self._note("it is flagged as interlaced but is progressive; it is read as it is")
            yield from everything
            return
        self._note("it is interlaced; each frame is deinterlaced (bwdif)")
        numbered = (((time, index), frame) for time, (index, frame) in everything)
        for (time, index), frame in interlaced.deinterlaced(numbered, self._workers):
            yield time, (index, frame)

    def _check_size(self, frame: av.VideoFrame, index: int, time: float) -> None:
        size = (frame.height, frame.width)
        if self._coded is None:
            self._coded = size
        elif size != self._coded:
            raise UserError(
                f"{self._where(index, time)} is {size[0]}x{size[1]} pixels (height x width), the video began with "
                f"{self._coded[0]}x{self._coded[1]}; a clip has one size, split it or encode it anew"
            )

    def _where(self, index: int, time: float) -> str:
        tenths = int(time * 10 + 0.001)
        minutes, tenths = divmod(tenths, 600)
        return f"{self.path}: frame {index} ({minutes // 60}:{minutes % 60:02d}:{tenths / 10:04.1f})"

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _check_file(path: Path) -> None:
    """Refuse what would hang (a pipe, a device) or cannot be a video, before anything is opened."""
    with reading(path):
        size = path.stat().st_size
    if not size:
        raise UserError(f"{path} is empty; copy or record it again")


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else None


def _frames_by_duration(container: InputContainer, fps: float | None) -> int:
    """Return how many frames a header speaks of that gives the duration only; 0 if it says nothing."""
    silent = container.format.name not in _WITH_DURATION or len(container.streams) > 1  # sound may be longer
    if silent or not container.duration or fps is None:
        return 0
    return round((container.duration - (container.start_time or 0)) / 1e6 * fps)


def _turn(frame: av.VideoFrame) -> Turn:
    """Return how a frame is to be turned; av_display_rotation_get and av_display_matrix_flip describe the matrix."""
    matrix = cast(Mapping[str, Any], frame.side_data).get("DISPLAYMATRIX")
    if matrix is None:
        return (False, False, False)
    (a, b, _), (c, d, _), _ = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3).tolist()
    # A point (x, y) is shown at (a x + c y, b x + d y).
    return (True, c < 0, b < 0) if abs(b) > abs(a) else (False, a < 0, d < 0)


def _pixels(frame: av.VideoFrame, reformatter: VideoReformatter, turn: Turn) -> Pixels:
    components = frame.format.components
    if len(components) == 1 and 8 < components[0].bits <= 16:
        pixels = cast(Pixels, frame.to_ndarray().copy())  # not a view of what the decoder may still refer to
    else:
        # By the matrix and range that the frame is tagged with; without a tag as ITU-R BT.601, limited.
        pixels = cast(Pixels, reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray())
    transposed, left_right, top_bottom = turn
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    if left_right:
        pixels = pixels[:, ::-1]
    if top_bottom:
        pixels = pixels[::-1]
    return cast(Pixels, np.ascontiguousarray(pixels))
