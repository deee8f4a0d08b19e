"""Image files of users: what they hold, what is done to it, and what is refused. One rule each.

Read are JPEG, PNG, BMP, TIFF, WebP, PBM/PGM/PPM, GIF, JPEG 2000 and AVIF; not HEIC, which is refused by name.

- Grey and RGB of 8 bit, and 1 bit (as 0 and 255), are taken as they are. Colour profiles and gamma are not applied.
- A palette is expanded to its colours.
- Alpha is dropped, and said so where a pixel is not opaque; colours below it are untouched, nothing is blended.
- CMYK is converted to RGB as Pillow does (of a JPEG the inks are taken as inverted, as Adobe writes them).
- The EXIF orientation (or that of XMP) is applied: the picture is what a viewer shows; boxes and masks refer to that.
- Grey of 16 bit (PNG, TIFF, PGM, JPEG 2000) stays counts, uint16, of which `counts` makes 8 bit by the range of the
  training set. Fewer bits, such as 12 in a TIFF, are counts as well.
- Colour of 16 bit (PNG, TIFF, PPM) is divided by 257 and rounded (a PPM by its own maximum).
- AVIF of 10 or 12 bit is scaled to 8 bit; JPEG 2000 of other than 8 bit, or 16 bit grey, is refused.
- Of a JPEG with several pictures (a camera's preview or gain map, MPO) the first is taken; a TIFF of several pages
  and an animated GIF, WebP, PNG or AVIF are refused, with a single one they are read.
- Refused are floating-point numbers, integers of 32 bit or with a sign, CIELab and HSV; sides of less than 2 pixels,
  and more than 200 million pixels altogether, which is looked at before anything is decoded.
- A PNG is whole if its checksums are right, a JPEG if its picture is (see `jpeg`), any other if Pillow decodes it.

What was done is told in `notes`. The bytes of a JPEG or PNG whose decoded pixels are all there is (no alpha, not
turned, 8 bit, no CMYK) can be kept.
"""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
import PIL.AvifImagePlugin
import PIL.BmpImagePlugin
import PIL.GifImagePlugin
import PIL.Image
import PIL.Jpeg2KImagePlugin
import PIL.JpegImagePlugin
import PIL.PngImagePlugin
import PIL.PpmImagePlugin
import PIL.TiffImagePlugin
import PIL.WebPImagePlugin

from vadpipe.errors import no_memory
from vadpipe.files import reading
from vadpipe.store.images import Size, size_of
from vadpipe.store.jpeg import check_jpeg

MAX_PIXELS = 200_000_000
_MIN_SIDE = 2
# A JPEG with several pictures is opened as JPEG, and then called MPO.
_FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM", "GIF", "JPEG2000", "AVIF"]
PICTURE_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I;16B", "I;16L", "I;16N"}
_MODE_NAMES = {
    "I": "integers of 32 bit or with a sign",
    "F": "floating-point numbers",
    "LAB": "CIELab colours",
    "HSV": "HSV colours",
}
_ORIENTATION = 0x0112  # in EXIF and TIFF
_TURNED_BY_LIBRARY = {"TIFF"}  # Pillow and OpenCV apply the orientation of a TIFF, its header's size included
# What Pillow raises on damaged files, as trying thousands of them showed.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)

# Sizes are checked here, before memory is taken; Pillow would only warn, on stderr.
PIL.Image.MAX_IMAGE_PIXELS = None
# Both libraries write about odd metadata to stderr, without the name of the file. What matters is raised.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

Numbers = npt.NDArray[Any]
# uint8 (H, W, 3) RGB, uint8 (H, W) grey, or uint16 (H, W) counts.
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Loaded:
    """A picture, as it is shown.

    Attributes:
        size: height, width, channels, after EXIF.
        pixels: uint8 (H, W, 3) RGB, uint8 (H, W) grey, or uint16 (H, W) counts.
        kept: whether the bytes can be taken over: `images.decode` gives exactly these pixels.
        notes: what was done that matters, such as `turned by EXIF orientation 6`.
    """

    size: Size
    pixels: Pixels
    kept: bool
    notes: frozenset[str]


