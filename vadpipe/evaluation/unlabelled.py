"""What a run reports in frames of which nobody has said what is abnormal: boxes at the threshold of training frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vadpipe.clock import clock
from vadpipe.evaluation.arrays import Floats
from vadpipe.evaluation.boxes import find_boxes, heat_scale
from vadpipe.evaluation.locate import map_component, normal_frames
from vadpipe.evaluation.look import normal_levels
from vadpipe.evaluation.scored import Scored
from vadpipe.evaluation.truth import ClipTruth
from vadpipe.params import Evaluate
from vadpipe.pictures.strips import Strip, draw_strips
from vadpipe.store import LabelClip
from vadpipe.store.scores import read_map, read_training_maps

_SHOWN = 5
_LABELS = {1: "abnormal by its label", 0: "normal by its label", -1: "no label"}


def write_unlabelled(
    folder: Path,
    settings: Evaluate,
    scored: Scored,
    truths: Sequence[ClipTruth],
    training: Sequence[LabelClip],
    scores: Path,
) -> None:
    """Write strips_unlabelled.png into a folder: the frames without masks or boxes of their own whose maps are highest.

    Nothing is written if the run has no maps, or of every frame it is known what of it is abnormal. Frames are those
    of the first seed, at least a second apart.

    Args:
        truths: of the test clips, sorted by name.
        training: what is known of the training clips.
        scores: the run's score store.

    Raises:
        UserError: there are no maps of the training clips, or they have other frames than the clips.
    """
    component, seed = map_component(scored, scores), scored.seeds[0]
    if component is None or all(truth.known.all() for truth in truths):
        return
    training_maps = read_training_maps(scores, seed, component)
    size = truths[0].size
    levels, threshold = normal_levels(str(scored.info["run"]), normal_frames(training), training_maps, size, settings)
    strips = []
    for index, frame in _highest(scored, truths, seed, component, scores):
        truth = truths[index]
        heat = read_map(scores, seed, truth.name, component)[frame]
        boxes = [box for box in find_boxes(heat, levels, truth.size, settings) if box.score > threshold]
        label = _LABELS[int(scored.labels[scored.clip == index][frame])]
        strips.append(
            Strip(
                title=f"{truth.name} frame {frame} {clock(truth.times[frame])}, {label}",
                image=truth.images.frame(frame),
                drawn=None,
                heat=heat.astype(np.float32),
                mask=None,
                truths=np.empty((0, 4)),
                missed=np.empty(0, np.bool_),
                boxes=np.array(boxes).reshape(-1, 5),
                hits=None,
            )
        )
    (folder / "strips_unlabelled.png").write_bytes(draw_strips(strips, heat_scale(levels, settings)))


def _highest(
    scored: Scored, truths: Sequence[ClipTruth], seed: int, component: str, scores: Path
) -> list[tuple[int, int]]:
    """Return clip and frame of the highest values of maps among frames of unknown truth, highest first."""
    peaks: list[Floats] = []
    for truth in truths:
        maps = read_map(scores, seed, truth.name, component)
        highest = np.array([np.nanmax(one, initial=-np.inf) for one in maps], np.float64)
        peaks.append(np.where(truth.known, -np.inf, highest))
    chosen: list[tuple[int, int]] = []
    while len(chosen) < _SHOWN:
        clip = int(np.argmax([values.max() for values in peaks]))
        frame = int(peaks[clip].argmax())
        if peaks[clip][frame] == -np.inf:
            break
        chosen.append((clip, frame))
        gap = 0 if np.isnan(scored.fps[clip]) else round(scored.fps[clip])
        peaks[clip][max(0, frame - gap) : frame + gap + 1] = -np.inf
    return chosen
