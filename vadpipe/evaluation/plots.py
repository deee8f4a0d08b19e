"""Tables for `dvc plots` and pictures of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vadpipe.clock import clock
from vadpipe.evaluation.run import roc, timeline
from vadpipe.evaluation.scored import Scored
from vadpipe.pictures.timelines import draw_timelines
from vadpipe.pictures.top_frames import choose, draw_sheet, heat_maps
from vadpipe.store.atomic import replacing
from vadpipe.store.clips import Clip

# Rows of timeline.csv: enough to see, few enough for git.
ROWS = 2500


def write_plots(folder: Path, result: dict[str, Any], scored: Scored, clips: Sequence[Clip], scores: Path) -> None:
    """Write timeline.csv, pictures/timelines.png and pictures/top_frames.png into an empty folder.

    `timeline.csv` holds every n-th test frame, so that there are at most about 2,500 rows.

    Args:
        result: from `run.evaluate`.
        scores: the run's score store, for its maps.
    """
    settings = result["evaluate"]
    frames = timeline(scored, settings["smoothing_s"])
    thinned = frames[:: math.ceil(len(frames) / ROWS)].drop(columns="sd")
    thinned = thinned.assign(time=thinned["time"].map(clock))
    thinned.to_csv(folder / "timeline.csv", index=False, float_format="%.6g")
    pictures = folder / "pictures"
    pictures.mkdir()
    (pictures / "timelines.png").write_bytes(draw_timelines(frames, headline(result)))
    gaps = {clip.name: round(clip.info["fps"]) if clip.info["ordered"] else 0 for clip in clips}
    chosen = choose(frames, settings["top_frames"], gaps)
    heats = heat_maps(scores, scored.seeds, scored.main, chosen)
    (pictures / "top_frames.png").write_bytes(draw_sheet(chosen, clips, heats))


def write_roc(path: Path, scored: Scored) -> None:
    """Write the ROC of the raw scores of the main component, mean over seeds at equal FPR + TPR."""
    fpr, tpr = roc(scored) or ([], [])
    with replacing(path) as beside:
        pd.DataFrame({"fpr": fpr, "tpr": tpr}).round(6).to_csv(beside, index=False)


def headline(result: dict[str, Any]) -> str:
    """Say in a line what came out."""
    figures = result["components"][result["component"]]["raw"]["micro_auc"]
    kind = "raw micro AUC" if result["ordered"] else "image AUROC"
    text = f"{_why_no_auc(result)}, no AUC" if figures["mean"] is None else f"{kind} {figures['mean']:.3f}"
    if figures["sd"] is not None:
        text += f", sd {figures['sd']:.3f} over {len(result['seeds'])} seeds"
    if result["pixels"] and result["pixels"]["average_precision"]["mean"] is not None:
        text += f", pixel AP {result['pixels']['average_precision']['mean']:.3f}"
    return f"{result['run']}: {text}, coverage {result['coverage']:.1%}"


def _why_no_auc(result: dict[str, Any]) -> str:
    if result["coverage"] == 0:
        return "covers no frame"
    if result["abnormal_frames"] is None:
        return "no labels"
    return "labels of one class" if result["coverage"] == 1 else "covers frames of one class"
