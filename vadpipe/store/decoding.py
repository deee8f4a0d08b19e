"""What ffmpeg decodes of a video file, up to the first damage, which it would conceal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from vadpipe.errors import UserError, no_memory

_IDR = 5  # type of a unit of H.264 with an instantaneous decoding refresh

Note = Callable[[str], None]  # takes an oddity in plain words


class DamageError(Exception):
    """What ffmpeg says about a place that it cannot decode."""


@contextmanager
def opened(path: Path, threads: int, note: Note) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a regular file and choose its video.

    Raises:
        UserError: there is no video in it.
    """
    if av.logging.get_level() is None:
        av.logging.set_level(av.logging.PANIC)  # nothing is printed, but errors are counted
    before = _errors()
    try:
        # With its protocol, or `a:b.mp4` would be one; and no playlist leads elsewhere.
        container = av.open(f"file:{path}", container_options={"protocol_whitelist": "file"}, metadata_errors="ignore")
    except av.FFmpegError as error:
        if no_memory(error):
            raise
        raise UserError(
            f"{path} cannot be read as a video ({_reason(before, error)}); "
            "copy it again, encode it anew or give a folder of frames"
        ) from None
    with container:
        stream = _video(path, container, note)
        context = stream.codec_context
        context.thread_type = "FRAME"  # threads on the slices of a frame hide damage (MPEG-2)
        context.thread_count = threads
        try:
            yield container, stream
        finally:
            # Waits for the decoding threads. They need the interpreter lock to report errors, and PyAV holds it while
            # it frees the decoder, which waits for them: without this line both would wait for ever.
            if context.is_open:
                context.flush_buffers()


def _video(path: Path, container: InputContainer, note: Note) -> VideoStream:
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & still]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams if stream.type != "video"})
        what = f", only {' and '.join(kinds)}" if kinds else ""
        raise UserError(f"{path} holds no video{what}; remove it, or give the file with the video")
    best = container.streams.best("video")
    stream = next((stream for stream in streams if best is not None and stream.index == best.index), streams[0])
    if stream.codec_context is None:
        raise UserError(f"{path} is coded in a way that ffmpeg does not know; encode it anew, as H.264")
    if len(streams) > 1:
        note(f"it holds {len(streams)} videos; number {streams.index(stream) + 1} is read")
    return stream


def whole_frames(path: Path, threads: int, note: Note) -> Iterator[av.VideoFrame]:
    """Yield the frames in the order in which they are shown, up to the first damage.

    Threads decode ahead, so that an error is reported before its frame is due, and it may be that of another file that
    this process reads just now. Therefore the file is then read once more, in one thread, which shows errors in order.

    Raises:
        DamageError: the next frame cannot be decoded.
    """
    given = 0
    if threads > 1:
        try:
            with opened(path, threads, note) as (container, stream):
                for frame in _undamaged(container, stream, note):
                    given += 1
                    yield frame
            return
        except DamageError:
            pass
    with opened(path, 1, note) as (container, stream):
        yield from islice(_undamaged(container, stream, note), given, None)


def _undamaged(container: InputContainer, stream: VideoStream, note: Note) -> Iterator[av.VideoFrame]:
    """Yield frames up to the first sign of damage.

    Signs are errors that PyAV raises, packets and frames that ffmpeg flags as corrupt, and errors that ffmpeg only
    logs: checksums that differ (FFV1), the end of a file that was cut off (Matroska), and what PyAV drops where frames
    come together with an error. Logged errors are counted, for the process as a whole.
    """
    context = stream.codec_context
    before = _errors()
    try:
        packets = (packet for packet in container.demux(stream) if packet.size)  # in AVI an empty one repeats a frame
        left_out, key = _first_keyframe(packets)
        if key is None:
            return
        lacking = context.name == "h264" and not _is_idr(key, context.extradata)
        # Raise an error for what would be concealed, and verify checksums where there are some.
        context.options = {"err_detect": "crccheck" if lacking else "crccheck+explode"}
        rest = chain([key], packets, [None])  # None gives what the decoder still holds
        ready: list[av.VideoFrame] = []
        if lacking:
            passed, ready = _second_keyframe(rest, context)
            left_out, before = left_out + passed, _errors()
        if left_out:
            note(f"it begins between keyframes; {left_out} frames that may lack what came before are left out")
        for frames in chain([ready], _decoded(rest, context)):
            if _errors() > before:
                raise DamageError(_reason(before))
            for frame in frames:
                if frame.is_corrupt:
                    raise DamageError("parts of the image are missing")
                yield frame
    except av.FFmpegError as error:
        if no_memory(error):
            raise
        raise DamageError(_reason(before, error)) from None


def _decoded(
    packets: Iterable[Packet[VideoStream] | None], context: VideoCodecContext
) -> Iterator[list[av.VideoFrame]]:
    for packet in packets:
        if packet is not None and packet.is_corrupt:
            raise DamageError("a packet is cut short or marked as corrupt")
        yield context.decode(packet)


def _first_keyframe(packets: Iterator[Packet[VideoStream]]) -> tuple[int, Packet[VideoStream] | None]:
    """Return the first keyframe, and how many packets come before it: recordings and broadcasts begin anywhere."""
    before = 0
    for packet in packets:
        if packet.is_keyframe:
            return before, packet
        before += 1
    if before:
        raise DamageError("it has no keyframe")
    return 0, None


def _is_idr(packet: Packet[VideoStream], head: bytes | None) -> bool:
    """Say whether a keyframe of H.264 refreshes the decoder, so that nothing after it refers to what came before.

    Others (open groups of pictures, gradual refresh) are where one can begin, but not without errors.
    """
    data = bytes(packet)
    if not head or head[0] != 1:  # units follow start codes (ITU-T H.264, annex B)
        return any(unit[1][0] & 31 == _IDR for unit in re.finditer(b"\x00\x00\x01(.)", data, re.DOTALL))
    width = (head[4] & 3) + 1  # bytes of the length that stands before each unit (ISO/IEC 14496-15)
    position = 0
    while position + width < len(data):
        if data[position + width] & 31 == _IDR:
            return True
        position += width + int.from_bytes(data[position : position + width], "big")
    return False


def _second_keyframe(
    packets: Iterator[Packet[VideoStream] | None], context: VideoCodecContext
) -> tuple[int, list[av.VideoFrame]]:
    """Decode up to the second keyframe: by then, whatever is referred to is there. Errors before it are no damage.

    Returns:
        How many frames come before it, and those that came out of the decoder with it.
    """
    before, keyframes, shown = 0, 0, None
    for packet in packets:
        if packet is not None and packet.is_keyframe:
            keyframes += 1
            shown = packet.pts if keyframes == 2 else shown
        try:
            frames = context.decode(packet)
        except av.InvalidDataError:
            before += 1
            continue
        for position, frame in enumerate(frames):
            if shown is not None and frame.pts is not None and frame.pts >= shown:
                return before, frames[position:]
            before += 1
    return before, []


def _errors() -> int:
    """Return how many errors ffmpeg has reported in this process."""
    return int(av.logging.get_last_error()[0])


def _reason(before: int, error: av.FFmpegError | None = None) -> str:
    """Return what ffmpeg said last, if it has reported errors since there were `before`."""
    count, last = av.logging.get_last_error()
    if count > before and last is not None:
        return f"error in {last[1]}: {last[2].strip()}"
    return (error and error.strerror) or "ffmpeg reports an error"
