"""All runs side by side: what was measured, what was published, and which method a baseline beats."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vadpipe import paths
from vadpipe.errors import UserError
from vadpipe.evaluation.measured import damage
from vadpipe.evaluation.postprocess import KINDS
from vadpipe.files import read_bytes, there

METRICS = ("micro_auc", "macro_auc", "macro_padded", "average_precision", "eer", "f1_max")
# Name in summary.json -> where it stands in the result of a run with maps.
MAP_METRICS = {
    "pixel_auroc": ("pixels", "auroc"),
    "pixel_ap": ("pixels", "average_precision"),
    "aupro": ("pixels", "aupro"),
    "box_ap30": ("boxes", "iou30", "average_precision"),
    "box_ap50": ("boxes", "iou50", "average_precision"),
    "rbdc": ("boxes", "rbdc"),
    "tbdc": ("boxes", "tbdc"),
}
# Methods without a network: what they find needs no learning, so that others must beat them.
BASELINES = {"brightness", "frame_difference", "flow_magnitude", "coherent_motion"}

# A curve as stage `evaluate` writes it; without points where there is none.
_CURVE = re.compile(r"fpr,tpr\n(0\.0,0\.0\n(\d[\d.e-]*,\d[\d.e-]*\n)*1\.0,1\.0\n)?")

Result = dict[str, Any]


def read_results(runs: Sequence[str]) -> list[Result]:
    """Read what stage `evaluate` measured for the runs; files of other runs are none of our business.

    Raises:
        UserError: a run has no metrics, or its file is damaged.
    """
    return [read_result(run) for run in runs]


def read_result(run: str) -> Result:
    """Read what stage `evaluate` measured for a run.

    Raises:
        UserError: the run has no metrics, or its file is damaged.
    """
    path = paths.run_metrics(run)
    if not path.is_file():
        raise UserError(f"{path} is not here; run `dvc repro`")
    try:
        result: Result = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}); remove it and run `dvc repro`") from None
    if damaged := damage(run, result):
        raise UserError(f"{path} {damaged}; remove it and run `dvc repro`")
    return result


def mean(result: Result, kind: str, metric: str) -> float | None:
    """Return a metric of a run's main component, mean over seeds."""
    value: float | None = result["components"][result["component"]][kind][metric]["mean"]
    return value


def headline(result: Result) -> Result:
    """Return everything known about the raw micro AUC of a run's main component."""
    found: Result = result["components"][result["component"]]["raw"]["micro_auc"]
    return found


def by_category(result: Result) -> dict[str, Result]:
    """Return the results of a run's categories, each as that of a run; none where the data set has no categories."""
    alike = {name: value for name, value in result.items() if name != "categories"}
    return {category: alike | found for category, found in result.get("categories", {}).items()}


def by_kind(result: Result) -> dict[str, Result]:
    """Return what is known of each clip of loose images that has abnormal ones, such as a kind of defect.

    Of several categories it is that of all, or none where a clip tests several of them, as in sets of classes.
    """
    categories = by_category(result)
    if not categories:
        return dict(result["kinds"])
    names = [name for one in categories.values() for name in one["kinds"]]
    if len(set(names)) < len(names):
        return {}
    return {name: kind for one in categories.values() for name, kind in one["kinds"].items()}


def map_figure(result: Result, *place: str) -> Result | None:
    """Return a figure of a run's maps with its intervals; None if the run has no maps, or the set no such truth.

    Args:
        place: keys such as `pixels`, `aupro` or `boxes`, `iou30`, `recall`.
    """
    found: Result | None = result[place[0]]
    for key in place[1:]:
        found = found and found[key]
    return found


def map_mean(result: Result, metric: str) -> float | None:
    """Return one of `MAP_METRICS`, mean over seeds."""
    found = map_figure(result, *MAP_METRICS[metric])
    return found["mean"] if found else None


def _of_maps(result: Result) -> dict[str, Any]:
    """Return the means of a run with maps; loose images have no tracks."""
    there = [metric for metric, place in MAP_METRICS.items() if map_figure(result, *place) is not None]
    return {metric: _rounded(map_mean(result, metric)) for metric in there}


def summary(results: Sequence[Result], failed: Mapping[str, str]) -> dict[str, Any]:
    """Return the means of all runs, rounded to 4 digits: the one metric file of DVC; `maps` only of runs with maps.

    Args:
        failed: run -> why it failed, added as `failed`.
    """
    measured = {
        result["run"]: {"coverage": _rounded(result["coverage"])}
        | {kind: {metric: _rounded(mean(result, kind, metric)) for metric in METRICS} for kind in KINDS}
        | ({"maps": _of_maps(result)} if result["pixels"] else {})
        for result in results
    }
    return measured | {run: measured.get(run, {}) | {"failed": reason} for run, reason in failed.items()}


def by_dataset(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Group runs by data set, the highest raw micro AUC first, undefined ones last."""
    groups: dict[str, list[Result]] = {}
    for result in sorted(results, key=_descending):
        groups.setdefault(result["dataset"], []).append(result)
    return dict(sorted(groups.items()))


def remarks(group: Sequence[Result]) -> list[str]:
    """Say which runs of a data set are no match: beaten by a baseline without a network, or of fewer categories."""
    found = _fewer_categories(group)
    measured = [(result, auc) for result in group if (auc := headline(result)["mean"]) is not None]
    baselines = [(auc, result["run"]) for result, auc in measured if result["method"] in BASELINES]
    if not baselines:
        return found
    best, name = max(baselines)
    return found + [
        f"{result['run']} ({auc:.3f}) is below {name} ({best:.3f}), a baseline without a network."
        for result, auc in measured
        if result["method"] not in BASELINES and auc < best
    ]


def _fewer_categories(group: Sequence[Result]) -> list[str]:
    counts = {result["run"]: len(by_category(result)) for result in group}
    most = max(counts.values(), default=0)
    return [
        f"{run} has {count} of {most} categories: its mean is not to be compared with those of all."
        for run, count in counts.items()
        if count < most
    ]


def published(dataset: str, method: str) -> list[dict[str, str]]:
    """Return the rows of `published.csv` for a method on a data set."""
    with Path(__file__).with_name("published.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if (row["dataset"], row["method"]) == (dataset, method)]


def roc_rows(runs: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield run, fpr and tpr of the ROC curves of all runs.

    Raises:
        UserError: a curve is missing or damaged.
    """
    for run in runs:
        path = paths.roc(run)
        if not there(path):
            raise UserError(f"{path} is not here; run `dvc repro`")
        text = read_bytes(path).decode(errors="replace")
        if not _CURVE.fullmatch(text):
            raise UserError(f"{path} is no ROC curve from 0,0 to 1,1; remove it and run `dvc repro`")
        for point in text.split()[1:]:
            fpr, tpr = point.split(",")
            yield run, fpr, tpr


def _descending(result: Result) -> tuple[float, str]:
    auc = headline(result)["mean"]
    return (1.0 if auc is None else -auc), result["run"]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
