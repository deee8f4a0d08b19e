"""Which frames are shown panel by panel, and the curve of the boxes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd

from vadpipe.clock import clock
from vadpipe.errors import UserError, did_you_mean
from vadpipe.evaluation import detection
from vadpipe.evaluation.locate import OVERLAPS, Located
from vadpipe.pictures.strips import Strip, draw_strips
from vadpipe.store.scores import read_map, read_pictures

# Rows of detections.csv: enough to see, few enough for git.
ROWS = 1000


def write_strips(folder: Path, run: str, located: Located | None, seed: int, scores: Path) -> None:
    """Write detections.csv and, if places were measured, pictures/strips.png, both of the first seed.

    `detections.csv` is precision over recall of all boxes at an intersection over union of 0.3, every n-th point.
    `strips.png` shows the images that `evaluate.chosen` names, then those of the best, the median and the worst
    pixel average precision, and the normal image with the highest false alarm.

    Raises:
        UserError: `evaluate.chosen` names no test image.
    """
    recall, precision = detection.curve(located.matches) if located else (np.empty(0), np.empty(0))
    curve = pd.DataFrame({"recall": recall, "precision": precision}).dropna()
    thinned = curve[:: max(1, math.ceil(len(curve) / ROWS))]
    thinned.round(6).to_csv(folder / "detections.csv", index=False)
    if located:
        strips = [_strip(located, index, title, seed, scores) for index, title in choose(run, located).items()]
        (folder / "pictures" / "strips.png").write_bytes(draw_strips(strips, located.seen.levels[0]))


def choose(run: str, located: Located) -> dict[int, str]:
    """Return what is shown: index among the places -> what it is shown for.

    Raises:
        UserError: `evaluate.chosen` names no test image.
    """
    precision = located.seen.precision
    chosen: dict[int, list[str]] = {index: ["chosen"] for index in _named(run, located)}
    ranked = np.argsort(-precision, kind="stable")[: int((~np.isnan(precision)).sum())]
    if len(ranked):
        for word, index in (("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])):
            chosen.setdefault(int(index), []).append(word)
    normal = np.flatnonzero(np.isnan(precision))
    if len(normal):
        highest = [max((box.score for box in located.seen.boxes[index]), default=0.0) for index in normal]
        chosen.setdefault(int(normal[np.argmax(highest)]), []).append("highest false alarm of a normal image")
    return {index: ", ".join(words) for index, words in chosen.items()}


def _named(run: str, located: Located) -> list[int]:
    """Return the places of the images that `evaluate.chosen` names by the stems of their files."""
    wanted = located.frames.settings.chosen
    if not wanted:
        return []
    names = [truth.images.column("name") for truth in located.frames.truths]
    stems = [Path(names[place.clip][place.frame]).stem for place in located.frames.places]
    for name in wanted:
        if name not in stems:
            raise UserError(
                f"params.yaml: evaluate.chosen of the run {run}: there is no test image '{name}' with known truth"
                f"{did_you_mean(name, stems)}"
            )
    return [stems.index(name) for name in wanted]


def _strip(located: Located, index: int, title: str, seed: int, scores: Path) -> Strip:
    place, threshold = located.frames.places[index], located.seen.threshold
    truth = located.frames.truths[place.clip]
    clip, true = truth.images, truth.boxes(place.frame)
    boxes = [box for box in located.seen.boxes[index] if box.score > threshold]
    matched = detection.match(boxes, true, OVERLAPS["iou30"])
    drawn = next(iter(read_pictures(scores, clip.name).values()), None)
    precision = located.seen.precision[index]
    figure = "nothing abnormal" if np.isnan(precision) else f"pixel AP {precision:.3f}"
    name = Path(clip.column("name")[place.frame]).name
    when = f" {clock(truth.times[place.frame])}".rstrip()
    return Strip(
        title=f"{title}: {clip.name} {name}{when}, {figure}",
        image=clip.frame(place.frame),
        drawn=None if drawn is None else drawn[place.frame],
        heat=read_map(scores, seed, clip.name, located.component)[place.frame].astype(np.float32),
        truths=true,
        missed=~np.isin(np.arange(len(true)), matched),
        boxes=np.array(boxes).reshape(-1, 5),
        hits=matched >= 0,
    )
