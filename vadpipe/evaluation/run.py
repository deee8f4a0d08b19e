"""Everything that is measured for one run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vadpipe.evaluation import frame, intervals, postprocess
from vadpipe.evaluation.arrays import Floats, Ints
from vadpipe.evaluation.frame import Curve
from vadpipe.evaluation.intervals import Figure, rounded
from vadpipe.evaluation.locate import Located
from vadpipe.evaluation.scored import UNKNOWN, Scored
from vadpipe.params import Evaluate, Run


@dataclass(frozen=True)
class Part:
    """What is known of a run, or of one of its categories.

    Attributes:
        measured: from `measure`.
    """

    scored: Scored
    located: Located | None
    measured: dict[str, Any]


_COUNTS = ("clips", "frames", "abnormal_frames", "two_class_clips")


def evaluate(name: str, run: Run, settings: Evaluate, scored: Scored, located: Located | None) -> dict[str, Any]:
    """Return the metrics of a run, ready for JSON: undefined ones are None, never NaN.

    Frames without a score in a component, or without a label, leave all its metrics.

    Args:
        located: from `locate`, whose figures become `pixels` and `boxes`.
    """
    result: dict[str, Any] = told(measure(name, run, settings, scored, located))
    return result


def result_of(parts: Sequence[Part]) -> dict[str, Any]:
    """Return the metrics of a run, ready for JSON, as `evaluate`; of several categories means, and `categories`."""
    named = {part.scored.category: part.measured for part in parts}
    result: dict[str, Any] = told(named[None]) if None in named else _over_categories(named)
    return result


def _over_categories(measured: Mapping[str | None, dict[str, Any]]) -> dict[str, Any]:
    parts = list(measured.values())
    first = parts[0]
    notes = dict.fromkeys(part["note"] for part in parts if part["note"])
    located = [part for part in parts if part["pixels"]]
    whole = first | {
        **{name: _total([part[name] for part in parts]) for name in _COUNTS},
        "note": "; ".join(notes) or None,
        "coverage": rounded(float(np.mean([part["coverage"] for part in parts]))),
        "components": _mean([part["components"] for part in parts]),
        "pixels": _mean([part["pixels"] for part in located]) if located else None,
        "boxes": _mean([part["boxes"] for part in located]) if located else None,
        "kinds": {},
    }
    alike = {"run", "dataset", "method", "uses", "seeds", "ordered", "component", "evaluate", "recorded"}
    each = {
        category: {name: value for name, value in part.items() if name not in alike}
        for category, part in measured.items()
    }
    result: dict[str, Any] = told({**whole, "categories": each})
    return result


def told(measured: Any) -> Any:
    """Return what was measured, ready for JSON, which has neither figures nor NaN."""
    if isinstance(measured, Figure):
        return _plain(measured.told())
    if isinstance(measured, dict):
        return {key: told(value) for key, value in measured.items()}
    return _plain(measured)


def _total(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _mean(trees: Sequence[Any]) -> Any:
    """Return the means of the figures of trees of one form, sums of their counts, and the first of all else."""
    trees = [tree for tree in trees if tree is not None]  # what a category lacks is a mean over the others
    first = trees[0] if trees else None
    if isinstance(first, Figure):
        return intervals.mean_figure(trees)
    if isinstance(first, dict):
        return {key: _mean([tree[key] for tree in trees]) for key in first}
    if isinstance(first, float):
        return rounded(float(np.mean(trees)))
    return sum(trees) if isinstance(first, int) else first


def measure(name: str, run: Run, settings: Evaluate, scored: Scored, located: Located | None) -> dict[str, Any]:
    """Return the metrics of a run, or of one of its categories, with figures as they were measured.

    Args:
        located: from `locate`, whose figures become `pixels` and `boxes`.
    """
    units = len(scored.names) if scored.ordered else int((scored.labels != UNKNOWN).sum())
    weights = np.empty((0, 0), np.int64)
    if units:
        weights = intervals.clip_weights(units, settings.bootstrap, scored.category)
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
        "kinds": _kinds(scored, located.kinds if located else {}),
        "evaluate": settings.model_dump(),
        "recorded": scored.info,
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
    notes += scored.unmasked
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


def _kinds(scored: Scored, pixels: Mapping[str, dict[str, Figure]]) -> dict[str, dict[str, Any]]:
    """Measure each clip of loose images that has abnormal ones, such as a kind of defect, beside all normal images.

    Args:
        pixels: of clips by name, the figures of their maps.
    """
    if scored.ordered:
        return {}
    normal = scored.labels == 0
    found: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(scored.names):
        own = (scored.clip == index) & (scored.labels == 1)
        if not own.any() or not normal.any():
            continue
        aucs = []
        for row in scored.components[scored.main]:
            usable = (own | normal) & ~np.isnan(row)
            pairs = frame.count_pairs(scored.labels[usable], row[usable], np.zeros(usable.sum(), np.int64), 1)
            aucs.append(frame.micro_auc(pairs))
        found[name] = {"images": int(own.sum()), "image_auroc": Figure(aucs), "pixels": pixels.get(name)}
    return found


def _metrics(scores: Floats, scored: Scored, weights: Ints) -> dict[str, Figure]:
    """Measure scores (S, N) of one component and one post-processing."""
    labelled = scored.labels != UNKNOWN
    image = labelled.cumsum() - 1
    # Loose images are as one clip: what is measured clip by clip has no meaning for the folders that they lie in.
    clip, clips = (scored.clip, len(scored.names)) if scored.ordered else (np.zeros_like(image), 1)
    pairs, images, curves, precisions, f1 = [], [], [], [], []
    for row in scores:
        usable = ~np.isnan(row) & labelled
        labels, values = scored.labels[usable], row[usable]
        pairs.append(frame.count_pairs(labels, values, clip[usable], clips))
        images.append((labels, values, image[usable]))
        curves.append(frame.roc(labels, values))
        precisions.append(frame.average_precision(labels, values))
        f1.append(frame.f1_max(labels, values))
    if scored.ordered:
        resampled = intervals.bootstrap(pairs, weights)
    else:
        resampled = {"micro_auc": intervals.image_bootstrap(images, weights)}
    # What is measured clip by clip is undefined for loose images.
    macro, counts = zip(*(frame.macro_auc(seed) if scored.ordered else (np.nan, 0) for seed in pairs), strict=True)
    padded = [frame.macro_padded(seed) if scored.ordered else np.nan for seed in pairs]
    return {
        "micro_auc": Figure([frame.micro_auc(seed) for seed in pairs], resampled["micro_auc"]),
        "macro_auc": Figure(macro, resampled.get("macro_auc"), {"clips": min(counts)}),
        "macro_padded": Figure(padded),
        "average_precision": Figure(precisions),
        "eer": Figure([frame.eer(curve) for curve in curves]),
        "f1_max": Figure(f1),
    }


def roc(parts: Sequence[Scored]) -> Curve | None:
    """Return the ROC of the raw main component, mean over seeds, and over the categories that have one."""
    curves = []
    for scored in parts:
        labelled = scored.labels != UNKNOWN
        rows = [(row, ~np.isnan(row) & labelled) for row in scored.components[scored.main]]
        found = [frame.roc(scored.labels[usable], row[usable]) for row, usable in rows]
        curves += [] if None in found else found
    there = [curve for curve in curves if curve is not None]
    return frame.mean_roc(there) if there else None


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
