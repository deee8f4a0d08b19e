"""The video reader: what is drawn comes out, at its time, and what is damaged is refused by name.

Each frame says its number in blocks of light and dark, so that a frame is known whatever the coding did to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.filter
import numpy as np
import pytest

from vadpipe.errors import UserError
from vadpipe.store.sampling import Sampling
from vadpipe.store.stamps import Stamps
from vadpipe.store.video import VIDEO_SUFFIXES, Video, VideoFrame

HEIGHT, WIDTH = 48, 96
DARK, LIGHT = 60, 190
LAVC_QUIET = {"x265-params": "log-level=none"}


def drawn(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame uint8 (H, W, 3) of 2 rows of 4 blocks, the bits of its number, the first bit at the top left."""
    bits = [(number >> bit) & 1 for bit in range(8)]
    blocks = np.where(np.reshape(bits, (2, 4)), LIGHT, DARK).astype(np.uint8)
    grey = np.kron(blocks, np.ones((height // 2, width // 4), np.uint8))
    return np.dstack([grey] * 3)


def said(pixels: np.ndarray) -> int:
    """The number that a frame says."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 4
    number = 0
    for bit in range(8):
        y, x = (bit // 4) * height, (bit % 4) * width
        block = pixels[y + height // 4 : y + 3 * height // 4, x + width // 4 : x + 3 * width // 4].mean()
        assert min(abs(block - DARK), abs(block - LIGHT)) < 20, f"block {bit} is {block}: no frame that was drawn"
        number |= int(block > (DARK + LIGHT) / 2) << bit
    return number


def write(
    path: Path,
    frames: Iterable[np.ndarray],
    codec: str = "libx264",
    *,
    rate: Fraction | int = 25,
    pix_fmt: str = "yuv420p",
    stamps: Iterable[Fraction] | None = None,
    format: str | None = None,
    muxer: dict[str, str] | None = None,
    gop: int = 12,
    **options: str,
) -> Path:
    """Encode frames, uint8 (H, W, 3) RGB or in the layout of `pix_fmt`; `stamps` are seconds."""
    images = list(frames)
    with av.open(path, "w", format=format, container_options=muxer) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        tick = 1 / Fraction(rate) if stamps is None else Fraction(1, 1000)
        stream.codec_context.time_base = tick
        ticks = range(len(images)) if stamps is None else [round(stamp / tick) for stamp in stamps]
        for stamp, image in zip(ticks, images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, "rgb24" if image.ndim == 3 else pix_fmt)
            frame.pts, frame.time_base = stamp, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers(count: int) -> list[np.ndarray]:
    return [drawn(number) for number in range(count)]


def read(path: Path, sampling: Sampling | None = None) -> tuple[Video, list[VideoFrame]]:
    video = Video(path, workers=2)
    return video, list(video.frames(sampling or Sampling()))


def refusal(path: Path, sampling: Sampling | None = None) -> str:
    """The message with which a file is refused; it names the file."""
    with pytest.raises(UserError) as error:
        read(path, sampling)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def packets(path: Path) -> list[tuple[int, int, bool]]:
    """Where the packets of a file lie (offset, size) and whether they are keyframes."""
    with av.open(path) as container:
        return [(p.pos, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]


def patched(path: Path, offset: int, data: bytes) -> Path:
    """Overwrite some bytes of a file."""
    whole = bytearray(path.read_bytes())
    whole[offset : offset + len(data)] = data
    path.write_bytes(whole)
    return path


def cut(path: Path, keep: int) -> Path:
    path.write_bytes(path.read_bytes()[:keep])
    return path


# Every frame at its time


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {}),
        ("a.mkv", "libx264", {}),
        ("a.mov", "mjpeg", {"pix_fmt": "yuvj420p"}),
        ("a.m4v", "libx264", {}),
        ("a.3gp", "libx264", {}),
        ("a.avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
        ("b.avi", "mpeg4", {}),
        ("a.ts", "libx264", {}),
        ("a.m2ts", "libx264", {}),
        ("a.mts", "mpeg2video", {}),
        ("a.flv", "libx264", {}),
        ("a.mpg", "mpeg2video", {"format": "mpeg"}),
        ("a.mpeg", "mpeg1video", {"format": "mpeg"}),
        ("a.vob", "mpeg2video", {"format": "vob"}),
        ("a.wmv", "wmv2", {}),
        ("a.asf", "wmv2", {}),
        ("a.webm", "libvpx-vp9", {}),
        ("a.h264", "libx264", {}),
        ("a.hevc", "libx265", LAVC_QUIET),
        ("b.mkv", "ffv1", {}),
    ],
)
def test_every_frame_at_its_time(tmp_path: Path, name: str, codec: str, options: dict[str, Any]) -> None:
    video, frames = read(write(tmp_path / name, numbers(30), codec, **options))
    assert Path(name).suffix in VIDEO_SUFFIXES
    assert [said(frame.pixels) for frame in frames] == list(range(30))
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx([index / 25 for index in range(30)], abs=1e-9)
    assert {(frame.pixels.shape, frame.pixels.dtype.name) for frame in frames} == {((HEIGHT, WIDTH, 3), "uint8")}
    assert (video.height, video.width, video.fps) == (HEIGHT, WIDTH, 25)
    raw = Path(name).suffix in {".h264", ".hevc"}
    assert video.notes == (
        ["it carries no time stamps; 25 frames a second are assumed, `fps` overrides"] if raw else []
    )


@pytest.mark.parametrize("workers", [1, 3, None])
def test_threads_change_nothing(tmp_path: Path, workers: int | None) -> None:
    frames = list(Video(write(tmp_path / "a.mp4", numbers(20)), workers).frames())
    assert [said(frame.pixels) for frame in frames] == list(range(20))


def test_ntsc_times_are_exact(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    video, frames = read(write(tmp_path / "a.mp4", numbers(40), rate=rate))
    assert [frame.time for frame in frames] == pytest.approx([float(k / rate) for k in range(40)], abs=1e-12)
    assert video.fps == pytest.approx(float(rate), abs=1e-12)
    assert video.notes == []
    _, frames = read(tmp_path / "a.mp4", Sampling(rate=float(rate / 3)))
    assert [said(frame.pixels) for frame in frames] == list(range(0, 40, 3))


def test_times_rounded_to_milliseconds_are_no_variable_rate(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    video, frames = read(write(tmp_path / "a.mkv", numbers(40), rate=rate))
    assert [frame.time for frame in frames] == pytest.approx([float(k / rate) for k in range(40)], abs=0.000501)
    assert video.fps == pytest.approx(float(rate), abs=0.01)
    assert video.notes == []


def test_variable_rate_is_told_and_resampled(tmp_path: Path) -> None:
    stamps = [Fraction(k, 30) for k in range(10)] + [Fraction(1, 3) + Fraction(k, 8) for k in range(10)]
    write(tmp_path / "a.mkv", numbers(20), stamps=stamps, bf="0")
    video, frames = read(tmp_path / "a.mkv")
    assert [frame.time for frame in frames] == [round(1000 * stamp) / 1000 for stamp in stamps]
    average = 19 / (1 / 3 + 9 / 8)
    assert video.fps == pytest.approx(average, abs=0.01)
    assert video.notes == [
        f"variable frame rate, 8 to 30.3 frames a second, {average:.4g} on average; give `rate` to resample"
    ]
    video, frames = read(tmp_path / "a.mkv", Sampling(rate=10))
    # 1/3 + k/8 = 0.333, 0.458, 0.583 ... of frames 10, 11, 12 ...; the last one stands for 1/8 s until 1.583.
    assert [said(frame.pixels) for frame in frames] == [0, 3, 6, 9, 10, 11, 12, 12, 13, 14, 15, 16, 16, 17, 18, 19]
    assert [frame.time for frame in frames] == pytest.approx([k / 10 for k in range(16)])
    assert "give `rate`" not in video.notes[0]


def test_a_lost_frame_of_avi_is_told(tmp_path: Path) -> None:
    """In AVI a frame takes one tick, so that a gap of two is no rounding."""
    stamps = [Fraction(k, 25) for k in [*range(10), *range(11, 21)]]
    path = tmp_path / "a.avi"
    with av.open(path, "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        for number, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(drawn(number), "rgb24")
            frame.pts, frame.time_base = int(stamp * 25), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video, frames = read(path)
    assert [said(frame.pixels) for frame in frames] == list(range(20))
    assert [frame.time for frame in frames] == pytest.approx([float(stamp) for stamp in stamps])
    assert any(note.startswith("variable frame rate, 12.5 to 25 frames a second") for note in video.notes)


def test_stamps_that_are_missing_go_backwards_or_start_again() -> None:
    stamps = Stamps(Fraction(1, 1000), 10.0)
    given = [700, 800, None, 1000, 1000, 950, 1100, 200, 300]
    times = [0.0, 0.1, 0.2, 0.3, 0.3, 0.3, 0.4, 0.4, 0.4]
    assert [stamps.next(stamp) for stamp in given] == pytest.approx(times)
    notes = stamps.notes(resampled=True)
    assert notes[0] == "1 frames carry no time stamp; the frame rate fills them in"
    assert notes[1] == "the time stamps of 4 frames do not go forward; they keep the time before"
    joined = Stamps(Fraction(1, 1000), 10.0)
    assert [joined.next(stamp) for stamp in [*range(0, 3000, 100), 0, 100]][-3:] == pytest.approx([2.9, 3.0, 3.1])
    assert joined.notes(resampled=False) == ["its time stamps start again 1 times; the times here go on"]


def test_a_header_with_another_rate_is_told() -> None:
    stamps = Stamps(Fraction(1, 1000), 30.0)
    for index in range(100):
        stamps.next(40 * index)
    assert stamps.fps() == pytest.approx(25)
    assert stamps.notes(resampled=False) == ["the header says 30 frames a second, the time stamps 25"]


def test_an_edit_list_shows_what_a_player_shows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbers(40), bf="0", gop=10)
    entry = path.read_bytes().index(b"elst") + 12  # after version, flags and number: duration, first time, rate
    tick = 512  # of 12800 a second
    patched(path, entry, (27 * 40).to_bytes(4, "big") + (13 * tick).to_bytes(4, "big"))
    video, frames = read(path)
    assert [said(frame.pixels) for frame in frames] == list(range(13, 40))
    assert [frame.index for frame in frames] == list(range(27))
    assert [frame.time for frame in frames] == pytest.approx([k / 25 for k in range(27)])
    assert video.notes == ["the header speaks of 40 frames, 27 are there"]


def test_a_header_that_promises_more_is_an_oddity(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", numbers(30), "mjpeg", pix_fmt="yuvj420p")
    length = path.read_bytes().index(b"strh") + 8 + 32
    assert int.from_bytes(path.read_bytes()[length : length + 4], "little") == 30
    video, frames = read(patched(path, length, (31).to_bytes(4, "little")))
    assert len(frames) == 30
    assert video.notes == ["the header speaks of 31 frames, 30 are there"]


# What is taken


def test_sampling(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", numbers(50))
    cases = {
        Sampling(every=7): list(range(0, 50, 7)),
        Sampling(rate=5): list(range(0, 50, 5)),
        Sampling(rate=50): [number for number in range(50) for _ in range(2)],
        Sampling(start=0.4, end=1.2): list(range(10, 30)),
        Sampling(every=3, start=0.4, end=0.8): [10, 13, 16, 19],
        Sampling(fps=10, start=1, end=2): list(range(10, 20)),
        Sampling(start=3): [],
    }
    for sampling, expected in cases.items():
        _, frames = read(path, sampling)
        assert [said(frame.pixels) for frame in frames] == expected, sampling
        assert [frame.index for frame in frames] == expected
    assert [frame.time for frame in read(path, Sampling(fps=10, every=20))[1]] == [0, 2, 4]
    assert [frame.time for frame in read(path, Sampling(rate=50, end=0.08))[1]] == pytest.approx([0, 0.02, 0.04, 0.06])


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    video = Video(write(tmp_path / "a.h264", numbers(12)))
    first = [said(frame.pixels) for frame in video.frames()]
    notes = list(video.notes)
    assert first == [said(frame.pixels) for frame in video.frames()] == list(range(12))
    assert video.notes == notes


# Turned, interlaced, deep


MATRICES = {  # of the track header: a b u c d v x y w, 16.16 and 2.30 bits
    "turned by 90 degrees clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "turned by 90 degrees anticlockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "turned by 180 degrees": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "mirrored left to right": ((-1, 0, 0, 1), np.fliplr),
    "mirrored top to bottom": ((1, 0, 0, -1), np.flipud),
}


@pytest.mark.parametrize("what", MATRICES)
def test_rotation_tags_are_applied(tmp_path: Path, what: str) -> None:
    (a, b, c, d), turn = MATRICES[what]
    path = write(tmp_path / "a.mp4", [drawn(0b10000011)] * 5)
    values = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    patched(path, path.read_bytes().index(b"tkhd") + 44, b"".join(v.to_bytes(4, "big", signed=True) for v in values))
    video, frames = read(path)
    expected = turn(drawn(0b10000011)).astype(int)
    assert (video.height, video.width) == expected.shape[:2] == frames[0].pixels.shape[:2]
    assert np.abs(frames[4].pixels - expected).mean() < 3
    assert video.notes == [f"a tag has its pictures {what}; they are read as a player shows them"]


def scene(time: int) -> np.ndarray:
    """A bright square that moves over a quiet texture, at a field's time from 0 to 59; 64 x 160."""
    rng = np.random.default_rng(2)
    image = np.kron(rng.integers(60, 120, (16, 40)), np.ones((4, 4))).astype(np.uint8)
    image[20:44, 2 * time + 4 : 2 * time + 24] = 220
    return np.dstack([image] * 3)


def write_flagged(path: Path, frames: list[np.ndarray], order: str) -> Path:
    """Encode frames that are flagged as interlaced, `order` = `tff` (upper field first) or `bff`."""
    height, width = frames[0].shape[:2]
    graph = av.filter.Graph()
    source = graph.add_buffer(width=width, height=height, format="yuv420p", time_base=Fraction(1, 25))
    graph.link_nodes(source, graph.add("setfield", order), graph.add("buffersink")).configure()
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10", "x264-params": f"{order}=1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            graph.vpush(frame)
            container.mux(stream.encode(graph.vpull()))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_interlaced_frames_are_deinterlaced(tmp_path: Path, order: str) -> None:
    woven = []
    for number in range(25):
        frame = scene(2 * number)
        later = slice(1, None, 2) if order == "tff" else slice(0, None, 2)
        frame[later] = scene(2 * number + 1)[later]
        woven.append(frame)
    video, frames = read(write_flagged(tmp_path / "a.mp4", woven, order))
    assert video.notes == ["it is interlaced; each frame is deinterlaced (bwdif)"]
    assert [frame.index for frame in frames] == list(range(25))
    assert [frame.time for frame in frames] == pytest.approx([k / 25 for k in range(25)])
    for number in range(1, 24):
        # Where the square's right edge has moved on: the field that was taken first has not seen it there.
        edge = (slice(22, 42), slice(4 * number + 24, 4 * number + 26))
        wrong = np.abs(woven[number][edge] - scene(2 * number)[edge].astype(int)).mean()
        assert np.abs(frames[number].pixels[edge] - scene(2 * number)[edge].astype(int)).mean() < 0.4 * wrong
        still = np.abs(frames[number].pixels[:16] - scene(0)[:16].astype(int))
        assert still.mean() < 1.5


def test_progressive_frames_that_are_flagged_as_interlaced_stay(tmp_path: Path) -> None:
    shown = [scene(2 * number) for number in range(20)]
    video, frames = read(write_flagged(tmp_path / "a.mp4", shown, "tff"))
    assert video.notes == ["it is flagged as interlaced but is progressive; it is read as it is"]
    assert max(np.abs(frame.pixels - image.astype(int)).mean() for frame, image in zip(frames, shown, strict=True)) < 2


def test_interlaced_without_motion_is_left_whole(tmp_path: Path) -> None:
    video, frames = read(write_flagged(tmp_path / "a.mp4", [scene(0)] * 15, "bff"))
    assert len(frames) == 15
    assert "deinterlaced" in video.notes[0]
    assert np.abs(frames[7].pixels - scene(0).astype(int)).mean() < 2


def yuv(rgb: tuple[int, int, int], matrix: tuple[float, float], full: bool, bits: int) -> list[int]:
    """Code a colour by the definitions of ITU-R BT.601 and BT.709; `matrix` is K_R and K_B."""
    red, green, blue = (value / 255 for value in rgb)
    k_red, k_blue = matrix
    luma = k_red * red + (1 - k_red - k_blue) * green + k_blue * blue
    chroma = ((blue - luma) / (2 - 2 * k_blue), (red - luma) / (2 - 2 * k_red))
    if full:
        return [round(luma * (2**bits - 1)), *(round(c * (2**bits - 1) + 2 ** (bits - 1)) for c in chroma)]
    return [round((16 + 219 * luma) * 2 ** (bits - 8)), *(round((128 + 224 * c) * 2 ** (bits - 8)) for c in chroma)]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("space", "matrix"), [(5, (0.299, 0.114)), (1, (0.2126, 0.0722))])
@pytest.mark.parametrize(
    ("codec", "pix_fmt", "bits"),
    [("libx264", "yuv420p", 8), ("ffv1", "yuv420p", 8), ("libx265", "yuv420p10le", 10)],
)
def test_colours_by_matrix_range_and_depth(
    tmp_path: Path, codec: str, pix_fmt: str, bits: int, *, space: int, matrix: tuple[float, float], full: bool
) -> None:
    colours = [(255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 60, 30), (20, 200, 90)]
    lossless = {"libx264": {"qp": "0"}, "libx265": {"x265-params": "log-level=none:lossless=1"}, "ffv1": {}}
    with av.open(tmp_path / "a.mkv", "w") as container:
        stream = container.add_stream(codec, rate=25, options=lossless[codec])
        stream.height = stream.width = 64
        stream.pix_fmt = pix_fmt
        stream.codec_context.colorspace, stream.codec_context.color_range = space, 2 if full else 1
        for index, colour in enumerate(colours):
            frame = av.VideoFrame(64, 64, pix_fmt)
            for plane, value in zip(frame.planes, yuv(colour, matrix, full, bits), strict=True):
                plane.update(value.to_bytes(bits // 5, "little") * (plane.buffer_size // (bits // 5)))
            frame.pts, frame.time_base = index, Fraction(1, 25)
            frame.colorspace, frame.color_range = space, 2 if full else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    video, frames = read(tmp_path / "a.mkv")
    assert video.codec == {"libx264": "h264", "libx265": "hevc", "ffv1": "ffv1"}[codec]
    for colour, taken in zip(colours, frames, strict=True):
        assert taken.pixels.dtype == np.uint8
        assert np.abs(taken.pixels - np.array(colour)).max() <= 3


def test_grey_of_8_bits_is_rgb_of_equal_channels(tmp_path: Path) -> None:
    ramp = np.arange(96 * 48, dtype=np.uint32).reshape(48, 96) % 256
    _, frames = read(write(tmp_path / "a.mkv", [ramp.astype(np.uint8)] * 3, "ffv1", pix_fmt="gray"))
    assert (frames[0].pixels == ramp[..., None]).all()
    assert frames[0].pixels.shape == (48, 96, 3)


@pytest.mark.parametrize(("pix_fmt", "most"), [("gray10le", 1023), ("gray12le", 4095), ("gray16le", 65535)])
def test_deep_grey_stays_counts(tmp_path: Path, pix_fmt: str, most: int) -> None:
    """The warm object of 7400 among 7200 counts would be lost in 8 bits."""
    counts = np.linspace(0, most, 48 * 96).round().astype(np.uint16).reshape(48, 96)
    counts[10:20, 10:20] = most // 9 + 1
    _, frames = read(write(tmp_path / "a.mkv", [counts, counts[::-1].copy()], "ffv1", pix_fmt=pix_fmt))
    assert frames[0].pixels.dtype == np.uint16
    assert (frames[0].pixels == counts).all()
    assert (frames[1].pixels == counts[::-1]).all()


def test_pixels_that_are_not_square_are_told(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        frame = av.VideoFrame.from_ndarray(drawn(5), "rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    video, frames = read(tmp_path / "a.mp4")
    assert frames[0].pixels.shape == (HEIGHT, WIDTH, 3)
    assert video.notes == ["its pixels are not square (16:11); they are left as they are"]


# Damage


def test_a_cut_mjpeg_is_refused_with_frame_time_and_a_way_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", numbers(100), "mjpeg", pix_fmt="yuvj420p")
    offset, size, _ = packets(path)[67]
    cut(path, offset + size // 2)
    message = refusal(path)
    assert "frame 67 (0:00:02.6) and what follows cannot be decoded" in message
    assert "`end: 2.68`" in message
    _, frames = read(path, Sampling(end=2.68))
    assert [said(frame.pixels) for frame in frames] == list(range(67))
    _, frames = read(path, Sampling(rate=5, end=2.68))
    assert [said(frame.pixels) for frame in frames] == list(range(0, 67, 5))
    assert "frame 67" in refusal(path, Sampling(end=2.72))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"muxer": {"movflags": "faststart"}}),
        ("a.mkv", "libx264", {}),
        ("a.avi", "mpeg4", {}),
        ("a.webm", "libvpx-vp9", {}),
        ("b.mkv", "ffv1", {}),
        ("b.mp4", "libx265", {"muxer": {"movflags": "faststart"}, **LAVC_QUIET}),
    ],
)
def test_a_cut_file_passes_whole_frames_only(tmp_path: Path, name: str, codec: str, options: dict[str, Any]) -> None:
    path = write(tmp_path / name, numbers(40), codec, **options)
    offset, size, _ = packets(path)[25]
    cut(path, offset + size // 2)
    passed = []
    with pytest.raises(UserError, match=r"frame \d+ \(0:00:0\d\.\d\) and what follows cannot"):
        for frame in Video(path, workers=2).frames():
            passed.append(said(frame.pixels))
    assert passed == list(range(len(passed)))
    assert 10 <= len(passed) <= 25


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "mpeg2video"), ("a.avi", "mpeg4"), ("b.mkv", "ffv1"), ("b.avi", "mjpeg")],
)
@pytest.mark.parametrize("which", [13, 29])
def test_damage_inside_is_refused(tmp_path: Path, name: str, codec: str, workers: int, which: int) -> None:
    """ffmpeg conceals it: without a look at its flags and messages, 30 frames come out."""
    noise = np.random.default_rng(4).integers(0, 256, (30, HEIGHT, WIDTH, 3)).astype(np.uint8)
    path = write(tmp_path / name, noise, codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p", bf="0")
    offset, size, _ = packets(path)[which]
    patched(path, offset + size // 4, bytes(size // 2))
    first = which - (codec == "mpeg2video")  # whose decoder holds a frame back
    with pytest.raises(UserError, match=rf"frame {first} \(0:00:0{first // 2.5 / 10}\) and what follows cannot be"):
        list(Video(path, workers).frames())
    assert len(list(Video(path, workers).frames(Sampling(end=first / 25)))) == first


def test_one_flipped_bit_of_a_lossless_recording_is_found(tmp_path: Path) -> None:
    """FFV1 has checksums, and ffmpeg only logs that they differ."""
    counts = np.random.default_rng(0).integers(7000, 7400, (12, 32, 48)).astype(np.uint16)
    path = write(tmp_path / "a.mkv", counts, "ffv1", pix_fmt="gray16le")
    assert (np.stack([frame.pixels for frame in read(path)[1]]) == counts).all()
    offset, size, _ = packets(path)[7]
    position = offset + size // 3
    patched(path, position, bytes([path.read_bytes()[position] ^ 1]))
    assert "cannot be decoded: error in ffv1" in refusal(path)


def test_damage_is_that_of_the_file_that_has_it(tmp_path: Path) -> None:
    """ffmpeg reports errors for the process as a whole."""
    whole = write(tmp_path / "a.mkv", numbers(30), "ffv1")
    broken = write(tmp_path / "b.mkv", numbers(30), "ffv1")
    offset, size, _ = packets(broken)[20]
    patched(broken, offset + size // 2, b"damage")
    frames = Video(whole, workers=2).frames()
    shown = [said(next(frames).pixels) for _ in range(8)]
    assert "frame 20 (0:00:00.8)" in refusal(broken)
    assert shown + [said(frame.pixels) for frame in frames] == list(range(30))


def test_reading_of_a_damaged_file_can_be_given_up(tmp_path: Path) -> None:
    """A decoding thread that reports an error must not wait for a lock that is held by what waits for the thread."""
    noise = np.random.default_rng(4).integers(0, 256, (40, 120, 160, 3)).astype(np.uint8)
    path = write(tmp_path / "a.mkv", noise, "ffv1")
    whole = bytearray(path.read_bytes())
    for offset, size, _ in packets(path)[11:]:
        whole[offset + size // 2] ^= 255
    path.write_bytes(whole)
    code = (
        "import sys; from pathlib import Path; from vadpipe.store.video import Video\n"
        "for _ in range(30):\n"
        "    frames = Video(Path(sys.argv[1]), 6).frames()\n"
        "    next(frames)\n"
        "    del frames\n"
        "print('done')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "done\n", done.stderr
    assert done.stderr == ""


OPEN = {"x264-params": "open-gop=1:bframes=3:b-pyramid=normal:ref=4:keyint=12:min-keyint=12:scenecut=0"}
REFRESH = {"x264-params": "intra-refresh=1:keyint=12:bframes=0:scenecut=0"}


@pytest.mark.parametrize(
    ("name", "codec", "options", "first"),
    [
        ("a.ts", "libx264", {"sc_threshold": "0"}, 24),
        ("c.ts", "mpeg2video", {"bf": "2", "sc_threshold": "1000000000"}, 24),
        ("d.ts", "libx265", {"x265-params": "log-level=none:keyint=12:min-keyint=12:scenecut=0:bframes=3"}, 24),
        # Here frames after a keyframe may refer to frames before it, so that a second one is waited for.
        ("e.ts", "libx264", OPEN, 36),
        ("f.ts", "libx264", REFRESH, 36),
    ],
)
def test_a_transport_stream_may_begin_between_keyframes(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], first: int
) -> None:
    path = write(tmp_path / name, numbers(60), codec, **options)
    offset = packets(path)[15][0] // 188 * 188
    path.write_bytes(path.read_bytes()[offset:])
    for workers in (1, 3):
        video = Video(path, workers)
        frames = list(video.frames())
        assert [said(frame.pixels) for frame in frames] == list(range(first, 60))
        assert frames[0].time == 0
        assert [note[:28] for note in video.notes] == ["it begins between keyframes;"]


@pytest.mark.parametrize(("options", "first"), [({"sc_threshold": "0"}, 24), (OPEN, 36)])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_so_may_a_copied_part(tmp_path: Path, suffix: str, options: dict[str, str], first: int) -> None:
    """As `ffmpeg -c copy` cuts it; H.264 lies otherwise in these files than in a transport stream."""
    write(tmp_path / "whole.mkv", numbers(60), **options)
    with av.open(tmp_path / "whole.mkv") as source, av.open(tmp_path / f"part{suffix}", "w") as part:
        stream = part.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number >= 15 and packet.size:
                packet.stream = stream
                part.mux(packet)
    video, frames = read(tmp_path / f"part{suffix}")
    assert [said(frame.pixels) for frame in frames] == list(range(first, 60))
    assert video.notes[0].startswith("it begins between keyframes;")


def test_a_change_of_size_is_refused(tmp_path: Path) -> None:
    small = write(tmp_path / "a.h264", numbers(10)).read_bytes()
    large = write(tmp_path / "b.h264", [drawn(k, 96, 192) for k in range(10)]).read_bytes()
    (tmp_path / "a.h264").write_bytes(small + large)
    message = refusal(tmp_path / "a.h264")
    assert "frame 10 (0:00:00.4) is 96x192 pixels (height x width), the video began with 48x96" in message


# What is no video


def test_what_is_no_video_is_refused_in_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 50)
    (tmp_path / "link.mp4").symlink_to(tmp_path / "nowhere.mp4")
    half = write(tmp_path / "half.mp4", numbers(30))
    cut(half, half.stat().st_size // 2)
    assert "is a named pipe, but a file is wanted" in refusal(tmp_path / "pipe.mp4")
    assert "is a folder" in refusal(tmp_path / "folder.mp4")
    assert "is empty" in refusal(tmp_path / "empty.mp4")
    assert "is not there" in refusal(tmp_path / "missing.mp4")
    assert "No such file" in refusal(tmp_path / "link.mp4")
    assert "cannot be read as a video" in refusal(tmp_path / "text.mp4")
    assert "moov atom not found" in refusal(half)
    with pytest.raises(UserError, match="is a device, but a file is wanted"):
        Video(Path("/dev/null"))


def sound(container: Any) -> None:
    stream = container.add_stream("aac", rate=8000, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
    frame.sample_rate, frame.pts = 8000, 0
    container.mux([*stream.encode(frame), *stream.encode(None)])


def test_sound_and_cover_pictures_are_no_video(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mp4", "w") as container:
        sound(container)
    assert "holds no video, only audio" in refusal(tmp_path / "a.mp4")
    with av.open(tmp_path / "b.mp4", "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        packets = [*cover.encode(av.VideoFrame.from_ndarray(drawn(1), "rgb24")), *cover.encode(None)]
        sound(container)
        container.mux(packets)
    assert "holds no video, only audio" in refusal(tmp_path / "b.mp4")


def test_of_several_videos_one_is_read_and_told(tmp_path: Path) -> None:
    with av.open(tmp_path / "a.mkv", "w") as container:
        streams = [container.add_stream("libx264", rate=25) for _ in range(2)]
        for stream, scale in zip(streams, (1, 2), strict=True):
            stream.height, stream.width, stream.pix_fmt = HEIGHT * scale, WIDTH * scale, "yuv420p"
        for index in range(10):
            for stream in streams:
                image = drawn(index, stream.height, stream.width)
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts, frame.time_base = index, Fraction(1, 25)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    video, frames = read(tmp_path / "a.mkv")
    assert [said(frame.pixels) for frame in frames] == list(range(10))
    assert any(note.startswith("it holds 2 videos; number ") for note in video.notes)


def test_names_are_no_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "a.mp4", numbers(5)).rename("concat:a b.mp4")
    assert len(read(Path(path.name))[1]) == 5
