"""The pool of one image: the larger of two hulls, that of the water and that of the lane ropes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from vadpipe.params import PoolMask
from vadpipe.prepare.pool_mask.convex import Outline, filled, outline
from vadpipe.prepare.pool_mask.lanes import lanes
from vadpipe.prepare.pool_mask.masks import agreement, shrunk
from vadpipe.prepare.pool_mask.water import water
from vadpipe.store.images import Image
from vadpipe.store.prepared import Bools

Technique = Literal["water", "lanes", "whole image"]

# Longest side, in pixels, of the image that is looked at: lane ropes are still seen, waves hardly.
_SIDE = 640
# A pool that fills less of the image than this is not what the camera was put there for.
_SMALLEST = 0.05


@dataclass(frozen=True)
class Pool:
    """The pool of an image of `height` x `width` pixels.

    Attributes:
        outline: of the region; float32 (n, 2), x and y in pixels from the corner of the image. It is sent from
            process to process instead of the region.
        confidence: 0 = the whole image, for want of a pool, to 1.
        technique: what the region comes from.
        hulls: the outlines that the techniques found, for pictures.
    """

    height: int
    width: int
    outline: Outline
    confidence: float
    technique: Technique
    hulls: dict[str, Outline]

    @property
    def region(self) -> Bools:
        """The pixels of the pool, bool (height, width)."""
        return filled(self.outline, self.height, self.width)


def find_pool(image: Image, params: PoolMask) -> Pool:
    """Return the pool of an image, uint8 (H, W, 3) RGB; the whole image where it is not sure enough."""
    height, width = image.shape[:2]
    scale = min(_SIDE / max(height, width), 1.0)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small: Image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    full = np.array([width / size[0], height / size[1]], np.float32)
    technique, region, confidence, hulls = _larger(small, params.confidence)
    hulls = {name: hull * full for name, hull in hulls.items()}
    inner = outline(shrunk(region, params.shrink))
    if technique == "whole image" or inner is None:
        everything = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        return Pool(height, width, everything, 0.0, "whole image", hulls)
    return Pool(height, width, inner * full, confidence, technique, hulls)


def _larger(image: Image, least: float) -> tuple[Technique, Bools, float, dict[str, Outline]]:
    """Return technique, region, confidence and hulls of the larger of the two hulls, or that there is none.

    The size of a hull, as the side of a square, counts times its confidence: a hull is easily made larger by a
    banner or a beam, which then make it less sure.
    """
    if (image == image[..., :1]).all():
        # Without colour there is no water, and what looks like a rope may lie anywhere.
        return "whole image", np.ones(image.shape[:2], bool), 0.0, {}
    wet, by_water = water(image)
    found: dict[Technique, tuple[Bools, float]] = {"water": (by_water, agreement(wet, by_water))}
    # Under water nothing can be larger, and ropes take longest to find.
    if not by_water.all():
        found["lanes"] = lanes(image)
    hulls: dict[str, Outline] = {
        name: hull for name, (region, _) in found.items() if (hull := outline(region)) is not None
    }
    sure = {
        name: (region, confidence)
        for name, (region, confidence) in found.items()
        if confidence > 0 and confidence >= least and region.mean() >= _SMALLEST
    }
    if not sure:
        return "whole image", by_water, 0.0, hulls
    technique = max(sure, key=lambda name: sure[name][1] * float(np.sqrt(sure[name][0].mean())))
    return technique, *sure[technique], hulls