@dataclass(frozen=True)
class Planes:
    """The numbers of an image file, turned by its EXIF orientation.

    Attributes:
        colour: (H, W) or (H, W, 3), uint8 or uint16, of masks also int32 or float32.
        alpha: (H, W) of colour's type, 0 = transparent; None where there is none.
        palette: the colour at index 0 of the palette and whether it is used; None where there is no palette.
        exact: whether the picture is 8 bit grey or RGB with nothing dropped, turned or converted.
        format: Pillow's name.
        notes: what was done.
    """

    colour: Numbers
    alpha: Numbers | None
    palette: tuple[tuple[int, ...], bool] | None
    exact: bool
    format: str
    notes: frozenset[str]


def read_image(data: bytes) -> Loaded:
    """Read an image file by the rules above; it is decoded once.

    Raises:
        ValueError: it is no image, damaged, or of a kind that is refused.
    """
    planes = read_planes(data, PICTURE_MODES)
    pixels, notes = planes.colour, set(planes.notes)
    if planes.alpha is not None and (planes.alpha != np.iinfo(planes.alpha.dtype).max).any():
        notes.add("alpha dropped")
    if pixels.dtype == np.uint16:
        if pixels.ndim == 3:
            pixels = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
            notes.add("16 bit a channel scaled to 8 bit")
        else:
            notes.add("16 bit")
    kept = planes.exact and planes.format in {"JPEG", "MPO", "PNG"}
    return Loaded(size_of(pixels), pixels, kept, frozenset(notes))


def header_size(path: Path) -> Size:
    """Return the size of an image file as it is shown, by its header; no picture is decoded.

    Raises:
        ValueError: the file is no image, or of a size that is refused.
        UserError: it is no regular file, or cannot be read.
    """
    with reading(path), path.open("rb") as file:
        turns = _may_be_turned(file)
        file.seek(0)
        image = _open(file)
        width, height = image.size
        if image.format not in _TURNED_BY_LIBRARY and turns and _orientation(image) >= 5:
            height, width = width, height
        grey = image.mode in {"1", "L", "LA", "F"} or image.mode.startswith("I")
        return Size(height, width, 1 if grey else 3)


def read_planes(data: bytes, modes: set[str]) -> Planes:
    """Decode an image file whose pixels are of one of Pillow's `modes`.

    Raises:
        ValueError: it is no image, damaged, or of a kind that is refused.
    """
    with _open(io.BytesIO(data)) as image:
        try:
            bits = _bits(image, data)
        except _DAMAGE as error:
            raise _damaged(image, error) from None
        notes = _check_kind(image, bits, modes)
        orientation = _decode(image, data)
        palette = None
        if image.mode == "P":
            palette = tuple((image.getpalette() or [0, 0, 0])[:3]), image.getextrema()[0] == 0
            notes.add("palette expanded")
        elif "transparency" in image.info:
            notes.add("alpha dropped")
        if orientation > 1:
            notes.add(f"turned by EXIF orientation {orientation}")
        exact = (
            image.mode in {"1", "L", "RGB", "P"} and bits <= 8 and orientation == 1 and "transparency" not in image.info
        )
        colour, alpha = _split_deep(image.format, data) if _is_deep(image, bits) else _split(image)
        if image.format not in _TURNED_BY_LIBRARY:
            colour, alpha = _turned(colour, orientation), None if alpha is None else _turned(alpha, orientation)
        return Planes(colour, alpha, palette, exact, str(image.format), frozenset(notes))


