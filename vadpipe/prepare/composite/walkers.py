"""What training clips show of people on foot: where they set their feet, how tall they are there, and how bright.

What moves stands out from the median of the clip; what of it is higher than wide, and of a person's size, counts.
Groups and halves of people are among it, so that only medians and robust lines are drawn from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy.stats import theilslopes

from vadpipe.store.clips import Clip
from vadpipe.store.images import decode_grey

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_FRAMES = 40  # of a clip that are looked at
_STANDS_OUT = 5.0  # robust deviations of the differences from the median picture, at least this many:
_LEAST = 12.0  # grey levels
_SIZES = (0.0005, 0.04)  # share of the frame that a person covers
_SLIM = 1.2  # height over width of somebody on foot, at least
_FEW = 12  # people from whom little can be told
_LARGEST_PAIRS = 600  # a line through more points takes long and gains nothing


@dataclass(frozen=True)
class Walkers:
    """People on foot in a clip or in several of one size.

    Attributes:
        x: of the middle of their lower edge, pixels, (n,).
        y: of their lower edge, (n,).
        height: pixels, (n,).
        grey: mean and deviation of their grey levels, (n, 2).
        size: height and width of the frames.
    """

    x: Floats
    y: Floats
    height: Floats
    grey: Floats
    size: tuple[int, int]

    @property
    def few(self) -> bool:
        """Return whether they are too few to tell where people walk."""
        return len(self.x) < _FEW

    def ground(self) -> Bools:
        """Return where people set their feet, and a little around, (H, W)."""
        spots = np.zeros(self.size, np.uint8)
        rows, columns = self.y.round().astype(int) - 1, self.x.round().astype(int)
        spots[rows.clip(0, self.size[0] - 1), columns.clip(0, self.size[1] - 1)] = 1
        reach = max(1, round(float(np.median(self.height)) / 6))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4 * reach + 1, 2 * reach + 1))
        return np.asarray(cv2.dilate(spots, kernel)) > 0

    def typical(self) -> tuple[float, float]:
        """Return intercept and slope of a person's height over the row of the feet: by perspective it is a line."""
        height, y = self.height, self.y
        if len(y) > _LARGEST_PAIRS:
            chosen = np.linspace(0, len(y) - 1, _LARGEST_PAIRS).astype(int)
            height, y = height[chosen], y[chosen]
        if np.ptp(np.quantile(y, [0.1, 0.9])) < np.median(height):
            return float(np.median(height)), 0.0
        slope, intercept, _, _ = theilslopes(height, y)
        # Nobody grows with the distance.
        return (float(intercept), float(slope)) if slope > 0 else (float(np.median(height)), 0.0)


def observe(clip: Clip) -> Walkers:
    """Return the people on foot in a clip, from some of its frames."""
    wanted = set(np.unique(np.linspace(0, clip.length - 1, _FRAMES).astype(int)).tolist())
    greys, first = [], 0
    for group in clip.encoded():
        greys += [decode_grey(data) for index, data in enumerate(group, first) if index in wanted]
        first += len(group)
    frames = np.stack(greys)
    still = np.median(frames, axis=0).astype(np.float32)
    found = [row for frame in frames for row in _people(frame, still)]
    values = np.array(found, np.float64).reshape(-1, 5)
    return Walkers(values[:, 0], values[:, 1], values[:, 2], values[:, 3:], still.shape[:2])


def pooled(walkers: Sequence[Walkers]) -> Walkers:
    """Return the people of several clips of one size together."""
    x, y, height, grey = (
        np.concatenate([getattr(one, name) for one in walkers]) for name in ("x", "y", "height", "grey")
    )
    return Walkers(x, y, height, grey, walkers[0].size)


def _people(frame: npt.NDArray[np.uint8], still: npt.NDArray[np.float32]) -> list[tuple[float, ...]]:
    """Return x, y, height, and mean and deviation of grey of everybody who moves in a frame (H, W)."""
    sharp = np.abs(frame - still)
    difference = cv2.GaussianBlur(sharp, (0, 0), 1.0)
    spread = 1.4826 * float(np.median(np.abs(difference - np.median(difference))))
    level = max(_LEAST, float(np.median(difference)) + _STANDS_OUT * spread)
    moving = (difference > level).astype(np.uint8)
    moving = cv2.morphologyEx(moving, cv2.MORPH_CLOSE, np.ones((5, 3), np.uint8)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(moving, connectivity=8)
    low, high = (share * frame.size for share in _SIZES)
    found: list[tuple[float, ...]] = []
    for number, (x, y, width, height, area) in enumerate(stats[1:].tolist(), 1):
        edge = x == 0 or y == 0 or x + width == frame.shape[1] or y + height == frame.shape[0]
        if low <= area <= high and height >= _SLIM * width and not edge:
            part = np.s_[y : y + height, x : x + width]
            # The blur has made it larger.
            shown = (labels[part] == number) & (sharp[part] > level)
            rows, levels = np.flatnonzero(shown.any(1)), frame[part][shown]
            foot, tall = y + int(rows[-1]) + 1, int(rows[-1] - rows[0]) + 1
            found.append((x + width / 2, float(foot), float(tall), float(levels.mean()), float(levels.std())))
    return found


def by_clip(found: Sequence[Walkers]) -> list[Walkers]:
    """Return of each clip its people, or, where they are few, those of all clips of its size."""
    by_size: dict[tuple[int, int], list[Walkers]] = {}
    for one in found:
        by_size.setdefault(one.size, []).append(one)
    together = {size: pooled(ones) for size, ones in by_size.items()}
    return [together[one.size] if one.few else one for one in found]
