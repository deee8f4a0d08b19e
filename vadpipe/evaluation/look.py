"""One pass over the maps of a seed: counts of pixels, and boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from vadpipe.errors import UserError
from vadpipe.evaluation import detection, pixels
from vadpipe.evaluation.arrays import Bools, Floats, Halves, Ints
from vadpipe.evaluation.boxes import Box, find_boxes, training_levels
from vadpipe.evaluation.truth import ClipTruth
from vadpipe.parallel import ordered_map
from vadpipe.params import Evaluate
from vadpipe.store.scores import read_map, read_training_maps

# Frames of a clip that a thread takes at once.
_FRAMES = 16
# Resamples that are measured at once, each with some thousand numbers.
_RESAMPLES = 100

Number = TypeVar("Number", bound=np.generic)


class Place(NamedTuple):
    """A test frame of which it is known what is abnormal: indices of its clip, and of the frame in its clip."""

    clip: int
    frame: int


@dataclass(frozen=True)
class Frames:
    """The F test frames of known truth, and what is done with them, the same for all seeds.

    Attributes:
        truths: of the test clips, sorted by name.
        places: of the frames, clip after clip.
        unit: (F,), index of what a frame is resampled with.
        weights: (B, U), how often a unit is drawn.
        settings: how boxes are found.
        normal: of the training clips by name, (T,), frames in which nothing abnormal was annotated.
    """

    truths: list[ClipTruth]
    places: list[Place]
    unit: Ints
    weights: Ints
    settings: Evaluate
    normal: dict[str, Bools]


@dataclass(frozen=True)
class Seen:
    """What the model of one seed sees.

    Attributes:
        levels: of the maps of normal training frames, ascending.
        threshold: score that boxes exceed to be reported, from the same maps.
        boxes: of each frame.
        figures: pixel AUROC, average precision and AUPRO, (3,).
        coverage: share of pixels that are looked at.
        precision: pixel average precision of each frame by itself, (F,); NaN where nothing is abnormal.
        per_image: the variant of AUPRO of each frame by itself, (F,); NaN where nothing is abnormal.
        resampled: the figures of every resample, (3, B).
        kinds: of loose images the figures of each clip beside the clips without anything abnormal, (3, C); NaN where a
            clip is one of these. Of a video (3, 0).
    """

    levels: list[float]
    threshold: float
    boxes: list[list[Box]]
    figures: Floats
    coverage: float
    precision: Floats
    per_image: Floats
    resampled: Floats
    kinds: Floats


def look(run: str, frames: Frames, scores: Path, seed: int, component: str) -> Seen:
    """Look at the maps of one seed.

    Raises:
        UserError: as `normal_levels`.
    """
    size = frames.truths[0].size
    levels, threshold = normal_levels(
        run, frames.normal, read_training_maps(scores, seed, component), size, frames.settings
    )
    maps = [read_map(scores, seed, truth.name, component) for truth in frames.truths]
    counts, binned, boxes, alone, by_clip = _scan(frames, maps, levels)
    figures = pixels.figures(counts)
    return Seen(
        levels=levels,
        threshold=threshold,
        boxes=boxes,
        figures=figures,
        coverage=pixels.coverage(counts),
        precision=alone[0],
        per_image=alone[1],
        resampled=np.clip(figures[:, None] + resampled(binned, frames.weights), 0, 1),
        kinds=_kinds(by_clip),
    )


def normal_levels(
    run: str, normal: dict[str, Bools], training: dict[str, Halves], size: tuple[int, int], settings: Evaluate
) -> tuple[list[float], float]:
    """Return the levels at which boxes are cut out of maps, and the threshold from which they are reported.

    Args:
        normal: of the training clips by name, (T,), frames in which nothing abnormal was annotated.
        training: the maps of the training clips by name, (T, h, w).
        size: of a frame, (H, W); of a training frame only the shape matters, and a test frame has it too.

    Raises:
        UserError: there are no maps of training clips, or they have other frames than the clips.
    """
    levels = map_levels(run, normal, training, settings)
    search = partial(find_boxes, levels=levels, size=size, settings=settings)
    found = ordered_map(lambda part: [search(values) for values in part], _normal(training, normal))
    return levels, detection.threshold(list(chain.from_iterable(found)), settings.box_false_alarms)


def map_levels(run: str, normal: dict[str, Bools], training: dict[str, Halves], settings: Evaluate) -> list[float]:
    """Return the levels alone, as `normal_levels`."""
    if not training:
        raise UserError(
            f"run {run}: there are maps of the test clips but none of the training clips, from which the "
            f"levels of boxes are taken; run `dvc repro score@{run}`"
        )
    for name, values in training.items():
        length = len(normal.get(name, ()))
        if len(values) != length:
            raise UserError(
                f"run {run}: the training clip '{name}' has {length} frames but {len(values)} maps; "
                f"run `dvc repro score@{run}`"
            )
    return training_levels(_normal(training, normal), settings.box_levels)


class _Part(NamedTuple):
    """What was found in some consecutive frames: ranked counts (3, K); boxes and figures of each by itself."""

    counts: Floats
    boxes: list[list[Box]]
    alone: list[tuple[float, float]]


def _scan(
    frames: Frames, maps: Sequence[Halves], levels: Sequence[float]
) -> tuple[Floats, Floats, list[list[Box]], Floats, Floats]:
    """Go once through the test maps of a seed.

    Returns:
        The ranked counts of all frames, (3, K); binned ones of each unit, (U, 3, bins); of each frame its boxes;
        its average precision and AUPRO by itself, (2, F); and, of loose images, the ranked counts of clips, (C, 3, K).
    """
    starts = pixels.bins(pixels.value_counts(maps)[0])
    total = pixels.ranked(pixels.no_counts())
    binned = np.zeros((frames.weights.shape[1], 3, len(starts)))
    by_clip = np.zeros((0 if frames.truths[0].images.info["ordered"] else len(frames.truths), *total.shape))
    boxes: list[list[Box]] = []
    alone: list[tuple[float, float]] = []
    by_unit = np.split(np.arange(len(frames.places)), np.flatnonzero(np.diff(frames.unit)) + 1)
    tasks = list(chain.from_iterable(map(_parts, by_unit)))
    work = partial(_scan_part, frames, maps, levels)
    for task, part in zip(tasks, ordered_map(work, tasks), strict=True):
        total += part.counts
        if len(by_clip):
            by_clip[frames.places[task[0]].clip] += part.counts
        binned[frames.unit[task[0]]] += np.add.reduceat(part.counts, starts, axis=1)
        boxes += part.boxes
        alone += part.alone
    return total, binned, boxes, np.array(alone).reshape(-1, 2).T, by_clip


def _kinds(by_clip: Floats) -> Floats:
    """Return the pixel figures of each clip with something abnormal beside all that have nothing, (3, C)."""
    abnormal = by_clip[:, 1].any(axis=1)
    normal = by_clip[~abnormal].sum(axis=0)
    found = np.full((3, len(by_clip)), np.nan)
    for clip in np.flatnonzero(abnormal):
        found[:, clip] = pixels.figures(by_clip[clip] + normal)
    return found


def _scan_part(frames: Frames, maps: Sequence[Halves], levels: Sequence[float], part: Ints) -> _Part:
    total, boxes, alone = pixels.no_counts(), [], []
    for place in (frames.places[index] for index in part):
        truth, values = frames.truths[place.clip], maps[place.clip][place.frame]
        counts = pixels.count(values, truth.mask(place.frame))
        total += counts
        alone.append((pixels.average_precision(counts), pixels.per_image_aupro(counts)))
        boxes.append(find_boxes(values, levels, truth.size, frames.settings))
    return _Part(pixels.ranked(total), boxes, alone)


def _normal(training: dict[str, Halves], normal: dict[str, Bools]) -> Iterator[Halves]:
    """Yield the maps of the training frames that show nothing abnormal, some at a time; of all if none is known to.

    What was annotated was filled in, but its reflections, shadows and splashes are still there, and a good method
    raises them: levels of such maps would be those of anomalies.
    """
    kept = {name: np.flatnonzero(normal[name]) for name in training}
    if not any(map(len, kept.values())):
        kept = {name: np.arange(len(values)) for name, values in training.items()}
    for name, values in training.items():
        yield from (values[part] for part in _parts(kept[name]))


def _parts(values: npt.NDArray[Number]) -> Iterator[npt.NDArray[Number]]:
    return (values[start : start + _FRAMES] for start in range(0, len(values), _FRAMES))


def resampled(binned: Floats, weights: Ints) -> Floats:
    """Return the pixel figures of every resample, (3, B), less those of the whole set; all from binned counts.

    Bins change a figure by some thousandths, but a figure and its resamples alike, so that differences are kept.
    """
    flat = binned.reshape(len(binned), -1)
    parts = [
        pixels.figures((weights[start : start + _RESAMPLES] @ flat).reshape(-1, *binned.shape[1:]))
        for start in range(0, len(weights), _RESAMPLES)
    ]
    whole = pixels.figures(binned.sum(axis=0))[:, None]
    return np.concatenate([np.empty((3, 0)), *parts], axis=1) - whole
