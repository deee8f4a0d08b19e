"""Images of the stores: decoding and encoding, RGB, uint8. What users give is read by `image_files`."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]


class Size(NamedTuple):
    """Height and width in pixels, and 1 (grey) or 3 (colour) channels."""

    height: int
    width: int
    channels: int


def size_of(image: npt.NDArray[np.integer]) -> Size:
    """Return the size of (H, W) grey or (H, W, 3) RGB."""
    return Size(image.shape[0], image.shape[1], 1 if image.ndim == 2 else 3)


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


def decode_as_stored(data: bytes) -> Image:
    """Decode an image to uint8 (H, W) where grey was stored, else (H, W, 3) RGB.

    Raises:
        ValueError: the data are no image.
    """
    image = _decode(data, cv2.IMREAD_ANYCOLOR)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _decode(data: bytes, flag: int) -> Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION) if data else None
    if image is None:
        raise ValueError("not an image")
    return image  # type: ignore[return-value]


def encode_png(image: Image) -> bytes:
    """Encode uint8 (H, W) grey or (H, W, 3) RGB as PNG."""
    # Level 1: for noisy frames higher levels cost several times the time and save a few per cent.
    return _encode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """Encode a mask (H, W) as PNG, 255 = True."""
    return encode_png(mask.astype(np.uint8) * np.uint8(255))


def encode_jpeg(image: Image, quality: int) -> bytes:
    """Encode uint8 (H, W) grey or (H, W, 3) RGB as JPEG of a quality from 1 to 100."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _encode(suffix: str, image: Image, options: list[int]) -> bytes:
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    return cv2.imencode(suffix, pixels, options)[1].tobytes()
