"""Where a run sees anomalies: the pixels of its maps and boxes around them, against masks and boxes of the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vadpipe.evaluation import detection, intervals, regions
from vadpipe.evaluation.arrays import Bools, Floats, Ints
from vadpipe.evaluation.detection import Matches
from vadpipe.evaluation.intervals import Figure, rounded
from vadpipe.evaluation.look import Frames, Place, Seen, look
from vadpipe.evaluation.scored import Scored
from vadpipe.evaluation.truth import ClipTruth
from vadpipe.params import Evaluate
from vadpipe.store import LabelClip
from vadpipe.store.scores import read_map

# Intersection over union from which a box finds a true one.
OVERLAPS = {"iou30": 0.3, "iou50": 0.5}
PIXEL_FIGURES = ("auroc", "average_precision", "aupro")
RATES = ("precision", "recall", "misses", "false_alarms")


@dataclass(frozen=True)
class Located:
    """What is known of the places of anomalies.

    Attributes:
        component: whose maps were taken.
        frames: those of known truth.
        seen: by the model of the first seed, which is what pictures show.
        matches: of its boxes at an intersection over union of 0.3.
        pixels: what was measured.
        boxes: what was measured.
    """

    component: str
    frames: Frames
    seen: Seen
    matches: Matches
    pixels: dict[str, Any]
    boxes: dict[str, Any]
    kinds: dict[str, dict[str, Figure]]


def locate(
    run: str, settings: Evaluate, scored: Scored, truths: list[ClipTruth], training: Sequence[LabelClip], scores: Path
) -> Located | None:
    """Measure where a run sees anomalies; None if it has no maps, or the test clips neither masks nor boxes.

    Args:
        run: its name, for messages.
        truths: of the test clips, sorted by name.
        training: what is known of the training clips; where some of their frames are labelled abnormal, levels come
            from the others.
        scores: the run's score store.

    Raises:
        UserError: there are maps of the test clips but none of the training clips, or of other frames.
    """
    component = map_component(scored, scores)
    if component is None or not any(truth.located for truth in truths):
        return None
    places = [Place(index, int(frame)) for index, truth in enumerate(truths) for frame in np.flatnonzero(truth.known)]
    known = np.concatenate([truth.known for truth in truths])
    unit = np.unique(scored.unit[known], return_inverse=True)[1]
    weights = intervals.clip_weights(int(unit.max()) + 1, settings.bootstrap, scored.category)
    frames = Frames(truths, places, unit, weights, settings, normal_frames(training))
    by_clip = [[truth.boxes(frame) for frame in range(len(truth.known))] for truth in truths]
    true_boxes = [by_clip[place.clip][place.frame] for place in places]
    seen = [look(run, frames, scores, seed, component) for seed in scored.seeds]
    matches = {
        name: [detection.collect(seed.boxes, true_boxes, overlap) for seed in seen]
        for name, overlap in OVERLAPS.items()
    }
    images = {"component": component, "images": len(places), "images_with_truth": sum(map(bool, map(len, true_boxes)))}
    boxes = {
        "true_boxes": sum(map(len, true_boxes)),
        "threshold": Figure([seed.threshold for seed in seen]),
        **{name: _box_figures(matches[name], seen, frames) for name in OVERLAPS},
        **(_region_figures(seen, by_clip, frames) if scored.ordered else dict.fromkeys(("tracks", "rbdc", "tbdc"))),
    }
    pixels = images | _pixel_figures(seen)
    return Located(component, frames, seen[0], matches["iou30"][0], pixels, images | boxes, _kinds(truths, seen))


def _kinds(truths: Sequence[ClipTruth], seen: Sequence[Seen]) -> dict[str, dict[str, Figure]]:
    """Return the pixel figures of each clip of loose images that has something abnormal, such as a kind of defect."""
    if not seen[0].kinds.size:
        return {}
    found = {}
    for clip, truth in enumerate(truths):
        by_seed = np.array([seed.kinds[:, clip] for seed in seen])
        if not np.isnan(by_seed).all():
            found[truth.name] = {name: Figure(by_seed[:, index]) for index, name in enumerate(PIXEL_FIGURES)}
    return found


def map_component(scored: Scored, scores: Path) -> str | None:
    """Return the first component that has maps, the main one before all others; None if none has."""
    for component in scored.components:
        try:
            read_map(scores, scored.seeds[0], scored.names[0], component)
        except FileNotFoundError:
            continue
        return component
    return None


def normal_frames(training: Sequence[LabelClip]) -> dict[str, Bools]:
    """Return of the training clips by name, (T,), frames in which nothing abnormal was annotated."""
    return {clip.name: np.array([label != 1 for label in clip.column("label")]) for clip in training}


def _pixel_figures(seen: Sequence[Seen]) -> dict[str, Any]:
    found: dict[str, Any] = {"coverage": rounded(float(np.mean([seed.coverage for seed in seen])))}
    resampled = np.mean([seed.resampled for seed in seen], axis=0)
    for index, name in enumerate(PIXEL_FIGURES):
        found[name] = Figure([seed.figures[index] for seed in seen], resampled[index])
    alone = [seed.per_image[~np.isnan(seed.per_image)] for seed in seen]
    found["aupro_per_image"] = Figure([float(one.mean()) if len(one) else np.nan for one in alone])
    return found


def _box_figures(matches: Sequence[Matches], seen: Sequence[Seen], frames: Frames) -> dict[str, Any]:
    """Return average precision, and precision and recall at the threshold, for matches of every seed."""
    units = frames.weights.shape[1]
    by_unit = [detection.grouped(one, frames.unit, units) for one in matches]
    resampled = np.mean([detection.resampled_precision(one, frames.weights) for one in by_unit], axis=0)
    found = {"average_precision": Figure([detection.average_precision(one) for one in matches], resampled)}
    counts = [detection.at_threshold(one, seed.threshold) for one, seed in zip(matches, seen, strict=True)]
    each = np.array([detection.rates(one.sum(axis=0)) for one in counts])
    drawn = np.mean([detection.rates(frames.weights @ _summed(one, frames.unit, units)) for one in counts], axis=0)
    for index, name in enumerate(RATES):
        found[name] = Figure(each[:, index], drawn[index])
    return found


def _region_figures(seen: Sequence[Seen], by_clip: Sequence[Sequence[Floats]], frames: Frames) -> dict[str, Any]:
    """Return RBDC and TBDC of the boxes of every seed, and the number of tracks.

    Args:
        by_clip: the true boxes of every frame of each clip.
    """
    units = frames.weights.shape[1]
    tracks = _tracks(frames.truths, by_clip)
    true_boxes = [by_clip[place.clip][place.frame] for place in frames.places]
    ids = [tracks[place.clip][place.frame] for place in frames.places]
    steps = [regions.collect(seed.boxes, true_boxes, ids, frames.unit, units) for seed in seen]
    each = np.array([regions.areas(one, np.ones((1, units), np.int64))[:, 0] for one in steps])
    drawn = np.mean([regions.areas(one, frames.weights) for one in steps], axis=0)
    found: dict[str, Any] = {"tracks": int(steps[0].totals[:, 1].sum())}
    for index, name in enumerate(("rbdc", "tbdc")):
        found[name] = Figure(each[:, index], drawn[index])
    return found


def _tracks(truths: Sequence[ClipTruth], by_clip: Sequence[Sequence[Floats]]) -> list[list[Ints]]:
    """Return the track of each true box, (M,) of every frame of each clip, unique over all clips."""
    tracks: list[list[Ints]] = []
    free = 0
    for truth, boxes in zip(truths, by_clip, strict=True):
        ids = truth.tracks(boxes)
        numbers: dict[int, int] = {}
        for track in np.concatenate([*ids, np.empty(0, np.int64)]).tolist():
            numbers.setdefault(track, free + len(numbers))
        tracks.append([np.array([numbers[track] for track in one.tolist()], np.int64) for one in ids])
        free += len(numbers)
    return tracks


def _summed(counts: Floats, unit: Ints, units: int) -> Floats:
    """Add up counts by image, (F, 5), to counts by unit, (U, 5)."""
    out = np.zeros((units, counts.shape[1]))
    np.add.at(out, unit, counts)
    return out
