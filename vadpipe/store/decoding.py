"""What ffmpeg decodes of a video file, up to the first damage, which it would conceal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from vadpipe.errors import UserError

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
    before = av.logging.get_last_error()[0]
    try:
        # With its protocol, or `a:b.mp4` would be one; and no playlist leads elsewhere.
        container = av.open(f"file:{path}", container_options={"protocol_whitelist": "file"}, metadata_errors="ignore")
    except av.FFmpegError as error:
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
            pass  # it lies somewhere near, as threads work ahead, and may be that of another file that is read just now
    with opened(path, 1, note) as (container, stream):
        yield from islice(_undamaged(container, stream, note), given, None)


def _undamaged(container: InputContainer, stream: VideoStream, note: Note) -> Iterator[av.VideoFrame]:
    """Yield frames up to the first sign of damage.

    Signs are errors that PyAV raises, packets and frames that ffmpeg flags as corrupt, and errors that ffmpeg only
    logs: checksums that differ (FFV1), the end of a file that was cut off (Matroska), and what PyAV drops where frames
    come together with an error. Logged errors are counted, for the process as a whole.
    """
    context = stream.codec_context
    before = av.logging.get_last_error()[0]
    keyframes = 0
    try:
        packets = (packet for packet in container.demux(stream) if packet.size)  # in AVI an empty one repeats a frame
        head = list(islice(packets, 2))
        between = _begins_between(head, context.name)
        # Raise an error for what would be concealed, and verify checksums where there are some.
        context.options = {"err_detect": "crccheck" if between else "crccheck+explode"}
        for packet in chain(_decodable(chain(head, packets), context.name, note), [None]):
            if packet is not None and packet.is_corrupt:
                raise DamageError("a packet is cut short or marked as corrupt")
            frames = context.decode(packet)
            keyframes += sum(frame.key_frame for frame in frames)
            if between and keyframes < 2:  # what refers to frames before the beginning is logged as an error
                before = av.logging.get_last_error()[0]
            elif av.logging.get_last_error()[0] > before:
                raise DamageError(_reason(before))
            for frame in frames:
                if frame.is_corrupt:
                    raise DamageError("parts of the image are missing")
                yield frame
    except av.FFmpegError as error:
        raise DamageError(_reason(before, error)) from None


def _reason(before: int, error: av.FFmpegError | None = None) -> str:
    """Return what ffmpeg said last, if it has reported errors since there were `before`."""
    count, last = av.logging.get_last_error()
    if count > before and last is not None:
        return f"error in {last[1]}: {last[2].strip()}"
    return (error and error.strerror) or "ffmpeg reports an error"


def _begins_between(head: list[Packet[VideoStream]], codec: str) -> bool:
    """Say by its first two packets whether a file begins between keyframes, as recordings and broadcasts do."""
    if len(head) == 2 and head[0].is_keyframe:
        return _leading(head[1], head[0], codec)
    return bool(head) and not head[0].is_keyframe


def _leading(packet: Packet[VideoStream], key: Packet[VideoStream], codec: str) -> bool:
    """Say whether a picture that follows a keyframe is shown before it, and so refers to what came before.

    Other decoders than that of H.264 leave such pictures out by themselves.
    """
    return codec == "h264" and packet.pts is not None and key.pts is not None and packet.pts < key.pts


def _decodable(packets: Iterable[Packet[VideoStream]], codec: str, note: Note) -> Iterator[Packet[VideoStream]]:
    """Yield the packets without those at the beginning that refer to what came before."""
    left_out, key, beginning = 0, None, True
    for packet in packets:
        if key is None:
            key = packet if packet.is_keyframe else None
        elif beginning and not _leading(packet, key, codec):
            beginning = False
            if left_out:
                note(f"it begins between keyframes; {left_out} frames that lack what came before are left out")
        if packet is key or not beginning:
            yield packet
        else:
            left_out += 1
    if left_out and key is None:
        raise DamageError("it has no keyframe")
