"""Which sequence is pasted when and where into a clip, at which scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from vadpipe.errors import UserError
from vadpipe.params import Composite
from vadpipe.prepare.composite.cutting import Cutout, Sequence
from vadpipe.prepare.composite.walkers import Bools
from vadpipe.store.composites import Origin
from vadpipe.stretches import stretches


class Placed(NamedTuple):
    """A cutout in a frame of the target, and where it comes from."""

    cutout: Cutout
    origin: Origin


@dataclass(frozen=True)
class Target:
    """The clip that is pasted into.

    Attributes:
        name: for messages.
        length: frames.
        fps: frames a second; None = unknown, then a frame of the source goes into each.
        size: height and width of a frame.
        ground: where people set their feet, (H, W); None = not asked for.
        typical: intercept and slope of a person's height over the row of the feet; None = not asked for.
    """

    name: str
    length: int
    fps: float | None
    size: tuple[int, int]
    ground: Bools | None
    typical: tuple[float, float] | None


def plan(target: Target, sequences: Many[Sequence], params: Composite, rng: Generator) -> list[list[Placed]]:
    """Return what is pasted into each frame of a clip, what is nearer to the camera later.

    One sequence follows the other, and up to `objects` such rows of them run side by side.

    Raises:
        UserError: no sequence fits.
    """
    frames: list[list[Placed]] = [[] for _ in range(target.length)]
    for _ in range(int(rng.integers(1, params.objects + 1))):
        start = 0
        while start < target.length:
            placed = _next(target, sequences, params, rng)
            for frame, one in zip(frames[start:], placed, strict=False):
                frame.append(one)
            start += len(placed)
    return [sorted(frame, key=lambda placed: placed.origin.y) for frame in frames]


def _next(target: Target, sequences: Many[Sequence], params: Composite, rng: Generator) -> list[Placed]:
    """Return the first sequence, in random order, that fits; each is tried once, with a place and a size."""
    reasons: Counter[str] = Counter()
    for index in rng.permutation(len(sequences)):
        placed = fit(target, sequences[index], params, rng)
        if not isinstance(placed, str):
            return placed
        reasons[placed] += 1
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    raise UserError(
        f"none of the {len(sequences)} sequences of {params.source} fits the clip '{target.name}' of "
        f"{target.size[0]}x{target.size[1]} pixels: {told}; change `area` ({params.area[0]:g} to {params.area[1]:g} of "
        "the frame), `sizes`, `scale` or `place` of composite in params.yaml"
    )


def fit(target: Target, sequence: Sequence, params: Composite, rng: Generator) -> list[Placed] | str:
    """Return a sequence at a place and a scale, a cutout a frame of the target, or why it does not fit.

    Of a sequence the longest stretch is taken in which the object covers enough; on other ground than its own it must
    also be whole, since an edge of its frame would be seen in the middle of another.
    """
    height, width = target.size
    step = sequence.fps / target.fps if sequence.fps and target.fps else 1.0
    chosen = np.arange(np.ceil(len(sequence.cutouts) / step)) * step
    indices = chosen.round().astype(int).clip(0, len(sequence.cutouts) - 1)
    cutouts = [sequence.cutouts[index] for index in indices]
    moved = params.place == "ground"
    usable = np.array([one is not None and (one.whole or not moved) for one in cutouts])
    if not usable.any():
        return "are nowhere whole"
    start, end = max(stretches(usable), key=lambda part: part[1] - part[0])
    anchor = cutouts[(start + end) // 2]
    assert anchor is not None
    across, down = width / sequence.size[1], height / sequence.size[0]
    spot, mirrored = (anchor.foot[0] * across, anchor.foot[1] * down), False
    if moved:
        spot, mirrored = _spot(target, rng), bool(rng.random() < 0.5)
    scale = _scale(target, spot[1], down, cutouts[start:end], params, rng)
    if moved:
        across, down = -scale if mirrored else scale, scale
    path: list[Placed | None] = []
    areas = np.zeros(len(cutouts))
    for position, (index, one) in enumerate(zip(indices.tolist(), cutouts, strict=True)):
        if one is None or not usable[position]:
            path.append(None)
            continue
        x = spot[0] + across * (one.foot[0] - anchor.foot[0])
        y = spot[1] + down * (one.foot[1] - anchor.foot[1])
        origin = Origin(sequence.source, sequence.track, sequence.first + index, x, y, scale, mirrored)
        path.append(Placed(one, origin))
        areas[position] = one.area * scale**2 * _visible(one, origin, target.size) / (height * width)
    enough = stretches(areas >= params.area[0])
    if not enough:
        return "are too small"
    start, end = max(enough, key=lambda part: part[1] - part[0])
    if areas[start:end].max() > params.area[1]:
        return "are too large"
    return [placed for placed in path[start:end] if placed is not None]


def _spot(target: Target, rng: Generator) -> tuple[float, float]:
    """Return a point of the ground, x and y."""
    assert target.ground is not None
    spots = np.flatnonzero(target.ground)
    row, column = divmod(int(spots[rng.integers(len(spots))]), target.size[1])
    return column + float(rng.uniform(0, 1)), row + 1.0


def _scale(
    target: Target, row: float, as_source: float, cutouts: Many[Cutout | None], params: Composite, rng: Generator
) -> float:
    """Return pixels of the target a pixel of the source."""
    factor = float(rng.uniform(params.sizes[0], params.sizes[1]))
    if target.typical is None:
        return factor * as_source
    intercept, slope = target.typical
    # What falls was as tall as a person before.
    tallest = max(one.height for one in cutouts if one is not None)
    return factor * max(2.0, intercept + slope * row) / tallest


def _visible(one: Cutout, origin: Origin, size: tuple[int, int]) -> float:
    """Return which share of the cutout's box lies in the frame."""
    height, width = one.height * origin.scale, (one.box[2] - one.box[0]) * origin.scale
    rows = min(origin.y, size[0]) - max(origin.y - height, 0)
    columns = min(origin.x + width / 2, size[1]) - max(origin.x - width / 2, 0)
    return max(0.0, rows / height) * max(0.0, columns / width)