def _open(file: BinaryIO) -> PIL.Image.Image:
    """Open an image, whose header is read and its size checked."""
    try:
        image = PIL.Image.open(file, formats=_FORMATS)
    except _DAMAGE:
        file.seek(0)
        raise ValueError(_no_image(file.read(32))) from None
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"{height}x{width} pixels (height x width) are more than {MAX_PIXELS // 10**6} million; scale it down"
        )
    if min(width, height) < _MIN_SIDE:
        raise ValueError(f"{height}x{width} pixels (height x width) are no picture")
    return image


def _no_image(head: bytes) -> str:
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix", b"hevc", b"hevx", b"mif1", b"msf1"}:
        return "HEIC is not read; convert it to JPEG or PNG"
    return "not an image, one of a kind that is not read, or damaged in its header"


def _damaged(image: PIL.Image.Image, error: BaseException) -> Exception:
    if no_memory(error):
        return MemoryError(str(error))
    return ValueError(f"the {image.format} is cut off or damaged ({' '.join(str(error).split())})")


def _bits(image: PIL.Image.Image, data: bytes) -> int:
    """Return the bits a channel in the file, which Pillow does not tell; 8 stands for 8 and less."""
    bits = 8
    if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
        bits = max(image.tag_v2.get(258, (1,)))
    elif image.format == "PNG":
        bits = data[24]
    elif image.format == "PPM" and image.mode in {"I", "RGB"}:
        bits = 16 if _ppm_maximum(data) > 255 else 8
    elif image.format == "JPEG2000":
        at = data.find(b"\xff\x4f\xff\x51") + 42  # Ssiz of the first component
        bits = (data[at] & 0x7F) + 1 if at < len(data) else 8
    elif image.format == "AVIF" and (at := data.find(b"av1C") + 6) < len(data):
        bits = 12 if data[at] & 0x20 else 10 if data[at] & 0x40 else 8
    return max(bits, 8)


def _ppm_maximum(data: bytes) -> int:
    """Return what stands for white in a PGM or PPM: the fourth word, comments left out."""
    return int(re.sub(rb"#[^\n]*", b"", data[:10_000]).split()[3])


def _check_kind(image: PIL.Image.Image, bits: int, modes: set[str]) -> set[str]:
    """Refuse what no rule covers; return what was done so far."""
    try:
        pictures = getattr(image, "n_frames", 1)
    except _DAMAGE:
        pictures = 1  # decoding says what is wrong
    if pictures > 1 and image.format != "MPO":
        kind = "pages" if image.format == "TIFF" else "frames"
        raise ValueError(f"it is a {image.format} of {pictures} {kind}; save each as an image of its own")
    pgm = image.format == "PPM" and image.mode == "I"  # counts of 16 bit
    if image.mode not in modes and not pgm:
        kind = _MODE_NAMES.get(image.mode, f"of the kind {image.mode}")
        raise ValueError(f"its pixels are {kind}; save it as grey or RGB of 8 bit, or as grey of 16 bit")
    if (image.format == "JPEG2000" and bits > 8 and (image.mode, bits) != ("I;16", 16)) or (
        bits > 8 and image.mode in {"CMYK", "YCbCr"}
    ):
        raise ValueError(f"a {image.format} ({image.mode}) of {bits} bit is not read; save it as PNG")
    notes = set()
    if pictures > 1:
        notes.add(f"the first of {pictures} pictures")
    if image.mode == "CMYK":
        notes.add("CMYK converted to RGB")
    if image.format == "AVIF" and bits > 8:
        notes.add(f"{bits} bit a channel scaled to 8 bit")
    return notes


def _decode(image: PIL.Image.Image, data: bytes) -> int:
    """Decode, check that the picture is whole, and return its EXIF orientation."""
    if image.format == "PNG":
        _check_png(data)
    try:
        if isinstance(image, PIL.TiffImagePlugin.TiffImageFile):
            _check_tiff(image, len(data))
            orientation = _orientation(image)  # is gone when Pillow has turned the picture
            image.load()
            return orientation
        image.load()
    except _DAMAGE as error:
        raise _damaged(image, error) from None
    if image.format in {"JPEG", "MPO"}:
        check_jpeg(data)
    return _orientation(image)


