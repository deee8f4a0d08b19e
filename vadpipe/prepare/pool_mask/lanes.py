"""The pool by its lane ropes, where the water reflects the hall and shows no colour of its own.

Segments come from OpenCV's LSD (Grompone von Gioi, Jakubowicz, Morel, Randall, "LSD: a Line Segment Detector",
Image Processing On Line 2012). Halls are full of lines that meet where the lanes do: beams, stands, banners.
What tells a rope from those is that the same water lies on both of its sides, and beside the other ropes too.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.prepare.pool_mask.convex import Outline, best_region, filled
from vadpipe.prepare.pool_mask.masks import agreement, cleaned
from vadpipe.store.images import Image
from vadpipe.store.prepared import Bools

Floats = npt.NDArray[np.float32]

# Shares of the longest side: the shortest segment, and how far beside it the water is looked at, which is
# beyond the rope. The sides of a rope are alike, and those of two ropes, within these distances in 8-bit CIELAB;
# lines meet within this angle.
_SHORTEST, _BESIDE = 0.06, 0.012
_ALIKE, _ROPES_ALIKE = 15.0, 25.0
# What looks like the surface lies within this many deviations of the colours beside the ropes, so that dull water is
# told from a grey deck where bright water may vary: 99 % of a normal distribution of three dimensions. The
# deviations are robust (glitter and shadows are beside the ropes too), and at least that of the camera's noise.
_SURFACE, _NOISE = 3.37, 2.0
# Of L, a and b: over a pool the light changes more than the colour.
_WEIGHTS = np.array([0.5, 1, 1], np.float32)
_ANGLE = np.radians(2.0)
# Each rope gives two segments or more, one an edge. Fewer segments than this agree by chance.
_SEGMENTS, _LONGEST = 6, 60
_STEPS = np.linspace(0.05, 0.95, 9, dtype=np.float32)


def lanes(image: Image) -> tuple[Bools, float]:
    """Return the convex region of what looks like the surface beside lane ropes, bool (H, W), and its confidence.

    The confidence, 0 to 1, is how well the region fits what looks like that surface, times the share of the ropes'
    hull that it holds, times the share of the ropes, by length, that meet in one point. Where there are too few
    ropes the region is empty.
    """
    nothing = np.zeros(image.shape[:2], bool), 0.0
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 1.0), cv2.COLOR_RGB2LAB).astype(np.float32)
    lab *= _WEIGHTS
    segments = _segments(image)
    if len(segments) < _SEGMENTS:
        return nothing
    segments, beside = _ropes(segments, lab)
    if len(segments) < _SEGMENTS:
        return nothing
    length = np.hypot(*(segments[:, 2:] - segments[:, :2]).T)
    meeting = _meeting(segments, length)
    if np.count_nonzero(meeting) < _SEGMENTS:
        return nothing
    hull: Outline = cv2.convexHull(segments[meeting].reshape(-1, 2))[:, 0]  # type: ignore[assignment]
    surface = np.median(beside, axis=0)
    deviation = np.maximum(1.4826 * np.median(np.abs(beside - surface), axis=0), _NOISE)
    alike = cleaned(np.linalg.norm((lab - surface) / deviation, axis=2) < _SURFACE)
    # Water beyond the outermost ropes looks like that between them; a beam that meets the ropes far away does not.
    region = best_region(alike)
    between = filled(hull, *image.shape[:2])
    held = float(region[between].mean()) if between.any() else 0.0
    return region, agreement(alike, region) * held * float(length[meeting].sum() / length.sum())


def _segments(image: Image) -> Floats:
    """Return the longest segments, float32 (n, 4): x, y of both ends."""
    # A detector keeps buffers, so that each thread needs its own.
    found = cv2.createLineSegmentDetector().detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    segments: Floats = np.zeros((0, 4), np.float32) if found is None else found.reshape(-1, 4).astype(np.float32)
    length = np.hypot(*(segments[:, 2:] - segments[:, :2]).T)
    order = np.argsort(-length, kind="stable")[: 4 * _LONGEST]
    long: Floats = segments[order[length[order] >= _SHORTEST * max(image.shape[:2])]]
    return long


def _ropes(segments: Floats, lab: Floats) -> tuple[Floats, Floats]:
    """Return the segments that have the same colour on both sides and beside each other, and colours there, (n, 3)."""
    distance = _BESIDE * max(lab.shape[:2])
    along = segments[:, 2:] - segments[:, :2]
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / np.hypot(*along.T)[:, None]
    points = segments[:, None, :2] + along[:, None] * _STEPS[None, :, None]
    beside = np.stack([_at(lab, points + sign * distance * normal[:, None]) for sign in (-1, 1)], 1)
    sides = np.median(beside, axis=2)
    alike = np.linalg.norm(sides[:, 0] - sides[:, 1], axis=1) < _ALIKE
    segments, beside, colours = segments[alike], beside[alike], sides[alike].mean(axis=1)
    if len(segments) == 0:
        return segments, beside.reshape(-1, 3)
    length = np.hypot(*(segments[:, 2:] - segments[:, :2]).T)
    near = np.linalg.norm(colours[:, None] - colours[None], axis=2) < _ROPES_ALIKE
    most = near[(near * length).sum(axis=1).argmax()]
    order = np.flatnonzero(most)[:_LONGEST]
    return segments[order], beside[order].reshape(-1, 3)


def _at(lab: Floats, points: Floats) -> Floats:
    """Return the colours of points (..., 2), (..., 3); points outside the image are moved to its border."""
    limits = np.array([lab.shape[1] - 1, lab.shape[0] - 1])
    x, y = np.moveaxis(points.round().astype(np.int32).clip(0, limits), -1, 0)
    colours: Floats = lab[y, x]
    return colours


def _meeting(segments: Floats, length: Floats) -> Bools:
    """Return which segments, (n,), point to the point where most of their length meets; it may be far away."""
    ends = np.concatenate([segments.reshape(-1, 2, 2), np.ones((len(segments), 2, 1), np.float32)], 2)
    lines = np.cross(ends[:, 0], ends[:, 1]).astype(np.float64)
    one, two = np.triu_indices(len(segments), 1)
    points = np.cross(lines[one], lines[two])
    middle = (segments[:, :2] + segments[:, 2:]) / 2
    along = (segments[:, 2:] - segments[:, :2]) / length[:, None]
    # From each middle to each point; for a point at infinity, its direction.
    to = points[:, None, :2] - middle[None] * points[:, None, 2:]
    distance = np.hypot(to[..., 0], to[..., 1])
    across = np.abs(to[..., 0] * along[:, 1] - to[..., 1] * along[:, 0])
    agrees = across <= np.sin(_ANGLE) * distance
    agrees &= distance > 0
    best: Bools = agrees[(agrees * length).sum(axis=1).argmax()]
    return best
