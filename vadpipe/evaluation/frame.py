"""Frame-level metrics on arrays; larger scores are more abnormal, undefined metrics are NaN.

All areas come from one matrix: how often an abnormal frame of clip i scores above a normal frame of clip j.
Its sum gives micro AUC, its diagonal macro AUC, and a bootstrap over clips only weights it (`intervals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vadpipe.evaluation.arrays import Floats, Ints, Labels

Curve = tuple[Floats, Floats]

ROC_POINTS = 200


@dataclass(frozen=True)
class Pairs:
    """Comparisons of abnormal with normal frames, by clip.

    Attributes:
        wins: (C, C), pairs in which the abnormal frame of clip i scores above the normal frame of clip j;
            a tie counts half.
        abnormal: (C,), number of abnormal frames.
        normal: (C,), number of normal frames.
    """

    wins: Floats
    abnormal: Ints
    normal: Ints

    @property
    def two_class(self) -> npt.NDArray[np.bool_]:
        """Return which clips have frames of both classes."""
        return (self.abnormal > 0) & (self.normal > 0)

    @property
    def clip_aucs(self) -> Floats:
        """Return the AUC of every clip, (C,); NaN for a clip of one class."""
        possible = (self.abnormal * self.normal).astype(np.float64)
        aucs = np.full(len(possible), np.nan)
        np.divide(np.diag(self.wins), possible, out=aucs, where=possible > 0)
        return aucs


def count_pairs(labels: Labels, scores: Floats, clip: Ints, clips: int) -> Pairs:
    """Count the pairs behind all areas, exactly, with ties.

    Args:
        labels: (N,), 1 abnormal, 0 normal.
        scores: (N,), no NaN.
        clip: (N,), index of the frame's clip, below `clips`.
    """
    positive = labels == 1
    # Sorted queries let searchsorted walk the memory in order, which is several times as fast.
    order = np.argsort(scores[positive])
    queries, owner = scores[positive][order], clip[positive][order]
    wins = np.empty((clips, clips))
    for j in range(clips):
        normal = np.sort(scores[~positive & (clip == j)])
        beaten = np.searchsorted(normal, queries, "left") + np.searchsorted(normal, queries, "right")
        wins[:, j] = np.bincount(owner, beaten, clips) / 2
    return Pairs(wins, np.bincount(owner, minlength=clips), np.bincount(clip[~positive], minlength=clips))


def micro_auc(pairs: Pairs) -> float:
    """Return the area under the ROC of the frames of all clips pooled."""
    possible = pairs.abnormal.sum() * pairs.normal.sum()
    return float(pairs.wins.sum() / possible) if possible else np.nan


def macro_auc(pairs: Pairs) -> tuple[float, int]:
    """Return the mean AUC of the clips that have both classes, and their number."""
    count = int(pairs.two_class.sum())
    return (float(np.nanmean(pairs.clip_aucs)) if count else np.nan), count


def macro_padded(pairs: Pairs) -> float:
    """Return the mean AUC of all clips, each padded with a certain normal and a certain abnormal frame.

    As in the scripts of UBnormal (Acsintoae et al., CVPR 2022) and AED-MAE (Ristea et al., CVPR 2024): every
    clip gets one frame (label 0, score below all) and one (label 1, score above all), so that clips of one
    class count, with 1.0. A random scorer therefore has 0.689 on UCSD Ped2, where 4 of 12 clips are all
    abnormal. The pads here are min - 1 and max + 1 of the whole set; the published 0 and 1 fail for scores
    outside [0, 1].
    """
    abnormal, normal = pairs.abnormal, pairs.normal
    if not (abnormal.sum() and normal.sum()):
        return np.nan
    # The pads win or lose every comparison, so they need not be made: they add A + N + 1 certain wins.
    wins = np.diag(pairs.wins) + abnormal + normal + 1
    areas = wins / ((abnormal + 1) * (normal + 1))
    return float(areas[abnormal + normal > 0].mean())


def average_precision(labels: Labels, scores: Floats) -> float:
    """Return the average precision of pooled frames: over the steps of recall, no interpolation."""
    if not _both(labels):
        return np.nan
    found, alarms = _steps(labels, scores)
    return float((np.diff(found) / found[-1] * (found / alarms.clip(1))[1:]).sum())


def f1_max(labels: Labels, scores: Floats) -> float:
    """Return the largest F1 over all thresholds: an oracle, since the best one is chosen on the labels."""
    if not _both(labels):
        return np.nan
    found, alarms = _steps(labels, scores)
    return float((2 * found / (found[-1] + alarms)).max())


def roc(labels: Labels, scores: Floats) -> Curve | None:
    """Return false and true positive rates of pooled frames with every step, or None for one class."""
    if not _both(labels):
        return None
    found, alarms = _steps(labels, scores)
    false = alarms - found
    return false / false[-1], found / found[-1]


def _steps(labels: Labels, scores: Floats) -> tuple[Ints, Ints]:
    """Return how many abnormal frames, and how many at all, score at least a threshold, which falls from step to step.

    The first step is above all scores; frames of equal scores come together.
    """
    order = np.argsort(scores)[::-1]
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    found = (labels[order] == 1).cumsum()[ends]
    return np.insert(found, 0, 0), np.insert(ends + 1, 0, 0)


def eer(curve: Curve | None) -> float:
    """Return the equal error rate: FPR where it equals 1 - TPR, interpolated between points of the ROC."""
    if curve is None:
        return np.nan
    fpr, tpr = curve
    # FPR + TPR grows with every step of the curve, so that the crossing is unique.
    return float(np.interp(1.0, fpr + tpr, fpr))


def mean_roc(curves: Sequence[Curve]) -> Curve:
    """Return the mean of ROC curves (one a seed), at most 200 points, whose area is the mean of their areas.

    The mean is taken at equal FPR + TPR, that is along the way from (0, 0) to (1, 1). Unlike a mean at equal
    FPR it has no trouble with vertical steps, and it keeps areas, since AUC = 1/2 + 1/2 * the integral of
    TPR - FPR over that way. For the same reason a point is the mean over its stretch of the way, no sample.
    """
    steps, samples = ROC_POINTS - 1, 20  # stretches of the way, samples a stretch
    way = (np.arange(steps * samples) + 0.5) * 2 / (steps * samples)
    gain = np.mean([np.interp(way, fpr + tpr, tpr - fpr) for fpr, tpr in curves], axis=0)
    inner = gain[samples // 2 : -samples // 2].reshape(-1, samples).mean(axis=1)
    height = np.concatenate([[0.0], inner, [0.0]])
    place = np.linspace(0, 2, ROC_POINTS)
    # Rounding must not make a rate fall by 1e-17 or pass 1: readers of curves insist on it.
    rates = np.maximum.accumulate(np.clip([(place - height) / 2, (place + height) / 2], 0, 1), axis=1)
    return rates[0], rates[1]


def _both(labels: Labels) -> bool:
    return bool((labels == 1).any() and (labels == 0).any())
