"""Everything that is measured for one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vadpipe.evaluation import frame, intervals, postprocess
from vadpipe.evaluation.arrays import Floats, Ints
from vadpipe.evaluation.frame import Curve, Pairs
from vadpipe.evaluation.intervals import rounded
from vadpipe.evaluation.locate import Located
from vadpipe.evaluation.scored import UNKNOWN, Scored
from vadpipe.params import Evaluate, Run


def evaluate(name: str, run: Run, settings: Evaluate, scored: Scored, located: Located | None) -> dict[str, Any]:
    """Return the metrics of a run, ready for JSON: undefined ones are None, never NaN.

    Frames without a score in a component, or without a label, leave all its metrics.

    Args:
        located: from `locate`, whose figures become `pixels` and `boxes`.
    """
    units = len(scored.names) if scored.ordered else int((scored.labels != UNKNOWN).sum())
    weights = intervals.clip_weights(units, settings.bootstrap) if units else np.empty((0, 0), np.int64)
    components = {}
    for component, scores in scored.components.items():
        figures: dict[str, Any] = {"coverage": rounded((~np.isnan(scores)).mean())}
        for kind in postprocess.KINDS:
            processed = postprocess.apply(kind, scores, scored.lengths, settings.smoothing_s * scored.fps)
            figures[kind] = _metrics(processed, scored, weights)
        components[component] = figures
    return {
        "run": name,
        "dataset": run.dataset,
        "method": run.method,
        "uses": run.uses,
        "seeds": scored.seeds,
        **_test_set(scored),
        "component": scored.main,
        "coverage": components[scored.main]["coverage"],
        "components": components,
        "pixels": located.pixels if located else None,
        "boxes": located.boxes if located else None,
        "evaluate": settings.model_dump(),
        "recorded": _plain(scored.info),
    }


def _test_set(scored: Scored) -> dict[str, Any]:
    """Describe the test set; the note says what of it cannot be measured."""
    by_clip = np.split(scored.labels, np.cumsum(scored.lengths)[:-1])
    unlabelled = sum(bool((labels == UNKNOWN).any()) for labels in by_clip)
    notes = []
    if unlabelled == len(by_clip):
        notes.append("the test clips have no labels: there is nothing to measure, only scores and pictures")
    elif unlabelled:
        notes.append(f"{unlabelled} of {len(by_clip)} test clips have no labels and leave all metrics")
    if not scored.ordered:
        notes.append(
            "the frames are loose images: they are not smoothed, nothing is measured clip by clip, and intervals are "
            "over the choice of images"
        )
    return {
        "ordered": scored.ordered,
        "clips": len(scored.names),
        "frames": len(scored.labels),
        "abnormal_frames": None if unlabelled == len(by_clip) else int((scored.labels == 1).sum()),
        "two_class_clips": sum({0, 1} <= set(labels.tolist()) for labels in by_clip),
        "note": "; ".join(notes) or None,
    }


def _metrics(scores: Floats, scored: Scored, weights: Ints) -> dict[str, Any]:
    """Measure scores (S, N) of one component and one post-processing."""
    labelled = scored.labels != UNKNOWN
    image = labelled.cumsum() - 1
    # Loose images are as one clip: what is measured clip by clip has no meaning for the folders that they lie in.
    clip, clips = (scored.clip, len(scored.names)) if scored.ordered else (np.zeros_like(image), 1)
    pairs, images, curves, precisions = [], [], [], []
    for row in scores:
        usable = ~np.isnan(row) & labelled
        labels, values = scored.labels[usable], row[usable]
        pairs.append(frame.count_pairs(labels, values, clip[usable], clips))
        images.append((labels, values, image[usable]))
        curves.append(frame.roc(labels, values))
        precisions.append(frame.average_precision(labels, values))
    figures = {
        "micro_auc": intervals.over_seeds([frame.micro_auc(seed) for seed in pairs]),
        **_by_clip(pairs, scored.ordered),
        "average_precision": intervals.over_seeds(precisions),
        "eer": intervals.over_seeds([frame.eer(curve) for curve in curves]),
    }
    if scored.ordered:
        for metric, interval in intervals.bootstrap(pairs, weights).items():
            figures[metric] |= interval
    else:
        figures["micro_auc"] |= intervals.image_bootstrap(images, weights)
    return figures


def _by_clip(pairs: Sequence[Pairs], ordered: bool) -> dict[str, dict[str, Any]]:
    """Return what is measured clip by clip, undefined for loose images."""
    macro, counts = zip(*(frame.macro_auc(seed) if ordered else (np.nan, 0) for seed in pairs), strict=True)
    padded = [frame.macro_padded(seed) if ordered else np.nan for seed in pairs]
    return {
        "macro_auc": {**intervals.over_seeds(macro), "clips": min(counts)},
        "macro_padded": intervals.over_seeds(padded),
    }


def roc(scored: Scored) -> Curve | None:
    """Return the ROC of the raw main component, mean over seeds; None where there is none."""
    curves = []
    for row in scored.components[scored.main]:
        usable = ~np.isnan(row) & (scored.labels != UNKNOWN)
        curve = frame.roc(scored.labels[usable], row[usable])
        if curve is None:
            return None
        curves.append(curve)
    return frame.mean_roc(curves)


def timeline(scored: Scored, smoothing_s: float) -> pd.DataFrame:
    """Return a row a test frame: position, clip, frame, time, score, sd, smoothed, label.

    `position` counts the frames of all clips, one clip after the other; `time` is in seconds of the source.
    `score` is the mean over seeds of the raw main component (NaN if a seed does not cover the frame), `sd`
    its standard deviation over seeds (NaN for one seed), `smoothed` the mean of the smoothed scores.
    """
    scores = scored.components[scored.main]
    smoothed = postprocess.apply("smoothed", scores, scored.lengths, smoothing_s * scored.fps)
    several = len(scored.seeds) > 1
    return pd.DataFrame(
        {
            "position": np.arange(len(scored.labels)),
            "clip": np.repeat(scored.names, scored.lengths),
            "frame": scored.frame,
            "time": scored.times,
            "score": scores.mean(axis=0),
            "sd": scores.std(axis=0, ddof=1) if several else np.nan,
            "smoothed": smoothed.mean(axis=0),
            "label": pd.Series(scored.labels, dtype="Int8").replace(UNKNOWN, pd.NA),
        }
    )


def _plain(value: Any) -> Any:
    """Replace NaN and infinity, which JSON has not, by None."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
