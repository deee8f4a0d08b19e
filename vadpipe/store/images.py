"""Encoded images: what a header says, whether a file is whole, decoding and encoding (RGB, uint8)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

Image = npt.NDArray[np.uint8]

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 1, 6: 3}  # colour type -> channels without alpha
# JPEG markers that start a frame header (SOF0-15 without DHT, JPG, DAC).
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Size(NamedTuple):
    """Height and width in pixels, and 1 (grey) or 3 (colour) channels."""

    height: int
    width: int
    channels: int


def size_if_kept(data: bytes) -> Size | None:
    """Return the size of a whole JPEG or PNG, or None for another format (which must be decoded).

    The structure is walked, not the pixels: this is what lets whole files be taken over at the speed
    of copying.

    Raises:
        ValueError: a JPEG or PNG that is cut off or damaged.
    """
    if data[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    if data[:8] == _PNG:
        return _png_size(data)
    return None


def _jpeg_size(data: bytes) -> Size:
    # A camera may pad behind the end marker, so the end is searched, not expected.
    if data.rfind(b"\xff\xd9", len(data) * 3 // 4) < 0:
        raise ValueError("the JPEG is cut off (no end marker)")
    position, size = 2, None
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xDA:
            break
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _JPEG_FRAMES:
            height, width, components = struct.unpack(">HHB", data[position + 5 : position + 10])
            size = Size(height, width, 1 if components == 1 else 3)
        position += 2 + length
    if size is None or size.height == 0 or size.width == 0:
        raise ValueError("the JPEG has no frame header")
    return size


def _png_size(data: bytes) -> Size:
    position, size = 8, None
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 12 + length
        kind = data[position + 4 : position + 8]
        if end > len(data) or zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            break
        if kind == b"IHDR":
            width, height, _, colour = struct.unpack(">IIBB", data[position + 8 : position + 18])
            size = Size(height, width, _PNG_CHANNELS.get(colour, 3))
        if kind == b"IEND" and size is not None:
            return size
        position = end
    raise ValueError("the PNG is cut off or damaged")


def header_size(path: Path) -> Size:
    """Return the size of an image file of any format by its header; nothing is decoded.

    Raises:
        ValueError: the file is no image.
    """
    try:
        with PIL.Image.open(path) as image:
            return Size(image.height, image.width, 1 if image.mode in {"1", "L", "LA", "I", "I;16", "F"} else 3)
    except OSError:
        raise ValueError("not an image") from None


def decode(data: bytes) -> Image:
    """Decode an image to uint8 (H, W, 3), RGB; grey is repeated, alpha dropped.

    Raises:
        ValueError: the data are no image.
    """
    return cv2.cvtColor(_decode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def decode_grey(data: bytes) -> Image:
    """Decode an image to uint8 (H, W), grey.

    Raises:
        ValueError: the data are no image.
    """
    return _decode(data, cv2.IMREAD_GRAYSCALE)


def _decode(data: bytes, flag: int) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION) if data else None
    if image is None:
        raise ValueError("not an image")
    return image  # type: ignore[return-value]


def encode_png(image: Image) -> bytes:
    """Encode uint8 (H, W) grey or (H, W, 3) RGB as PNG."""
    # Level 1: for noisy frames higher levels cost several times the time and save a few per cent.
    return _encode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Encode uint8 (H, W) grey or (H, W, 3) RGB as JPEG of a quality from 1 to 100."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode(suffix: str, image: Image, options: list[int]) -> bytes:
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    return cv2.imencode(suffix, pixels, options)[1].tobytes()
