"""How well boxes find true boxes; undefined figures are NaN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vadpipe.evaluation.arrays import Bools, Floats, Ints, rows_at_once
from vadpipe.evaluation.boxes import Box, overlaps


@dataclass(frozen=True)
class Matches:
    """The boxes of all images, highest score first, and which of them hit a true box.

    Attributes:
        score: (D,).
        hit: (D,), whether the box is the one match of a true box.
        image: (D,), index of the box's image.
        truths: (N,), number of true boxes of each image.
    """

    score: Floats
    hit: Bools
    image: Ints
    truths: Ints


def match(found: Sequence[Box], truths: Floats, overlap: float) -> Ints:
    """Return for each box of an image the index of the true box that it finds, or -1, (D,).

    As in Pascal VOC (Everingham et al., IJCV 2010): the box with the highest score comes first; each box stands
    for the true box that it overlaps most, if their intersection over union reaches `overlap`; a true box that
    is found twice makes the second box a false alarm.

    Args:
        found: boxes, in any order.
        truths: (M, 4): x_min, y_min, x_max, y_max.
    """
    matched = np.full(len(found), -1, np.int64)
    if not len(found) or not len(truths):
        return matched
    boxes = np.array(found)
    ratio = overlaps(boxes, truths)
    best = ratio.argmax(axis=1)
    taken = set()
    for index in np.argsort(-boxes[:, 4], kind="stable"):
        truth = int(best[index])
        if ratio[index, truth] >= overlap and truth not in taken:
            taken.add(truth)
            matched[index] = truth
    return matched


def collect(found: Sequence[Sequence[Box]], truths: Sequence[Floats], overlap: float) -> Matches:
    """Match the boxes of all images.

    Args:
        found: the boxes of each image.
        truths: (M, 4) for each image; no rows where nothing is abnormal.
    """
    matched = [match(boxes, true, overlap) for boxes, true in zip(found, truths, strict=True)]
    score = np.array([box.score for boxes in found for box in boxes], np.float64)
    hit = np.concatenate([*matched, np.empty(0, np.int64)]) >= 0
    image = np.repeat(np.arange(len(found)), [len(boxes) for boxes in found])
    order = np.argsort(-score, kind="stable")
    return Matches(score[order], hit[order], image[order], np.array([len(true) for true in truths], np.int64))


def curve(matches: Matches) -> tuple[Floats, Floats]:
    """Return recall and precision below every distinct score, highest first; boxes of one score enter together."""
    last = _last(matches.score)
    hits = matches.hit.cumsum()[last]
    total = matches.truths.sum()
    return hits / total if total else np.full(len(last), np.nan), hits / (last + 1)


def average_precision(matches: Matches) -> float:
    """Return the area under precision over recall: all points, steps, no interpolation; NaN without true boxes.

    Recall counts all true boxes, found by any box or not, and boxes on normal images are false alarms. This is
    the sum that scikit-learn defines. The interpolation of Pascal VOC, which lifts precision to the highest
    value at the same or higher recall, would give a little more.
    """
    return float(resampled_precision(matches, np.ones((1, len(matches.truths)), np.int64))[0])


def resampled_precision(matches: Matches, weights: Ints) -> Floats:
    """Return the average precision where image i counts `weights[b, i]` times, (B,)."""
    last = _last(matches.score)
    out = np.zeros(len(weights))
    for rows in rows_at_once(weights, len(matches.score)):
        part = weights[rows]
        drawn = part[:, matches.image]
        counted = drawn.cumsum(axis=1)[:, last]
        hits = (drawn * matches.hit).cumsum(axis=1)[:, last]
        gained = np.diff(hits, axis=1, prepend=0)
        total = part @ matches.truths
        area = (gained * (hits / np.maximum(counted, 1))).sum(axis=1)
        out[rows] = np.where(total > 0, area / np.maximum(total, 1), np.nan)
    return out


def grouped(matches: Matches, unit: Ints, units: int) -> Matches:
    """Take the images of a unit, (N,) indices below `units`, for one image, to be resampled together."""
    truths = np.bincount(unit, matches.truths, units).astype(np.int64)
    return replace(matches, image=unit[matches.image], truths=truths)


def at_threshold(matches: Matches, lowest: float) -> Floats:
    """Count, by image, boxes that score more than `lowest`: (N, 5), columns as `rates` wants them."""
    raised = matches.score > lowest
    hits, alarms = (
        np.bincount(matches.image[raised & which], minlength=len(matches.truths))
        for which in (matches.hit, ~matches.hit)
    )
    ones = np.ones(len(hits))
    return np.column_stack([hits, alarms, matches.truths, ones, matches.truths > 0]).astype(np.float64)


def rates(sums: Floats) -> Floats:
    """Return precision, recall, misses an image with true boxes and false alarms an image, (4, ...).

    Args:
        sums: (..., 5): hits, false alarms, true boxes, images, images with true boxes.
    """
    hits, alarms, truths, images, with_truth = np.moveaxis(sums, -1, 0)
    parts = ((hits, hits + alarms), (hits, truths), (truths - hits, with_truth), (alarms, images))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([np.where(bottom > 0, top / bottom, np.nan) for top, bottom in parts])


def threshold(found: Sequence[Sequence[Box]], false_alarms: float) -> float:
    """Return the score that at most `false_alarms` boxes an image exceed, on average, in images without objects.

    It is the score of a box, or 0, the lowest possible one, where there are too few boxes to exceed the rate.
    """
    scores = sorted((box.score for boxes in found for box in boxes), reverse=True)
    allowed = int(false_alarms * len(found))
    return scores[allowed] if allowed < len(scores) else 0.0


def _last(scores: Floats) -> Ints:
    """Return the last index of every run of equal scores."""
    return np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.empty(0, np.int64)
