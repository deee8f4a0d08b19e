"""Which frames are shown panel by panel, and the curve of the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vadpipe.clock import clock
from vadpipe.errors import UserError, did_you_mean
from vadpipe.evaluation import detection
from vadpipe.evaluation.locate import OVERLAPS, Located
from vadpipe.params import Evaluate
from vadpipe.pictures.strips import Strip, draw_strips
from vadpipe.store.scores import read_map, read_pictures


def write_strips(folder: Path, located: Located | None, seed: int, scores: Path) -> None:
    """Write strips.png of the first seed into a folder, if places were measured.

    It shows the images that `evaluate.chosen` names, then those of the best, the median and the worst pixel average
    precision, and the normal image with the highest false alarm.
    """
    if located:
        strips = [_strip(located, index, title, seed, scores) for index, title in choose(located).items()]
        (folder / "strips.png").write_bytes(draw_strips(strips, located.seen.levels[0]))


def choose(located: Located) -> dict[int, str]:
    """Return what is shown: index among the places -> what it is shown for."""
    precision = located.seen.precision
    wanted = located.frames.settings.chosen
    stems = _stems(located) if wanted else []
    chosen: dict[int, list[str]] = {stems.index(name): ["chosen"] for name in wanted if name in stems}
    ranked = np.argsort(-precision, kind="stable")[: int((~np.isnan(precision)).sum())]
    if len(ranked):
        for word, index in (("best", ranked[0]), ("median", ranked[len(ranked) // 2]), ("worst", ranked[-1])):
            chosen.setdefault(int(index), []).append(word)
    normal = np.flatnonzero(np.isnan(precision))
    if len(normal):
        highest = [max((box.score for box in located.seen.boxes[index]), default=0.0) for index in normal]
        chosen.setdefault(int(normal[np.argmax(highest)]), []).append("highest false alarm of a normal image")
    return {index: ", ".join(words) for index, words in chosen.items()}


def check_chosen(run: str, settings: Evaluate, several: Sequence[Located | None]) -> None:
    """Check that `evaluate.chosen` names test images, of one category or another.

    Raises:
        UserError: it names another one.
    """
    there = [located for located in several if located]
    stems = [stem for located in there for stem in _stems(located)] if settings.chosen else []
    for name in settings.chosen if there else []:
        if name not in stems:
            raise UserError(
                f"params.yaml: evaluate.chosen of the run {run}: there is no test image '{name}' with known truth"
                f"{did_you_mean(name, stems)}"
            )


def _stems(located: Located) -> list[str]:
    """Return the stems of the files of all places."""
    names = [truth.images.column("name") for truth in located.frames.truths]
    return [Path(names[place.clip][place.frame]).stem for place in located.frames.places]


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
