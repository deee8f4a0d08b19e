"""Sheets of prepared pool images: what was filled, and where the pool was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.store.images import Image

Bools = npt.NDArray[np.bool_]
Outline = npt.NDArray[np.float32]

_WIDTH, _GAP, _CAPTION, _COLUMNS = 480, 4, 20, 2  # pixels, and images a row
_FILLED = (255, 60, 40)
_REGION, _WATER, _LANES = (255, 255, 255), (255, 200, 0), (255, 60, 220)


class Found(NamedTuple):
    """A pool to be drawn; outlines are float32 (n, 2), x and y in pixels, None = not found."""

    image: Image
    region: Bools
    water: Outline | None
    lanes: Outline | None
    caption: str


def before_and_after(pairs: Sequence[tuple[Image, Image, Bools]]) -> Image:
    """Return images above what they became, the filled area outlined in both, uint8 (H, W, 3) RGB."""
    columns = []
    for before, after, filled in pairs:
        columns.append(np.vstack([_fitted(edged(image, filled, _FILLED)) for image in (before, after)]))
    return _row(columns)


def pools(found: Sequence[Found]) -> Image:
    """Return images with region (white), water (yellow) and lanes (violet) outlined, uint8 (H, W, 3) RGB."""
    tiles = [_pool(one) for one in found]
    rows = [_row(tiles[start : start + _COLUMNS]) for start in range(0, len(tiles), _COLUMNS)]
    width = max(row.shape[1] for row in rows)
    return np.vstack([_padded(row, row.shape[0] + _GAP, width) for row in rows])


def _pool(found: Found) -> Image:
    image = edged(found.image, found.region, _REGION)
    thickness = _thickness(image)
    for outline, colour in ((found.water, _WATER), (found.lanes, _LANES)):
        if outline is not None:
            cv2.polylines(image, [outline.round().astype(np.int32)], True, colour, thickness, cv2.LINE_AA)
    tile = _fitted(image)
    bar = np.zeros((_CAPTION, _WIDTH, 3), np.uint8)
    cv2.putText(bar, found.caption, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([tile, bar])


def edged(image: Image, area: Bools, colour: tuple[int, int, int]) -> Image:
    """Draw the outline of an area, thick enough to be seen when the image is small."""
    drawn = image.copy()
    # A frame of zeros, so that an area that goes to the border is outlined there too.
    padded = np.pad(area.astype(np.uint8), 1)
    outlines, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(-1, -1))
    cv2.drawContours(drawn, outlines, -1, colour, 2 * _thickness(image))
    return drawn


def _thickness(image: Image) -> int:
    return max(1, int(image.shape[1]) // _WIDTH)


def _fitted(image: Image) -> Image:
    height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
    return cv2.resize(image, (_WIDTH, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _row(tiles: Sequence[Image]) -> Image:
    height = max(tile.shape[0] for tile in tiles)
    return np.hstack([_padded(tile, height, tile.shape[1] + _GAP) for tile in tiles])


def _padded(image: Image, height: int, width: int) -> Image:
    padded = np.full((height, width, 3), 255, np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded
