"""How sure a figure is: intervals over seeds, and over the choice of test clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
from scipy.special import stdtrit

from vadpipe.evaluation.arrays import Bools, Floats, Ints, Labels, rows_at_once
from vadpipe.evaluation.frame import Pairs

DIGITS = 6


def over_seeds(values: Sequence[float] | Floats) -> dict[str, Any]:
    """Return mean, sd (n - 1), the 95 % interval of the mean by Student's t, and the values.

    One seed has neither sd nor interval. A metric that is undefined (NaN) for one seed has no mean: a mean
    over fewer seeds than the table names would mislead. What is undefined is None.
    """
    each = np.asarray(values, np.float64)
    mean, sd, ci95 = each.mean(), np.nan, None
    if len(each) > 1 and not np.isnan(mean):
        sd = each.std(ddof=1)
        half = stdtrit(len(each) - 1, 0.975) * sd / np.sqrt(len(each))
        ci95 = [rounded(mean - half), rounded(mean + half)]
    return {
        "mean": rounded(mean),
        "sd": rounded(sd),
        "ci95": ci95,
        "per_seed": [rounded(one) for one in each],
    }


@dataclass(frozen=True)
class Figure:
    """A figure as it was measured.

    Attributes:
        seeds: (S,), of each seed; NaN = undefined.
        resampled: (B,), of each resample, the mean over seeds; None where it is not resampled.
        beside: what else is to be told of it.
    """

    seeds: Sequence[float] | Floats
    resampled: Floats | None = None
    beside: Mapping[str, int] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """Return mean, spread and intervals, ready for JSON."""
        drawn = {} if self.resampled is None else interval(self.resampled)
        return over_seeds(self.seeds) | drawn | dict(self.beside)


def mean_figure(figures: Sequence[Figure]) -> Figure:
    """Return the mean over categories of a figure, over those in which it is defined, whose number is told.

    Resamples are drawn in each category by itself, so that the mean of the values of the i-th ones is a resample of
    the mean. Where a category has too few clips to be resampled, the mean is not either.
    """
    seeds = np.array([figure.seeds for figure in figures], np.float64)
    defined: Bools = np.asarray(~np.isnan(seeds).any(axis=1))
    beside = {name: sum(figure.beside[name] for figure in figures) for name in figures[0].beside}
    beside["categories"] = int(defined.sum())
    if not defined.any():
        return Figure(seeds[0], None if figures[0].resampled is None else np.empty(0), beside)
    resampled = None
    if figures[0].resampled is not None:
        drawn = [figure.resampled for figure, one in zip(figures, defined, strict=True) if one]
        sizes = {len(one) for one in drawn if one is not None}
        resampled = np.mean(np.array(drawn), axis=0) if len(sizes) == 1 else np.empty(0)
    return Figure(seeds[defined].mean(axis=0), resampled, beside)


def clip_weights(clips: int, resamples: int, category: str | None = None) -> Ints:
    """Return how often every clip is drawn in every resample, (resamples, clips); always the same draw.

    The same draw for all runs of a data set makes their intervals comparable; each category has its own. A single
    clip, which would have an interval of no width, is not drawn at all. Of a set of loose images, the images are drawn.
    """
    resamples = resamples if clips > 1 else 0
    generator = np.random.default_rng(0 if category is None else crc32(category.encode()))
    return generator.multinomial(clips, np.full(clips, 1 / clips), resamples)


def bootstrap(pairs: Sequence[Pairs], weights: Ints) -> dict[str, Floats]:
    """Return micro and macro AUC of resampled test clips, (B,) each.

    Clips are resampled, not frames: frames of a clip depend on each other, and the question is what other
    clips of the camera would have given. Seeds are averaged inside a resample, because the table shows the
    mean over seeds; pooling (seed, resample) pairs would count the spread over seeds again, which has its own
    interval. A resample in which a seed has no area (one class only) is skipped and counted.

    Args:
        pairs: one a seed, C clips each.
        weights: (B, C), from `clip_weights`.
    """
    return {
        "micro_auc": np.mean([_micro(seed, weights) for seed in pairs], axis=0),
        "macro_auc": np.mean([_macro(seed, weights) for seed in pairs], axis=0),
    }


def image_bootstrap(seeds: Sequence[tuple[Labels, Floats, Ints]], weights: Ints) -> Floats:
    """Return micro AUC of resampled images, (B,), seeds averaged as in `bootstrap`.

    Args:
        seeds: for each its labels (N,), 1 or 0; scores (N,), no NaN; and indices of the images, (N,), below I.
        weights: (B, I), from `clip_weights`.
    """
    areas: Floats = np.mean([_weighted_auc(*seed, weights) for seed in seeds], axis=0)
    return areas


def _weighted_auc(labels: Labels, scores: Floats, image: Ints, weights: Ints) -> Floats:
    """Return micro AUC where an image counts as often as it is drawn, (B,), ties half."""
    out = np.full(len(weights), np.nan)
    if not len(scores):
        return out
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) > 0))
    for rows in rows_at_once(weights, weights.shape[1]):
        drawn = weights[rows, image[order]]
        abnormal, normal = (
            np.add.reduceat(drawn * (labels[order] == label), starts, axis=1).astype(np.float64) for label in (1, 0)
        )
        wins = (abnormal * (normal.cumsum(axis=1) - normal / 2)).sum(axis=1)
        pairs = (abnormal.sum(axis=1) * normal.sum(axis=1)).astype(np.int64)
        out[rows] = _ratio(wins, pairs)
    return out


def _micro(pairs: Pairs, weights: Ints) -> Floats:
    """Return micro AUC of every resample, (B,): a clip drawn twice meets all others, and itself, twice."""
    wins = ((weights @ pairs.wins) * weights).sum(axis=1)
    return _ratio(wins, (weights @ pairs.abnormal) * (weights @ pairs.normal))


def _macro(pairs: Pairs, weights: Ints) -> Floats:
    chosen = weights[:, pairs.two_class]
    return _ratio(chosen @ pairs.clip_aucs[pairs.two_class], chosen.sum(axis=1))


def _ratio(top: Floats, bottom: Ints) -> Floats:
    ratio = np.full(len(top), np.nan)
    np.divide(top, bottom, out=ratio, where=bottom > 0)
    return ratio


def interval(values: Floats) -> dict[str, Any]:
    """Return the percentile interval of the values of all resamples, (B,); undefined ones (NaN) are counted."""
    defined = values[~np.isnan(values)]
    ends = [rounded(end) for end in np.percentile(defined, [2.5, 97.5])] if len(defined) else None
    return {"bootstrap95": ends, "bootstrap_skipped": len(values) - len(defined)}


def rounded(value: float) -> float | None:
    """Return the value with 6 digits, or None for NaN: JSON has none."""
    return None if np.isnan(value) else round(float(value), DIGITS)
