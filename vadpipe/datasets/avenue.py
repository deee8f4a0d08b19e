"""Reader `avenue`: CUHK Avenue in its official layout (Lu, Shi and Jia, ICCV 2013).

ROOT/training_videos/01.avi ...            videos, or folders of frames; also training/frames/01/000.jpg ...
ROOT/testing_videos/01.avi ...             likewise, also testing/frames/...
ROOT/testing_label_mask/1_label.mat ...    pixel masks, not padded with zeros; also inside ground_truth_demo
ROOT/avenue.mat                            intervals, from 1, both ends included (Liu et al., CVPR 2018)

There are two truths, which differ in 441 frames: the masks call 3,712 of 15,324 frames abnormal, and the intervals,
which bridge gaps, 3,867. `labels: masks` (default) or `labels: intervals` chooses; published figures use either. With
intervals, a mask in a frame outside them is taken as empty.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vadpipe.datasets.base import RawDataset, check_clips
from vadpipe.datasets.files import entries, layout
from vadpipe.datasets.labels import NORMAL, Intervals, Known
from vadpipe.datasets.matlab import cells
from vadpipe.datasets.sources import Source, numbered, raw_clip, sources
from vadpipe.errors import UserError, did_you_mean
from vadpipe.files import there

# Of folders of frames, which do not say: that of the videos.
_FPS = 25.0
_TRUTHS = ("masks", "intervals")
_ROOT = {"training_videos", "testing_videos", "training", "testing", "testing_label_mask", "ground_truth_demo"}
_ROOT |= {"training_vol", "testing_vol"}  # small copies of the videos, not read


def scan(root: Path, labels: str | None = None) -> RawDataset:
    """Find the clips of Avenue and their labels.

    Args:
        labels: `masks` or `intervals`, None = masks.

    Raises:
        UserError: the layout or the labels are not as they should be.
    """
    truth = labels or "masks"
    if truth not in _TRUTHS:
        raise UserError(f"the reader avenue knows no labels '{truth}'{did_you_mean(truth, _TRUTHS)}")
    found = layout(root, "Avenue", _ROOT, {"avenue.mat"})
    train, test = sources(_clips(root, "training")), sources(_clips(root, "testing"))
    masks = _mask_files(root)
    for clip in test:
        if truth == "masks" and _number(clip) not in masks:
            raise UserError(f"{root}: there is no {_number(clip)}_label.mat for the test clip {clip.name}; add it")
    intervals: list[Intervals | None] = [None] * len(test)
    if truth == "intervals":
        if "avenue.mat" not in found:
            raise UserError(f"{root}/avenue.mat is not there, but `labels: intervals` asks for it; add it")
        intervals = [*_intervals(found["avenue.mat"], len(test))]
    clips = [raw_clip("train", clip, Known(NORMAL), _FPS) for clip in train]
    for clip, spans in zip(test, intervals, strict=True):
        clips.append(raw_clip("test", clip, partial(_known, clip, masks.get(_number(clip)), spans), _FPS))
    told = "by the official masks" if truth == "masks" else "by the intervals of avenue.mat"
    oddities = [f"frames are labelled {told}; masks and intervals differ in 441 frames of the official set"]
    if not masks:
        oddities.append("there are no masks: no figures by pixel can be given")
    return RawDataset(check_clips(root, clips), oddities)


def _clips(root: Path, part: str) -> Path:
    """Return the folder of the training or testing clips."""
    places = [root / f"{part}_videos", root / part / "frames"]
    present = [place for place in places if there(place)]
    if len(present) != 1:
        what = "both are there" if present else "neither is there"
        raise UserError(f"{root}: the clips belong into {part}_videos or {part}/frames, and {what}; keep one")
    return present[0]


def _mask_files(root: Path) -> dict[int, Path]:
    """Return the files of masks by the number of their clip."""
    places = [root / "testing_label_mask", root / "ground_truth_demo" / "testing_label_mask"]
    found: dict[int, Path] = {}
    for folder in filter(there, places):
        for path in entries(folder):
            match = re.fullmatch(r"0*(\d+)_label\.mat", path.name)
            if match is None:
                raise UserError(f"{path} does not belong among the masks of Avenue (1_label.mat, ...); move it away")
            if int(match[1]) in found:
                raise UserError(f"{found[int(match[1])]} and {path} are both masks of clip {match[1]}; remove one")
            found[int(match[1])] = path
    return found


def _number(clip: Source) -> int:
    """Return the number of a test clip, by which its masks go."""
    if not clip.plain.isdecimal():
        raise UserError(f"{clip.path}: test clips of Avenue are numbered, 01, 02, ...; rename it")
    return int(clip.plain)


def _intervals(path: Path, clips: int) -> list[Intervals]:
    """Return the abnormal intervals of each test clip; in the file they count from 1, here from 0."""
    found = cells(path, "gt")
    if len(found) != clips:
        raise UserError(f"{path} has intervals for {len(found)} clips, but there are {clips} test clips")
    each = []
    for number, spans in enumerate(found, 1):
        if spans.size and (spans.ndim != 2 or spans.shape[0] != 2):
            raise UserError(f"{path}: cell {number} has the shape {spans.shape}, wanted are two rows, starts and ends")
        # Small types of the file would run under at 0.
        rows = spans.astype(np.int64).reshape(2, -1) - 1
        each.append(Intervals(f"{path}, cell {number}", [(int(a), int(b)) for a, b in rows.T]))
    return each


def _known(clip: Source, at: Path | None, intervals: Intervals | None) -> Known:
    """Read what is known of a test clip; its masks stay in memory while it is read, 0.3 GB for the longest."""
    masks = None
    if at is not None:
        masks = [_upright(mask, clip, f"{at}, frame {number}") for number, mask in enumerate(cells(at, "volLabel"))]
    if intervals is None:
        intervals = Intervals.of(str(at), [bool(mask.any()) for mask in masks or ()])
    elif masks is not None:
        masks = [mask if position in intervals else np.zeros_like(mask) for position, mask in enumerate(masks)]
    return Known(numbered(intervals, clip), None, masks, at)


def _upright(mask: npt.NDArray[Any], clip: Source, where: str) -> npt.NDArray[Any]:
    """Return a mask (H, W); files that were saved anew have it turned."""
    if mask.shape == clip.size:
        return mask
    if mask.shape == clip.size[::-1]:
        return mask.T
    raise UserError(f"{where} has the shape {mask.shape}, but the frames of {clip.name} are {clip.size}; copy it again")