def _check_png(data: bytes) -> None:
    """Check the checksums of a PNG, which no decoder does for the picture."""
    position = 8
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        right = int.from_bytes(data[end - 4 : end], "big")
        if end > len(data) or zlib.crc32(memoryview(data)[position + 4 : end - 4]) != right:
            break
        if data[position + 4 : position + 8] == b"IEND":
            return
        position = end
    raise ValueError("the PNG is cut off or damaged")


def _check_tiff(image: PIL.TiffImagePlugin.TiffImageFile, length: int) -> None:
    """Check that the strips or tiles of a TIFF lie inside it; libtiff would complain on stderr."""
    tags = image.tag_v2
    starts, sizes = (tags.get(273, tags.get(324)), tags.get(279, tags.get(325)))
    if starts is None or (sizes and max(np.add(starts, sizes)) > length):
        raise ValueError("its pixels are not all there")


def _orientation(image: PIL.Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION)
    except _DAMAGE:
        return 1  # EXIF that nobody can read turns nothing, as in a viewer
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _may_be_turned(file: BinaryIO) -> bool:
    """Say whether there may be an orientation; of a PNG, whose EXIF may stand behind the picture, without decoding."""
    if file.read(8) != b"\x89PNG\r\n\x1a\n":
        return True
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"eXIf":
            return True
        skip = length + 4
        if kind in {b"tEXt", b"zTXt", b"iTXt"}:
            keyword = file.read(min(length, 20))
            if keyword.startswith((b"Raw profile type exi", b"XML:com.adobe.xmp")):
                return True
            skip -= len(keyword)
        file.seek(skip, io.SEEK_CUR)
    return False


def _is_deep(image: PIL.Image.Image, bits: int) -> bool:
    """Say whether Pillow squeezes 16 bit to 8, or stretches a PGM by its maximum."""
    if image.format == "PPM":
        return bits == 16
    return bits == 16 and image.format in {"PNG", "TIFF"} and not image.mode.startswith("I")


def _split_deep(kind: str | None, data: bytes) -> tuple[Numbers, Numbers | None]:
    """Return colour and alpha of 16 bit, by OpenCV, when Pillow has found the file to be whole."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype != np.uint16:
        raise ValueError("this kind of 16 bit is not read; save it as PNG")
    if pixels.ndim == 2:
        return pixels, None
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
    if kind == "PNG" and data[25] == 4:  # grey with alpha; OpenCV repeats the grey
        return np.ascontiguousarray(pixels[..., 0]), alpha
    colour = np.ascontiguousarray(pixels[..., 2::-1])
    if kind == "PPM":  # a colour is a share of the maximum that the file states
        most = _ppm_maximum(data)
        colour = ((colour.astype(np.uint32) * 65535 + most // 2) // most).astype(np.uint16)
    return colour, alpha


def _split(image: PIL.Image.Image) -> tuple[Numbers, Numbers | None]:
    """Return colour and alpha of a decoded image."""
    if image.mode in {"P", "PA"}:
        # Colours, whatever is transparent; Pillow warns if it has to drop that itself.
        image = image.convert("RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB")
    elif image.mode in {"CMYK", "YCbCr", "RGBX"}:
        image = image.convert("RGB")
    elif image.mode == "1":
        image = image.convert("L")
    pixels = np.asarray(image)
    if pixels.dtype.kind == "u":
        pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    if image.mode == "LA":
        return np.ascontiguousarray(pixels[..., 0]), pixels[..., 1]
    if image.mode == "RGBA":
        return np.ascontiguousarray(pixels[..., :3]), pixels[..., 3]
    return pixels, None


def _turned(pixels: Numbers, orientation: int) -> Numbers:
    """Return an image as its EXIF orientation says it is to be shown (EXIF 2.32, tag 274)."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # Of the picture as it is now, whether it runs from right to left, and from bottom to top.
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
