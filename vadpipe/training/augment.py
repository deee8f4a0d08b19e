"""A larger set of training images out of a small one, each with the masks that belong to it.

The variants are those of the IST report: crop, rotation, both flips, saturation, brightness and filtering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.errors import UserError
from vadpipe.parallel import ordered_map

Bools = npt.NDArray[np.bool_]

# By argument: a pool seen from another seat, at another hour, by another camera, not another sport.
_SMALLEST_CROP = 0.6  # share of a side
_LARGEST_TURN = 15.0  # degrees either way
_SATURATION = (0.6, 1.4)  # factors
_BRIGHTNESS = (0.7, 1.3)
_BLUR = (0.4, 1.2)  # sigma of the Gaussian, pixels
_BLURRED = 0.3  # share of the images that are filtered


@dataclass(frozen=True)
class Sample:
    """An image and its masks.

    Attributes:
        image: uint8 (H, W, 3) RGB.
        region: (H, W), pixels that matter.
        filled: (H, W), pixels that were made up.
    """

    image: npt.NDArray[np.uint8]
    region: Bools
    filled: Bools


def augmented(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Return `count` samples: those given, and then variants of each in turn; equal seeds give equal bits.

    Raises:
        UserError: `count` is smaller than the number of samples.
    """
    if count < len(samples):
        raise UserError(
            f"params.yaml: train.images: {count} is fewer than the {len(samples)} training images; give more, or null"
        )

    def make(index: int) -> Sample:
        sample = samples[index % len(samples)]
        return sample if index < len(samples) else varied(sample, np.random.default_rng((seed, index)))

    return list(ordered_map(make, range(count)))


def window(sample: Sample, share: float, generator: np.random.Generator) -> Sample:
    """Return a part of a sample, `share` of each side, that holds a random pixel of its region, if there is one."""
    sides = np.maximum(1, np.round(share * np.array(sample.region.shape)).astype(int))
    pixels = np.flatnonzero(sample.region)
    pixel = pixels[generator.integers(len(pixels))] if len(pixels) else generator.integers(sample.region.size)
    start = np.array(np.unravel_index(pixel, sample.region.shape)) - generator.integers(sides)
    top, left = start.clip(0, sample.region.shape - sides)
    part = np.s_[top : top + sides[0], left : left + sides[1]]
    return Sample(sample.image[part], sample.region[part], sample.filled[part])


def varied(sample: Sample, generator: np.random.Generator, upright: bool = False) -> Sample:
    """Return a random variant of a sample, of its size; `upright` = not turned upside down."""
    moved = _moved(sample, generator, upright)
    image = _coloured(moved.image, generator.uniform(*_SATURATION), generator.uniform(*_BRIGHTNESS))
    if generator.random() < _BLURRED:
        image = cv2.GaussianBlur(image, (0, 0), generator.uniform(*_BLUR))  # type: ignore[assignment]
    return replace(moved, image=image)


def _moved(sample: Sample, generator: np.random.Generator, upright: bool) -> Sample:
    """Crop, turn and flip in one step; what comes from beyond the image lies outside the region."""
    height, width = sample.region.shape
    crop = generator.uniform(_SMALLEST_CROP, 1)
    turn = np.radians(generator.uniform(-_LARGEST_TURN, _LARGEST_TURN))
    flips = generator.choice([-1.0, 1.0], 2)
    if upright:
        flips[1] = 1.0
    room = (1 - crop) / 2 * np.array([width, height])
    centre = np.array([width, height]) / 2 + generator.uniform(-room, room)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    # From a point of the result to the point of the source that it shows.
    matrix = crop * turned @ np.diag(flips)
    offset = centre - matrix @ (np.array([width, height]) / 2)
    affine = np.column_stack([matrix, offset])

    def warp(values: npt.NDArray[np.uint8], flag: int, border: int) -> npt.NDArray[np.uint8]:
        flags = flag | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(values, affine, (width, height), flags=flags, borderMode=border)  # type: ignore[return-value]

    region, filled = (
        warp(mask.astype(np.uint8), cv2.INTER_NEAREST, cv2.BORDER_CONSTANT) > 0
        for mask in (sample.region, sample.filled)
    )
    return Sample(warp(sample.image, cv2.INTER_LINEAR, cv2.BORDER_REFLECT_101), region, filled)


def _coloured(image: npt.NDArray[np.uint8], saturation: float, brightness: float) -> npt.NDArray[np.uint8]:
    """Change saturation and brightness; what leaves 0..255 is cut, not wrapped."""
    grey = image.mean(-1, keepdims=True, dtype=np.float32)
    coloured = (grey + (image - grey) * np.float32(saturation)) * np.float32(brightness)
    result: npt.NDArray[np.uint8] = coloured.round().clip(0, 255).astype(np.uint8)
    return result
