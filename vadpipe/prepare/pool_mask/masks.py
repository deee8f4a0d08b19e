"""Masks of water: cleaned, compared, made smaller."""

from __future__ import annotations

import cv2
import numpy as np

from vadpipe.store.images import Image
from vadpipe.store.prepared import Bools

# Lane ropes and glitter are closed, what is thinner than water between ropes is removed; shares of the longest side.
_CLOSED, _OPENED = 0.02, 0.01


def cleaned(mask: Bools) -> Bools:
    """Return the largest piece of a mask whose small gaps were closed and small spots removed."""
    longest = max(mask.shape)
    # A frame around, so that the border of the image neither closes nor opens anything.
    margin = round(longest * _CLOSED) + 1
    padded: Image = np.pad(mask.astype(np.uint8), margin, mode="edge")
    for operation, share in ((cv2.MORPH_CLOSE, _CLOSED), (cv2.MORPH_OPEN, _OPENED)):
        side = round(longest * share) | 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        padded = cv2.morphologyEx(padded, operation, kernel)  # type: ignore[assignment]
    count, pieces, stats, _ = cv2.connectedComponentsWithStats(padded[margin:-margin, margin:-margin])
    if count == 1:
        return np.zeros_like(mask)
    largest: Bools = pieces == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return largest


def agreement(one: Bools, other: Bools) -> float:
    """Return the intersection of two masks over their union, 0 if both are empty."""
    union = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / union if union else 0.0


def shrunk(mask: Bools, share: float) -> Bools:
    """Return a convex mask made smaller at its edges by a share of its width.

    Its width is the diameter of the largest circle in it, so that a share below a half leaves something.
    The border of the image is no edge: the pool goes on beyond it.
    """
    if share == 0 or mask.all():
        return mask
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    kept: Bools = distance > share * 2 * distance.max()
    return kept
