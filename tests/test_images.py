"""Pictures and masks of users keep their meaning, or are refused in words; what is damaged is found."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from vadpipe.errors import UserError
from vadpipe.files import read_bytes
from vadpipe.store import images
from vadpipe.store.counts import range16, scale16
from vadpipe.store.frames import Frame, Storing, check, encode
from vadpipe.store.image_files import header_size, read_image
from vadpipe.store.mask_files import mask_of, open_npy_masks, read_mask

HEIGHT, WIDTH = 12, 20
Y, X = np.mgrid[:HEIGHT, :WIDTH]
# Every pixel of its own: nothing can be mirrored or swapped unseen.
COLOUR = np.dstack([X * 12, Y * 20, X + Y * WIDTH]).astype(np.uint8)
GREY = COLOUR[..., 2]
COUNTS = (7000 + X * 300 + Y * 11).astype(np.uint16)

# What is shown of a picture with each EXIF orientation (EXIF 2.32, tag 274).
SHOWN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: np.swapaxes(image, 0, 1),
    6: lambda image: np.rot90(image, -1),
    7: lambda image: np.swapaxes(np.rot90(image, 2), 0, 1),
    8: np.rot90,
}


def saved(image: np.ndarray | PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: list[bytes], width: int, bits: int, colour: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """Write a PNG by its specification; `before` and `after` are chunks around the picture."""
    head = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), before, chunk(b"IDAT", body), after, chunk(b"IEND", b"")]
    )


def deep_png(pixels: np.ndarray, colour: int, **chunks: bytes) -> bytes:
    return png([row.astype(">u2").tobytes() for row in pixels], pixels.shape[1], 16, colour, **chunks)


def tiff(pixels: np.ndarray, orientation: int = 1, photometric: int | None = None) -> bytes:
    """Write a little-endian TIFF of one strip by its specification."""
    height, width = pixels.shape[:2]
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    kinds = {"u": 1, "i": 2, "f": 3}
    meaning = photometric if photometric is not None else (1 if channels == 1 else 2)
    values = [
        (256, [width]),
        (257, [height]),
        (258, [pixels.itemsize * 8] * channels),
        (259, [1]),
        (262, [meaning]),
        (273, [0]),
        (274, [orientation]),
        (277, [channels]),
        (278, [height]),
        (279, [pixels.nbytes]),
        (339, [kinds[pixels.dtype.kind]] * channels),
    ]
    base = 8 + 2 + 12 * len(values) + 4
    extra, entries = b"", b""
    for tag, numbers in values:
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            packed, extra = struct.pack("<I", base + len(extra)), extra + packed
        if tag == 273:
            packed = struct.pack("<I", base + 2 * 4 * channels * (channels > 1))
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + packed
    little = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + struct.pack("<I", 0) + extra + little


def exif(orientation: int) -> bytes:
    tags = PIL.Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def turned(kind: str, orientation: int) -> bytes:
    """Return COLOUR in a lossless file of a kind, with an EXIF orientation."""
    block = exif(orientation)
    rows = [row.tobytes() for row in COLOUR]
    if kind == "png, EXIF before":
        return png(rows, WIDTH, 8, 2, before=chunk(b"eXIf", block[6:]))
    if kind == "png, EXIF behind":
        return png(rows, WIDTH, 8, 2, after=chunk(b"eXIf", block[6:]))
    if kind == "tiff":
        return tiff(COLOUR, orientation)
    return saved(COLOUR, "WEBP", lossless=True, exif=block)


def test_pictures_of_8_bit_are_taken_as_they_are() -> None:
    for pixels in (COLOUR, GREY):
        for kind in ("PNG", "BMP", "TIFF", "PPM"):
            loaded = read_image(saved(pixels, kind))
            assert (loaded.pixels == pixels).all(), kind
            assert loaded.size == (HEIGHT, WIDTH, 3 if pixels.ndim == 3 else 1)
            assert (loaded.kept, loaded.notes) == (kind == "PNG", frozenset())
    assert (read_image(saved(COLOUR, "WEBP", lossless=True)).pixels == COLOUR).all()
    assert (read_image(saved(GREY, "GIF")).pixels[..., 0] == GREY).all()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}], ids=str)
def test_what_is_kept_of_a_jpeg_decodes_to_the_same_pixels(options: dict) -> None:
    photo = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (67, 45, 3), np.uint8), (0, 0), 3)
    for pixels, decode in ((photo, images.decode), (photo[..., 0], images.decode_grey)):
        data = saved(pixels, "JPEG", **options)
        loaded = read_image(data)
        assert loaded.kept
        assert (loaded.pixels == decode(data)).all()
        assert loaded.pixels.shape == pixels.shape


@pytest.mark.parametrize(("bits", "step"), [(1, 255), (2, 85), (4, 17)])
def test_grey_of_few_bits(bits: int, step: int) -> None:
    values = np.arange(16) % 2**bits
    text = "".join(f"{value:0{bits}b}" for value in values)
    row = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))
    data = png([row, row], 16, bits, 0)
    loaded = read_image(data)
    assert loaded.pixels.tolist() == [(values * step).tolist()] * 2
    assert loaded.kept
    assert (images.decode_grey(data) == loaded.pixels).all()


PALETTE = [(10, 20, 30), (200, 0, 100), (0, 0, 0), (255, 255, 255)]
INDICES = [[0, 1, 2, 3], [3, 2, 1, 0]]


def palette_png(palette: list[tuple[int, int, int]], indices: list[list[int]], transparency: bytes = b"") -> bytes:
    before = chunk(b"PLTE", bytes(np.ravel(palette).tolist()))
    if transparency:
        before += chunk(b"tRNS", transparency)
    return png([bytes(row) for row in indices], len(indices[0]), 8, 3, before=before)


@pytest.mark.parametrize("transparency", [b"", b"\0", b"\xff\0\x80\xff"], ids=["none", "one index", "levels"])
def test_a_palette_is_expanded_to_its_colours(transparency: bytes, recwarn: pytest.WarningsRecorder) -> None:
    data = palette_png(PALETTE, INDICES, transparency)
    loaded = read_image(data)
    assert loaded.pixels.tolist() == [[list(PALETTE[index]) for index in row] for row in INDICES]
    assert loaded.kept == (not transparency)
    assert loaded.notes == {"palette expanded"} | ({"alpha dropped"} if transparency else set())
    if loaded.kept:
        assert (images.decode(data) == loaded.pixels).all()
    assert not recwarn.list


def test_alpha_is_dropped_and_the_colours_below_untouched() -> None:
    alpha = np.where(X > 5, 255, 0).astype(np.uint8)
    for pixels in (COLOUR, GREY):
        for kind in ("PNG", "TIFF"):
            loaded = read_image(saved(np.dstack([pixels, alpha]), kind))
            assert (loaded.pixels == pixels).all()
            assert (loaded.kept, loaded.notes) == (False, {"alpha dropped"})
        opaque = read_image(saved(np.dstack([pixels, np.full_like(GREY, 255)]), "PNG"))
        assert (opaque.pixels == pixels).all()
        assert opaque.notes == frozenset()


def test_cmyk_is_converted() -> None:
    inks = {(0, 0, 0, 0): (255, 255, 255), (0, 255, 255, 0): (255, 0, 0), (0, 0, 0, 255): (0, 0, 0)}
    for ink, colour in inks.items():
        for kind in ("JPEG", "TIFF"):
            loaded = read_image(saved(PIL.Image.new("CMYK", (16, 8), ink), kind))
            assert np.abs(loaded.pixels.astype(int) - colour).max() <= 2
            assert loaded.pixels.shape == (8, 16, 3)
            assert (loaded.kept, loaded.notes) == (False, {"CMYK converted to RGB"})


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("kind", ["png, EXIF before", "png, EXIF behind", "tiff", "webp"])
def test_the_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    data = turned(kind, orientation)
    expected = SHOWN[orientation](COLOUR)
    loaded = read_image(data)
    assert loaded.pixels.shape == expected.shape
    assert (loaded.pixels == expected).all()
    assert loaded.notes == ({f"turned by EXIF orientation {orientation}"} if orientation > 1 else set())
    assert loaded.kept == (orientation == 1 and kind.startswith("png"))
    file = tmp_path / "picture"
    file.write_bytes(data)
    assert header_size(file) == loaded.size


@pytest.mark.parametrize("orientation", SHOWN)
def test_a_turned_jpeg_is_stored_as_it_is_shown_without_loss(tmp_path: Path, orientation: int) -> None:
    upright = read_image(saved(COLOUR, "JPEG", quality=90)).pixels
    file = tmp_path / "photo.jpg"
    file.write_bytes(saved(COLOUR, "JPEG", quality=90, exif=exif(orientation)))
    stored = encode(check(Frame("photo", file), Storing(None)), None)
    assert (images.decode(stored.row["image"]) == SHOWN[orientation](upright)).all()
    assert stored.size == header_size(file)
    assert (stored.row["image"] == file.read_bytes()) == (orientation == 1)


@pytest.mark.parametrize("orientation", [0, 9, 300])
def test_an_orientation_that_is_none_turns_nothing(orientation: int) -> None:
    loaded = read_image(turned("png, EXIF before", orientation))
    assert (loaded.pixels == COLOUR).all()
    assert loaded.kept


def pgm(pixels: np.ndarray, most: int, magic: bytes = b"P5") -> bytes:
    head = magic + b"\n# of a thermal camera\n%d %d\n%d\n" % (pixels.shape[1], pixels.shape[0], most)
    if magic == b"P2":
        return head + b" ".join(b"%d" % value for value in pixels.ravel()) + b"\n"
    return head + pixels.astype(">u2").tobytes()


DEEP_GREY = {
    "png": lambda: deep_png(COUNTS[..., None], 0),
    "png with alpha": lambda: deep_png(np.dstack([COUNTS, COUNTS * 0]), 4),
    "tiff": lambda: tiff(COUNTS),
    "tiff, big end first": lambda: saved(PIL.Image.fromarray(COUNTS.astype(">u2")), "TIFF"),
    "tiff, packed": cv2.imencode(".tiff", COUNTS)[1].tobytes,
    "pgm": lambda: pgm(COUNTS, 65535),
    "pgm of 14 bit": lambda: pgm(COUNTS, 16383),
    "pgm as text": lambda: pgm(COUNTS, 16383, b"P2"),
    "jpeg 2000": lambda: saved(COUNTS, "JPEG2000"),
}


@pytest.mark.parametrize("kind", DEEP_GREY)
def test_grey_of_16_bit_stays_counts(kind: str) -> None:
    loaded = read_image(DEEP_GREY[kind]())
    assert loaded.pixels.dtype == np.uint16
    assert loaded.pixels.tolist() == COUNTS.tolist()
    assert loaded.size == (HEIGHT, WIDTH, 1)
    assert (loaded.kept, loaded.notes - {"alpha dropped"}) == (False, {"16 bit"})
    assert ("alpha dropped" in loaded.notes) == (kind == "png with alpha")


def test_counts_are_turned_by_exif() -> None:
    for orientation, shown in SHOWN.items():
        for data in (
            deep_png(COUNTS[..., None], 0, before=chunk(b"eXIf", exif(orientation)[6:])),
            tiff(COUNTS, orientation),
        ):
            assert read_image(data).pixels.tolist() == shown(COUNTS).tolist()


# Channels of 16 bit, and v / 257 to the nearest.
DEEP = np.array([[[0, 128, 129], [257, 385, 386]], [[65535, 65407, 65406], [257 * 7, 32767, 32768]]], np.uint16)
SQUEEZED = [[[0, 0, 1], [1, 1, 2]], [[255, 255, 254], [7, 127, 128]]]


def test_colour_of_16_bit_is_divided_by_257() -> None:
    with_alpha = np.dstack([DEEP, np.full((2, 2), 65535, np.uint16)])
    for data in (deep_png(DEEP, 2), deep_png(with_alpha, 6), tiff(DEEP), pgm(DEEP, 65535, b"P6")):
        loaded = read_image(data)
        assert loaded.pixels.dtype == np.uint8
        assert loaded.pixels.tolist() == SQUEEZED
        assert (loaded.kept, loaded.notes) == (False, {"16 bit a channel scaled to 8 bit"})
    for orientation, shown in SHOWN.items():
        for data in (tiff(DEEP, orientation), deep_png(DEEP, 2, before=chunk(b"eXIf", exif(orientation)[6:]))):
            assert read_image(data).pixels.tolist() == shown(np.array(SQUEEZED)).tolist()


def test_a_colour_ppm_is_a_share_of_its_maximum() -> None:
    pixels = np.array([[[0, 250, 1000], [4, 996, 502]]] * 2)
    assert read_image(pgm(pixels, 1000, b"P6")).pixels[0].tolist() == [[0, 64, 255], [1, 254, 128]]


def animated(kind: str) -> bytes:
    return saved(COLOUR, kind, save_all=True, append_images=[PIL.Image.fromarray(COLOUR[::-1])])


def twelve_bit_jpeg2000() -> bytes:
    data = bytearray(saved(COUNTS, "JPEG2000"))
    data[data.index(b"\xff\x4f\xff\x51") + 42] = 11  # Ssiz: bits less one
    return bytes(data)


REFUSED = {
    "empty": (lambda: b"", "the file is empty"),
    "text": (lambda: b"hello, this is no image at all", "not an image"),
    "heic": (lambda: b"\0\0\0\x18ftypheic" + bytes(40), "HEIC is not read; convert it to JPEG or PNG"),
    "svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "not an image"),
    "float": (lambda: tiff(GREY.astype(np.float32)), "floating-point numbers; save it as"),
    "32 bit": (lambda: tiff(GREY.astype(np.uint32)), "integers of 32 bit or with a sign; save it as"),
    "signed": (lambda: tiff(GREY.astype(np.int16)), "integers of 32 bit or with a sign; save it as"),
    "CIELab": (lambda: tiff(COLOUR, photometric=8), "CIELab colours; save it as"),
    "pages": (lambda: animated("TIFF"), "a TIFF of 2 pages; save each as an image of its own"),
    "gif": (lambda: animated("GIF"), "a GIF of 2 frames"),
    "webp": (lambda: animated("WEBP"), "a WEBP of 2 frames"),
    "apng": (lambda: animated("PNG"), "a PNG of 2 frames"),
    "jpeg 2000 of 12 bit": (twelve_bit_jpeg2000, "JPEG2000 .* of 12 bit is not read; save it as PNG"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_rule_covers_is_refused_by_name(kind: str) -> None:
    make, message = REFUSED[kind]
    with pytest.raises(ValueError, match=message):
        read_image(make())


def test_a_camera_s_second_picture_in_a_jpeg_is_left_alone() -> None:
    loaded = read_image(animated("MPO"))
    assert loaded.pixels.shape == COLOUR.shape
    assert (loaded.kept, loaded.notes) == (True, {"the first of 2 pictures"})


# A photograph with something in every block.
PHOTO = cv2.normalize(
    cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8), (0, 0), 2),
    np.empty((120, 160, 3), np.uint8),
    0,
    255,
    cv2.NORM_MINMAX,
)
END = b"\xff\xd9"


def jpeg(*options: int) -> bytes:
    return cv2.imencode(".jpg", PHOTO, list(options))[1].tobytes()


JPEGS = {
    "baseline": (),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 5),
    "own tables": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_that_is_cut_off_is_found(kind: str) -> None:
    data = jpeg(*JPEGS[kind])
    assert read_image(data).kept
    start = data.index(b"\xff\xda") + 20
    for share in (0.02, 0.3, 0.5, 0.8, 0.97):
        cut = data[: start + int((len(data) - start) * share)]
        for damaged in (cut, cut + END, cut + END + bytes(5000)):
            with pytest.raises(ValueError, match="JPEG is cut off or damaged"):
                read_image(damaged)
    with pytest.raises(ValueError, match="JPEG is cut off or damaged"):
        read_image(data[:start] + data[start + (len(data) - start) // 2 :])  # a hole
    for length in (2, 5, 100, 400):
        with pytest.raises(ValueError, match=r"JPEG is cut off or damaged|not an image"):
            read_image(data[:length])


def test_what_stands_around_the_picture_of_a_jpeg_is_no_damage() -> None:
    data = jpeg()
    broken_exif = b"\xff\xe1" + struct.pack(">H", 42) + b"Exif\0\0MM" + bytes(range(100, 132))
    for whole in (
        data + bytes(4000),  # padded, as cameras write
        data + b"\r\nComment",
        data[:2] + broken_exif + data[2:],
        data[:2] + b"\xff\xfe\0\x07hello" + data[2:],
        data[:2] + b"\xff\xff\xff" + data[2:],  # bytes that fill
    ):
        loaded = read_image(whole)
        assert loaded.kept
        assert (loaded.pixels == images.decode(data)).all()


def test_a_coding_that_only_pillow_reads_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from vadpipe.store import jpeg as checked

    data = jpeg()
    monkeypatch.setattr(checked, "_CODINGS", set())
    assert read_image(data[: len(data) // 2] + END).kept


def test_every_changed_byte_of_a_png_is_found() -> None:
    data = saved(COLOUR, "PNG")
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(ValueError, match=r"cut off or damaged|not an image|pixels"):
            read_image(bytes(damaged))
    for length in (8, 20, 40, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match=r"cut off or damaged|not an image"):
            read_image(data[:length])
    assert read_image(data + b"\0\0").kept


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_other_files_that_are_cut_off_are_found(kind: str) -> None:
    data = saved(PHOTO, kind)
    for share in (0.2, 0.5, 0.9):
        with pytest.raises(ValueError, match=r"is cut off or damaged|not an image"):
            read_image(data[: int(len(data) * share)])


def test_damaged_files_end_in_a_value_error_and_nothing_else() -> None:
    random = np.random.default_rng(0)
    files = [saved(COLOUR, kind) for kind in ("PNG", "JPEG", "BMP", "GIF", "WEBP", "PPM")]
    for _ in range(300):
        data = bytearray(files[random.integers(len(files))])
        for at in random.integers(0, min(len(data), 300), 3):
            data[at] = random.integers(256)
        for read in (read_image, read_mask):
            with contextlib.suppress(ValueError):
                read(bytes(data))


BOMBS = {
    "png": lambda: png([b""], 60000, 8, 2).replace(struct.pack(">II", 60000, 1), struct.pack(">II", 60000, 60000)),
    "bmp": lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
    "gif": lambda: b"GIF89a" + struct.pack("<HHBBB", 60000, 60000, 0, 0, 0) + b";",
    "pgm": lambda: b"P5 999999999 999999999 255\n",
}


def with_size(data: bytes, height: int, width: int) -> bytes:
    """Change the size that the header of a PNG states, its checksum included."""
    head = struct.pack(">II", width, height) + data[24:29]
    return data[:8] + chunk(b"IHDR", head) + data[33:]


def test_image_bombs_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    bomb = with_size(saved(COLOUR, "PNG"), 60000, 60000)
    for data in (bomb, BOMBS["bmp"](), BOMBS["pgm"]()):
        file = tmp_path / "bomb"
        file.write_bytes(data)
        for read in (lambda: read_image(data), lambda: read_mask(data), lambda: header_size(file)):  # noqa: B023
            with pytest.raises(ValueError, match="are more than 200 million; scale it down"):
                read()
    with pytest.raises(ValueError, match=r"200 million|not an image"):
        read_image(BOMBS["gif"]())


@pytest.mark.parametrize(("height", "width"), [(1, 20), (20, 1), (1, 1)])
def test_a_side_of_one_pixel_is_no_picture(height: int, width: int) -> None:
    pixels = np.zeros((height, width, 3), np.uint8)
    for kind in ("PNG", "JPEG", "BMP"):
        with pytest.raises(ValueError, match=f"{height}x{width} pixels"):
            read_image(saved(pixels, kind))
    with pytest.raises(ValueError, match=r"pixels|not an image"):
        read_image(with_size(saved(COLOUR, "PNG"), 0, 5))
    assert read_image(saved(np.zeros((2, 2), np.uint8), "JPEG")).size == (2, 2, 1)


def test_nothing_is_written_to_stderr(tmp_path: Path) -> None:
    tagged = bytearray(tiff(COLOUR))
    tagged[10:12] = struct.pack("<H", 33432)  # a tag that Pillow warns of
    files = {
        "cut.jpg": jpeg()[:3000] + END,
        "cut.png": saved(PHOTO, "PNG")[:-400],
        "cut.tif": saved(PHOTO, "TIFF", compression="tiff_lzw")[:-4000],
        "tagged.tif": bytes(tagged),
        "palette.png": palette_png(PALETTE, INDICES, b"\xff\0\x80\xff"),
        "deep.tif": tiff(DEEP),
        "large.png": with_size(saved(COLOUR, "PNG"), 10000, 15000),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import sys; from pathlib import Path; from vadpipe.store.image_files import read_image, header_size\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    for read in (lambda: read_image(path.read_bytes()), lambda: header_size(path)):\n"
        "        try: print(path.name, read())\n"
        "        except ValueError as error: print(path.name, error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert "cut.tif the TIFF is cut off" in done.stdout or "cut.tif not an image" in done.stdout


def test_special_files_are_refused_and_never_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, dangling, loop = tmp_path / "pipe.png", tmp_path / "dangling.png", tmp_path / "loop.png"
    os.mkfifo(pipe)
    dangling.symlink_to("nowhere")
    loop.symlink_to("loop.png")
    cases = {
        pipe: "is a named pipe, but a file is wanted",
        tmp_path: "is a folder, but a file is wanted",
        Path("/dev/zero"): "is a device, but a file is wanted",
        dangling: "is a link to nowhere, which cannot be reached",
        loop: "is a link that leads back to itself",
        tmp_path / "absent.png": "is not there; add it",
    }
    for path, message in cases.items():
        for read in (read_bytes, header_size, open_npy_masks):
            with pytest.raises(UserError, match=f"^{path} .*{message}"):
                read(path)
    giant = tmp_path / "giant.png"
    with giant.open("wb") as file:
        file.truncate(5 * 10**9)  # sparse: takes no space
    with pytest.raises(UserError, match=r"giant\.png has 5\.0 GB"):
        read_bytes(giant)
    closed = tmp_path / "closed.png"
    closed.write_bytes(b"x")

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # a test may run as root, who may read everything
    with pytest.raises(UserError, match=f"{closed} cannot be read: it may not be read"):
        read_bytes(closed)


def test_counts_are_scaled_by_the_range_of_the_training_set() -> None:
    # 7200..7327 counts are 127 wide, so that a count is a level.
    counts = np.array([[7200, 7327, 7264], [7136, 7137, 7391], [7392, 0, 65535]], np.uint16)
    assert scale16(counts, 7200, 7327).tolist() == [[64, 191, 128], [0, 1, 255], [255, 0, 255]]
    assert scale16(counts, 0, 65535)[2].tolist() == [78, 64, 191]
    assert scale16(np.array([[4, 5, 6, 7]], np.uint16), 5, 5).tolist() == [[0, 128, 254, 255]]
    assert scale16(counts, 7200, 7327).dtype == np.uint8


def test_the_range_is_gathered_frame_by_frame() -> None:
    assert range16(iter([COUNTS, COUNTS + 5, COUNTS])) == (7000, 7000 + 19 * 300 + 11 * 11 + 5)
    with pytest.raises(ValueError, match="no frames"):
        range16([])


def test_frames_of_16_bit_are_stored_by_their_range(tmp_path: Path) -> None:
    file = tmp_path / "thermal.png"
    file.write_bytes(deep_png(COUNTS[..., None], 0))
    for image in (file, COUNTS):
        stored = encode(check(Frame("f", image), Storing(None, counts=(7000, 13000))), None)
        expected = np.clip(np.rint(127.5 + (COUNTS - 10000.0) * 127 / 6000), 0, 255)
        assert (images.decode_grey(stored.row["image"]) == expected).all()
        assert stored.size == (HEIGHT, WIDTH, 1)
    with pytest.raises(UserError, match="f has 16 bit, but the training clips begin with frames of 8"):
        check(Frame("f", file), Storing(None))


# Masks. The object of ten by twelve pixels in a frame of 48 by 64.

OBJECT = np.zeros((48, 64), bool)
OBJECT[20:30, 30:42] = True


def with_object(value: object, background: object = 0, dtype: type = np.uint8) -> np.ndarray:
    shape = np.broadcast_shapes(np.shape(value), np.shape(background))
    image = np.empty((*OBJECT.shape, *shape), dtype)
    image[:], image[OBJECT] = background, value
    return image


def index_mask(palette: list[int]) -> bytes:
    image = PIL.Image.fromarray(with_object(1))
    image.putpalette(palette)
    return saved(image, "PNG")


EXACT_MASKS = {
    "0 and 255": lambda: saved(with_object(255), "PNG"),
    "0 and 1": lambda: saved(with_object(1), "PNG"),
    "1 bit": lambda: saved(PIL.Image.fromarray(OBJECT), "PNG"),
    "bmp": lambda: saved(with_object(255), "BMP"),
    "id of 16 bit": lambda: saved(with_object(3, dtype=np.uint16), "PNG"),
    "id of 16 bit, high byte": lambda: saved(with_object(512, dtype=np.uint16), "TIFF"),
    "id of 32 bit": lambda: saved(with_object(70000, dtype=np.int32), "TIFF"),
    "number with a point": lambda: saved(with_object(0.4, dtype=np.float32), "TIFF"),
    "red": lambda: saved(with_object((255, 0, 0), (0, 0, 0)), "PNG"),
    "blue of one level": lambda: saved(with_object((0, 0, 1), (0, 0, 0)), "PNG"),
    "colour of 16 bit": lambda: deep_png(with_object((0, 0, 5), (0, 0, 0), np.uint16), 2),
    "colour of 16 bit, ppm": lambda: pgm(with_object((0, 0, 5), (0, 0, 0), np.uint16), 65535, b"P6"),
    "palette": lambda: index_mask([0, 0, 0, 128, 0, 0]),
    "palette of white and black": lambda: index_mask([0, 0, 0, 255, 255, 255]),
    "opaque": lambda: saved(with_object((255, 0, 0, 255), (0, 0, 0, 255)), "PNG"),
    "transparent background": lambda: saved(with_object((255, 0, 0, 128), (255, 255, 255, 0)), "PNG"),
    "alpha of no use": lambda: saved(with_object((255, 0, 0, 7), (0, 0, 0, 7)), "PNG"),
}
ALPHA_MASKS = {
    "on black": lambda: saved(with_object((0, 0, 0, 255), (0, 0, 0, 0)), "PNG"),
    "on white": lambda: saved(with_object((255, 255, 255, 255), (255, 255, 255, 0)), "PNG"),
    "grey": lambda: saved(with_object((0, 255), (0, 0)), "PNG"),
}


@pytest.mark.parametrize("kind", EXACT_MASKS)
def test_a_pixel_is_abnormal_where_a_channel_is_not_zero(kind: str) -> None:
    mask, notes = read_mask(EXACT_MASKS[kind]())
    assert mask.dtype == np.bool_
    assert (mask == OBJECT).all()
    assert notes == frozenset()


@pytest.mark.parametrize("kind", ALPHA_MASKS)
def test_a_mask_in_the_alpha_channel(kind: str) -> None:
    mask, notes = read_mask(ALPHA_MASKS[kind]())
    assert (mask == OBJECT).all()
    assert notes == {"taken from the alpha channel"}


def test_masks_of_frames_without_an_object() -> None:
    for empty in (np.zeros((8, 9), np.uint8), np.zeros((8, 9, 4), np.uint8), np.uint8([[[255, 255, 255, 0]] * 9] * 8)):
        assert not read_mask(saved(empty, "PNG"))[0].any()
    opaque = np.uint8([[[0, 0, 0, 255]] * 9] * 8)
    assert not read_mask(saved(opaque, "PNG"))[0].any()
    assert read_mask(saved(np.full((8, 9), 255, np.uint8), "PNG"))[0].all()


def test_of_a_palette_the_colour_counts_and_a_coloured_index_0_is_told() -> None:
    mask, notes = read_mask(index_mask([255, 255, 255, 0, 0, 0]))
    assert (mask == ~OBJECT).all()
    assert notes == {"index 0 of the palette is the colour (255, 255, 255) and counts as abnormal"}


def disc() -> np.ndarray:
    return np.where(np.hypot(*(np.mgrid[:90, :120] - np.array([[[45]], [[60]]]))) < 20.2, np.uint8(255), np.uint8(0))


def smooth_disc() -> np.ndarray:
    """Return the disc with each pixel as grey as it is covered."""
    fine = np.hypot(*((np.mgrid[:720, :960] + 0.5) / 8 - np.array([[[45.5]], [[60.5]]]))) < 20.2
    return np.rint(fine.reshape(90, 8, 120, 8).mean((1, 3)) * 255).astype(np.uint8)


SOFT = {"soft edges, cut at half of the range"}
SOFT_MASKS = {
    "drawn smoothly": lambda: saved(smooth_disc(), "PNG"),
    "blurred": lambda: saved(cv2.GaussianBlur(disc(), (0, 0), 2), "PNG"),
    "blurred, in red": lambda: saved(np.dstack([cv2.GaussianBlur(disc(), (0, 0), 2), disc() * 0, disc() * 0]), "PNG"),
    "16 bit": lambda: saved(cv2.GaussianBlur(disc().astype(np.uint16) * 257, (0, 0), 2), "PNG"),
    "numbers with a point": lambda: saved(cv2.GaussianBlur(disc().astype(np.float32) / 255, (0, 0), 2), "TIFF"),
    "jpeg": lambda: saved(disc(), "JPEG", quality=60),
    "alpha": lambda: saved(np.dstack([disc() * 0] * 3 + [cv2.GaussianBlur(disc(), (0, 0), 2)]), "PNG"),
}


@pytest.mark.parametrize("kind", SOFT_MASKS)
def test_soft_edges_are_cut_at_half_of_the_range(kind: str) -> None:
    mask, notes = read_mask(SOFT_MASKS[kind]())
    assert (mask ^ (disc() > 0)).sum() <= 12  # of 1257, along an edge of 126 pixels
    assert notes - {"taken from the alpha channel"} == SOFT


def test_a_soft_rectangle_has_its_true_area() -> None:
    mask, notes = read_mask(saved(cv2.GaussianBlur(with_object(255), (0, 0), 1.5), "PNG"))
    assert notes == SOFT
    assert 110 <= mask.sum() <= 120


def test_a_jpeg_of_a_rectangle_is_cut_as_well() -> None:
    mask, notes = read_mask(saved(with_object(255), "JPEG", quality=50))
    assert (mask ^ OBJECT).sum() <= 6
    assert notes == SOFT


def cells(values: np.ndarray) -> np.ndarray:
    """Return ids that fill touching cells, the first one background."""
    seeds = np.random.default_rng(3).random((len(values), 2)) * (90, 120)
    y, x = np.mgrid[:90, :120]
    return values[np.square(np.stack([y, x], -1)[:, :, None] - seeds).sum(-1).argmin(-1)]


ID_MAPS = {
    "touching cells": lambda: cells(np.array([0, 20, 250, 40, 180, 0, 90, 130, 60, 0, 210, 30])).astype(np.uint8),
    "cells of 16 bit": lambda: cells(np.arange(25) % 12 * 1000).astype(np.uint16),
    "cells of 32 bit": lambda: cells(np.arange(25) % 12 * 100000).astype(np.int32),
    "small ids in thin lines": lambda: np.kron(np.arange(12) % 4, np.ones((8, 1))).astype(np.uint8),
    "object in object": lambda: cv2.circle(disc() // 3, (60, 45), 8, 255, -1),
    "object with a border": lambda: cv2.circle(disc() // 3, (60, 45), 20, 255, 2),
    "dots": lambda: np.kron(np.random.default_rng(5).choice([0] * 40 + [30, 99, 250], (30, 40)), np.eye(3, dtype=int)),
}


@pytest.mark.parametrize("kind", ID_MAPS)
def test_ids_are_not_taken_for_soft_edges(kind: str) -> None:
    values = ID_MAPS[kind]()
    mask, notes = mask_of(values)
    assert (mask == (values != 0)).all()
    assert notes == {"several values, each above zero abnormal"}


def test_masks_are_turned_by_exif() -> None:
    for orientation, shown in SHOWN.items():
        mask, _ = read_mask(saved(with_object(255), "PNG", exif=exif(orientation)))
        assert (mask == shown(OBJECT)).all()


def test_what_is_no_mask_is_refused() -> None:
    for values in (np.array([[0.0, np.nan]] * 2), np.array([[0, -1]] * 2), np.array([[0.0, np.inf]] * 2)):
        with pytest.raises(ValueError, match="below zero, infinite or NaN"):
            mask_of(values)
    for values in (np.array([["a"]]), np.zeros(3), np.zeros((2, 2), complex)):
        with pytest.raises(ValueError, match="are no mask"):
            mask_of(values)
    for data in (jpeg()[:3000] + END, b"", animated("TIFF")):
        with pytest.raises(ValueError, match=r"JPEG is cut off|empty|2 pages"):
            read_mask(data)


@pytest.mark.parametrize("dtype", [np.uint8, bool, np.int64, np.float32, ">u2"])
def test_volumes_of_masks(tmp_path: Path, dtype: type) -> None:
    for volume in (np.stack([OBJECT, ~OBJECT]), np.stack([OBJECT, ~OBJECT])[..., None] * np.array([0, 1, 0])):
        np.save(tmp_path / "a.npy", volume.astype(dtype))
        opened = open_npy_masks(tmp_path / "a.npy")
        assert len(opened) == 2
        for mask, expected in zip(opened, (OBJECT, ~OBJECT), strict=True):
            found, notes = mask_of(mask)
            assert type(found) is np.ndarray
            assert (found == expected).all()
            assert notes == frozenset()


def npy_header(shape: str, dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def packed() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, OBJECT)
    return buffer.getvalue()


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


NO_VOLUMES = {
    "empty": lambda: b"",
    "text": lambda: b"0 0 1 0",
    "npz": packed,
    "cut off": lambda: npy(np.stack([OBJECT] * 3))[:-100],
    "strings": lambda: npy(np.array([[["a"]]])),
    "objects": lambda: npy(np.array([[[None]]])),
    "records": lambda: npy(np.zeros((2, 3, 3), [("a", "u1")])),
    "complex": lambda: npy(np.zeros((2, 3, 3), complex)),
    "dates": lambda: npy(np.zeros((2, 3, 3), "M8[s]")),
    "two axes": lambda: npy(OBJECT),
    "no frames": lambda: npy(np.zeros((0, 3, 3))),
    "negative": lambda: npy_header("(-1, 4, 4)"),
    "two negative": lambda: npy_header("(-2, -4, 8)"),
    "giant": lambda: npy_header("(99999999, 99999999, 99999999)"),
    "beyond int64": lambda: npy_header("(99999999999999999999999999, 4, 4)"),
    "numbers with a point as shape": lambda: npy_header("(1.5, 4, 4)"),
    "no Python": lambda: npy_header("(((((((("),
}


@pytest.mark.parametrize("kind", NO_VOLUMES)
def test_what_is_no_volume_of_masks_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "clip.npy"
    file.write_bytes(NO_VOLUMES[kind]())
    with pytest.raises(UserError, match=r"^\S*clip\.npy (is|holds|has) ") as error:
        open_npy_masks(file)
    assert len(str(error.value).splitlines()) == 1


def test_what_was_done_stands_beside_the_row(tmp_path: Path) -> None:
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    picture.write_bytes(turned("png, EXIF before", 3))
    mask.write_bytes(saved(np.dstack([GREY * 0, np.where(X > 9, 255, 0).astype(np.uint8)]), "PNG"))
    found = check(Frame("f", picture, mask, label=1), Storing(None))
    assert found.notes == {"turned by EXIF orientation 3", "mask: taken from the alpha channel"}
    assert found.mask is not None
    assert (found.mask == (X > 9)).all()
    found = check(Frame("f", COLOUR, (X > 3), label=1), Storing(None))
    assert found.notes == frozenset()
    stored = encode(found, None).row["mask"]
    assert (images.decode_grey(stored) == np.where(X > 3, 255, 0)).all()
    with pytest.raises(UserError, match=r"the mask of f: it holds numbers below zero"):
        check(Frame("f", COLOUR, X - 3), Storing(None))
    with pytest.raises(UserError, match=r"mask\.png is 12x20 pixels .* but its frame f is 5x20"):
        check(Frame("f", COLOUR[:5], mask), Storing(None))
