"""Prepared images on their way into a network: with their masks, at a scale, as planes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vadpipe.errors import UserError
from vadpipe.store import PreparedClip
from vadpipe.training.augment import Sample


def samples(clip: PreparedClip, scale: float) -> Iterator[Sample]:
    """Yield the images of a clip at a scale, decoded ahead in threads.

    Raises:
        UserError: a region vanishes at this scale.
    """
    names = iter(clip.column("name"))
    for images, regions, filled in zip(clip.chunks(), clip.regions(), clip.filled(), strict=True):
        for image, region, made_up in zip(images, regions, filled, strict=True):
            height, width = (max(1, round(side * scale)) for side in region.shape)
            sample = resized(Sample(image, region, made_up), height, width)
            name = next(names)
            if not sample.region.any():
                raise UserError(f"{clip.path}: the pool of {name} covers nothing at scale {scale}; give a larger scale")
            yield sample


def training_samples(clips: Iterable[PreparedClip], scale: float) -> list[Sample]:
    """Return the images of training clips at a scale.

    Raises:
        UserError: they have several sizes, or a region vanishes.
    """
    found = [sample for clip in clips for sample in samples(clip, scale)]
    sizes = {sample.region.shape for sample in found}
    if len(sizes) > 1:
        raise UserError(
            f"the training images have several sizes, {sorted(sizes)} at scale {scale}; name the clips of one size "
            "in train.clips"
        )
    return found


def resized(sample: Sample, height: int, width: int) -> Sample:
    """Return a smaller sample; a pixel is of the region if more than half of it is, made up if any of it is."""

    def shrink(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)

    region, filled = (shrink(mask.astype(np.float32)) for mask in (sample.region, sample.filled))
    return Sample(shrink(sample.image), region > 0.5, filled > 0)


def planes(values: npt.NDArray[Any]) -> torch.Tensor:
    """Return (n, H, W, C) as float32 (n, C, H, W); seen so, it is channels_last already."""
    return torch.from_numpy(values.astype(np.float32, copy=False)).permute(0, 3, 1, 2)
