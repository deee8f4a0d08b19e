"""Scores beside the labels of their frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from vadpipe.errors import UserError
from vadpipe.evaluation.arrays import Floats, Ints, Labels
from vadpipe.store import LabelClip
from vadpipe.store.scores import ScoreTable

UNKNOWN = -1


@dataclass(frozen=True)
class Scored:
    """The test frames of a run, clip after clip: C clips, N frames, S seeds.

    Attributes:
        names: C clip names, sorted.
        lengths: (C,) frames.
        fps: (C,) frames a second; NaN where the order of frames means nothing (folders of images).
        times: (N,) seconds from the beginning of the source; NaN where a frame has no place in time.
        labels: (N,), 1 abnormal, 0 normal, -1 unknown.
        seeds: S seeds, sorted.
        components: name -> (S, N), NaN = not covered; the method's main one first.
        info: what was recorded with the scores.
        unmasked: why masks of test clips are left out, a sentence each.
        category: of the data set's whose test frames they are; None where it has none.
    """

    names: list[str]
    lengths: Ints
    fps: Floats
    times: Floats
    labels: Labels
    seeds: list[int]
    components: dict[str, Floats]
    info: dict[str, Any]
    unmasked: list[str] = field(default_factory=list)
    category: str | None = None

    @property
    def main(self) -> str:
        """Return the name of the method's main component."""
        return next(iter(self.components))

    @property
    def ordered(self) -> bool:
        """Return whether the frames are those of videos; if not, the set is one of loose images."""
        return not np.isnan(self.fps).any()

    @property
    def unit(self) -> Ints:
        """Return what is resampled for intervals, an index a frame, (N,): clips of a video, else single images."""
        return self.clip if self.ordered else np.arange(len(self.labels))

    @property
    def clip(self) -> Ints:
        """Return the index of every frame's clip, (N,)."""
        return np.repeat(np.arange(len(self.names)), self.lengths)

    @property
    def frame(self) -> Ints:
        """Return every frame's number in its clip, (N,)."""
        return np.concatenate([np.arange(length) for length in self.lengths])


def align(run: str, table: ScoreTable, clips: Sequence[LabelClip], category: str | None = None) -> Scored:
    """Bring scores and test clips together, those of a category where the data set has some.

    Raises:
        UserError: there are no test clips or no scores, or clips or their lengths differ.
    """
    clips = sorted(clips, key=lambda clip: clip.name)
    if not clips or table.frames.empty:
        what = "scores" if clips else "test clips"
        raise UserError(f"run {run}: there are no {what}; add them and run `dvc repro`")
    frames = table.frames.sort_values(["seed", "clip", "frame"])
    seeds = [int(seed) for seed in frames["seed"].unique()]
    _check(run, frames, seeds, {clip.name: clip.length for clip in clips})
    return Scored(
        names=[clip.name for clip in clips],
        lengths=np.array([clip.length for clip in clips]),
        fps=np.array([clip.info["fps"] if clip.info["ordered"] else np.nan for clip in clips]),
        times=np.concatenate([np.array(clip.column("time"), np.float64) for clip in clips]),
        labels=np.concatenate([_labels(clip) for clip in clips]),
        seeds=seeds,
        components={name: frames[name].to_numpy(np.float64).reshape(len(seeds), -1) for name in table.components},
        info={key: value for key, value in table.info.items() if key not in {"kind", "components"}},
        unmasked=list(dict.fromkeys(clip.info["unmasked"] for clip in clips if "unmasked" in clip.info)),
        category=category,
    )


def _check(run: str, frames: pd.DataFrame, seeds: list[int], lengths: dict[str, int]) -> None:
    """Refuse scores that are not one a frame, clip and seed."""
    again = f"run `dvc repro score@{run}`"
    for clip in frames["clip"].unique():
        if clip not in lengths:
            raise UserError(f"run {run}: '{clip}' has scores but is no clip of the test set; {again}")
    counts = frames.groupby(["seed", "clip"]).size().to_dict()
    for seed in seeds:
        for clip, length in lengths.items():
            found = counts.get((seed, clip), 0)
            if found != length:
                problem = f"the clip '{clip}' has {length} frames but {found} scores"
                raise UserError(f"run {run}, seed {seed}: {problem}; {again}")
    expected = np.tile(np.concatenate([np.arange(length) for length in lengths.values()]), len(seeds))
    wrong = frames["frame"].to_numpy() != expected
    if wrong.any():
        row = frames.iloc[int(wrong.argmax())]
        problem = f"a frame of the clip '{row['clip']}' is scored twice, another one not"
        raise UserError(f"run {run}, seed {row['seed']}: {problem}; {again}")


def _labels(clip: LabelClip) -> Labels:
    labels = clip.labels()
    return np.full(clip.length, UNKNOWN, np.int8) if labels is None else labels
