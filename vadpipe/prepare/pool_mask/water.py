"""Water by its colour, without thresholds of one pool: the image says itself which colours belong together."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from scipy import ndimage

from vadpipe.prepare.pool_mask.basins import Labels, basins
from vadpipe.prepare.pool_mask.convex import best_region
from vadpipe.prepare.pool_mask.masks import agreement, cleaned
from vadpipe.store.images import Image
from vadpipe.store.prepared import Bools

# Hues that water can have, in OpenCV's half degrees: from green to violet. Water has a colour: below this
# saturation, and this product of saturation and value, a hue is noise.
_HUES = (35, 140)
_SATURATION, _CHROMA = 25, 20
# Cells of the histogram: 10 degrees of hue, 12 levels of saturation and value; and its blur, in cells.
_CELLS = (5, 12, 12)
_SHAPE = (36, 22, 22)
_BLUR = (0.8, 1.2, 1.2)
# Clusters of colours that are tried, the largest ones, and their least share of the image.
_CLUSTERS, _SMALLEST = 3, 0.05


def water(image: Image) -> tuple[Bools, Bools]:
    """Return which pixels have the colour of water and the convex region that they make up, both bool (H, W)."""
    best = region = np.zeros(image.shape[:2], bool)
    most = 0.0
    for mask in colour_clusters(image):
        clean = cleaned(mask)
        # No region can be better than one that is all of these pixels and no others.
        if np.sqrt(clean.mean()) <= most:
            continue
        found = best_region(clean)
        score = agreement(clean, found) * np.sqrt(found.mean())
        if score > most:
            best, region, most = clean, found, score
    return best, region


def colour_clusters(image: Image) -> Iterator[Bools]:
    """Yield the pixels, bool (H, W), of groups of plausible colours that may be those of the water.

    The colours of a basin of a histogram over hue, saturation and value are water or are not, together: lit and
    shaded water are one however far apart, a pale deck of the same hue is another. Where light and shade of
    one water fell apart, they are given together too.
    """
    blurred = cv2.GaussianBlur(image, (0, 0), 1.5)
    hsv = cv2.cvtColor(blurred, cv2.COLOR_RGB2HSV)
    hue, saturation, value = cv2.split(hsv)
    plausible = (hue >= _HUES[0]) & (hue < _HUES[1]) & (saturation >= _SATURATION)
    plausible &= cv2.multiply(saturation, value, scale=1 / 255) >= _CHROMA
    cell = (hue // _CELLS[0]).astype(np.int32) * _SHAPE[1] + saturation // _CELLS[1]
    cell = cell * _SHAPE[2] + value // _CELLS[2]
    counts = np.bincount(cell[plausible], minlength=int(np.prod(_SHAPE))).reshape(_SHAPE)
    labels = basins(ndimage.gaussian_filter(counts.astype(np.float32), _BLUR))
    sizes = np.bincount(labels.ravel(), counts.ravel())
    sizes[0] = 0
    for label in np.argsort(-sizes)[:_CLUSTERS]:
        if sizes[label] < _SMALLEST * hue.size:
            return
        shades = _shades(labels, counts, int(label))
        for group in [[label], shades] if len(shades) > 1 else [[label]]:
            yield np.isin(labels, group).ravel()[cell] & plausible


def _shades(labels: Labels, counts: Labels, label: int) -> list[int]:
    """Return the basins that differ from one in value alone: as light and shade do, hue and saturation being alike."""
    present = [int(other) for other in np.unique(labels) if other > 0]
    means = {}
    for other in present:
        held = labels == other
        means[other] = np.average(np.argwhere(held), axis=0, weights=counts[held] + 1e-6)
    hue, saturation, _ = means[label]
    return [
        other
        for other in present
        if abs(means[other][0] - hue) < 1.5 and 0.5 < (means[other][1] + 0.5) / (saturation + 0.5) < 2
    ]
