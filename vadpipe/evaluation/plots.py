"""Tables for `dvc plots` and pictures of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vadpipe.clock import clock
from vadpipe.evaluation import detection
from vadpipe.evaluation.boxes import heat_scale
from vadpipe.evaluation.locate import map_component, normal_frames
from vadpipe.evaluation.look import map_levels
from vadpipe.evaluation.run import Part, roc, timeline, told
from vadpipe.evaluation.scored import Scored
from vadpipe.params import Evaluate
from vadpipe.pictures.heat import Scale
from vadpipe.pictures.score_rows import draw_score_rows
from vadpipe.pictures.timelines import draw_timelines
from vadpipe.pictures.top_frames import choose, draw_sheet, heat_maps
from vadpipe.store import LabelClip
from vadpipe.store.atomic import replacing
from vadpipe.store.clips import Clip
from vadpipe.store.scores import read_training_maps

# Rows of timeline.csv and detections.csv: enough to see, few enough for git.
ROWS, DETECTION_ROWS = 2500, 1000


def write_pictures(
    folder: Path,
    settings: Evaluate,
    part: Part,
    clips: Sequence[Clip],
    training: Sequence[LabelClip],
    scores: Path,
) -> None:
    """Write timelines.png, or scores.png of loose images, and top_frames.png into a folder, which is made.

    Args:
        training: what is known of the training clips.
        scores: the score store of the part, for its maps.

    Raises:
        UserError: there are maps of the test clips but none of the training clips, or of other frames.
    """
    scored = part.scored
    frames = timeline(scored, settings.smoothing_s)
    folder.mkdir(parents=True)
    title = headline(told(part.measured), scored.category)
    if scored.ordered:
        (folder / "timelines.png").write_bytes(draw_timelines(frames, title))
    else:
        (folder / "scores.png").write_bytes(draw_score_rows(frames, title))
    gaps = {clip.name: round(clip.info["fps"]) if clip.info["ordered"] else 0 for clip in clips}
    chosen = choose(frames, settings.top_frames, gaps)
    component = map_component(scored, scores)
    heats = heat_maps(scores, scored.seeds, component, chosen) if component else None
    scale = _mean_scale(settings, scored, component, training, scores) if component else None
    (folder / "top_frames.png").write_bytes(draw_sheet(chosen, clips, heats, scale))


def _mean_scale(
    settings: Evaluate, scored: Scored, component: str, training: Sequence[LabelClip], scores: Path
) -> Scale:
    """Return the scale of maps that are means over the seeds."""
    run, normal = str(scored.info["run"]), normal_frames(training)
    maps = [read_training_maps(scores, seed, component) for seed in scored.seeds]
    levels = [map_levels(run, normal, of_seed, settings) for of_seed in maps]
    return heat_scale(np.mean(levels, axis=0).tolist(), settings)


def write_tables(folder: Path, settings: Evaluate, parts: Sequence[Part]) -> None:
    """Write timeline.csv and detections.csv, category after category; with some, they have a column of them.

    `timeline.csv` holds every n-th test frame, so that there are at most about 2,500 rows. `detections.csv` is
    precision over recall of the boxes of the first seed at an intersection over union of 0.3, every n-th point.
    """
    frames = _joined(parts, [timeline(part.scored, settings.smoothing_s) for part in parts])
    frames["position"] = range(len(frames))
    thinned = frames[:: math.ceil(len(frames) / ROWS)].drop(columns="sd")
    thinned = thinned.assign(time=thinned["time"].map(clock))
    thinned.to_csv(folder / "timeline.csv", index=False, float_format="%.6g")
    curves = []
    for part in parts:
        recall, precision = detection.curve(part.located.matches) if part.located else (np.empty(0), np.empty(0))
        curves.append(pd.DataFrame({"recall": recall, "precision": precision}).dropna())
    curve = _joined(parts, curves)
    curve = curve[:: max(1, math.ceil(len(curve) / DETECTION_ROWS))]
    curve.round(6).to_csv(folder / "detections.csv", index=False)


def _joined(parts: Sequence[Part], tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return the tables of all parts one after the other, with a column of their categories if there are some."""
    found = [
        table if part.scored.category is None else table.assign(category=part.scored.category)
        for part, table in zip(parts, tables, strict=True)
    ]
    return pd.concat(found, ignore_index=True)


def write_roc(path: Path, parts: Sequence[Part]) -> None:
    """Write the ROC of the raw scores of the main component, mean over categories and seeds at equal FPR + TPR."""
    fpr, tpr = roc([part.scored for part in parts]) or ([], [])
    with replacing(path) as beside:
        pd.DataFrame({"fpr": fpr, "tpr": tpr}).round(6).to_csv(beside, index=False)


def headline(result: dict[str, Any], category: str | None = None) -> str:
    """Say in a line what came out of a run, or of one of its categories."""
    figures = result["components"][result["component"]]["raw"]["micro_auc"]
    kind = "raw micro AUC" if result["ordered"] else "image AUROC"
    text = f"{_why_no_auc(result)}, no AUC" if figures["mean"] is None else f"{kind} {figures['mean']:.3f}"
    if figures["sd"] is not None:
        text += f", sd {figures['sd']:.3f} over {len(result['seeds'])} seeds"
    if result["pixels"] and result["pixels"]["average_precision"]["mean"] is not None:
        text += f", pixel AP {result['pixels']['average_precision']['mean']:.3f}"
    if category is None and (several := result.get("categories")):
        text += f", mean over {len(several)} categories"
    name = result["run"] if category is None else f"{result['run']}, {category}"
    return f"{name}: {text}, coverage {result['coverage']:.1%}"


def _why_no_auc(result: dict[str, Any]) -> str:
    if result["coverage"] == 0:
        return "covers no frame"
    if result["abnormal_frames"] is None:
        return "no labels"
    return "labels of one class" if result["coverage"] == 1 else "covers frames of one class"
