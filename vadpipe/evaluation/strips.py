"""Which frames are shown panel by panel, and the curve of the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vadpipe.clock import clock
from vadpipe.errors import UserError, did_you_mean
from vadpipe.evaluation import detection
from vadpipe.evaluation.boxes import heat_scale
from vadpipe.evaluation.locate import OVERLAPS, Located
from vadpipe.params import Evaluate
from vadpipe.pictures.strips import Strip, draw_strips
from vadpipe.store.scores import read_map, read_pictures

# Images that a message names.
_LISTED = 5


def write_strips(folder: Path, located: Located | None, seed: int, scores: Path) -> None:
    """Write strips.png of the first seed into a folder, if places were measured.

    It shows the images that `evaluate.chosen` names, then those of the best, the median and the worst pixel average
    precision, and the normal image with the highest false alarm.
    """
    if located:
        strips = [_strip(located, index, title, seed, scores) for index, title in choose(located).items()]
        scale = heat_scale(located.seen.levels, located.frames.settings)
        (folder / "strips.png").write_bytes(draw_strips(strips, scale))


def choose(located: Located) -> dict[int, str]:
    """Return what is shown: index among the places -> what it is shown for."""
    precision = located.seen.precision
    wanted = located.frames.settings.chosen
    names = _names(located) if wanted else []
    chosen: dict[int, list[str]] = {
        index: ["chosen"] for name in wanted for index in [i for i, called in enumerate(names) if name in called][:1]
    }
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
    """Check that each of `evaluate.chosen` names a test image, of one category or another.

    Raises:
        UserError: it names none, or several.
    """
    there = [located for located in several if located]
    names = [called for located in there for called in _names(located)] if settings.chosen else []
    for name in settings.chosen if there else []:
        where = f"params.yaml: evaluate.chosen of the run {run}"
        found = list(dict.fromkeys(called[-1] for called in names if name in called))
        if not found:
            known = {called["/" in name] for called in names}
            raise UserError(f"{where}: there is no test image '{name}' with known truth{did_you_mean(name, known)}")
        if len(found) > 1:
            more = f", or {len(found) - _LISTED} more" if len(found) > _LISTED else ""
            raise UserError(f"{where}: '{name}' could be {', '.join(found[:_LISTED])}{more}; write which")


def _names(located: Located) -> list[tuple[str, str, str]]:
    """Return by what names each place goes: STEM of its file, CLIP/STEM and CLIP/FILE."""
    files = [[Path(name) for name in truth.images.column("name")] for truth in located.frames.truths]
    clips = [truth.name for truth in located.frames.truths]
    names = []
    for clip, frame in located.frames.places:
        file = files[clip][frame]
        names.append((file.stem, f"{clips[clip]}/{file.stem}", f"{clips[clip]}/{file.name}"))
    return names


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
        mask=truth.drawn_mask(place.frame),
        truths=true,
        missed=~np.isin(np.arange(len(true)), matched),
        boxes=np.array(boxes).reshape(-1, 5),
        hits=matched >= 0,
    )
