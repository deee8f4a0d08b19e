"""Several components as one: a weighted sum, each part divided by its mean over the training clips.

As Eq. 6 of Ristea et al. (CVPR 2024), which says nothing of the scales of its parts. Maps are added up token by token,
a component without a map counts for all tokens of its frame alike; the sum is smoothed by a box over frames, rows and
columns, and the frame's score is its largest or its mean value. Nothing is trained or scored again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pandas as pd

from vadpipe.errors import UserError, did_you_mean
from vadpipe.evaluation.arrays import Floats
from vadpipe.evaluation.scored import Scored
from vadpipe.params import Evaluate
from vadpipe.store.scores import read_map, read_training_maps, read_training_scores, write_map, write_training_map

FUSED = "fused"

Maps = npt.NDArray[np.float32]


@contextmanager
def fused(run: str, settings: Evaluate, scored: Scored, scores: Path) -> Iterator[tuple[Scored, Path]]:
    """Give the scores with `fused` as their main component, and a folder with its maps, laid out as a score store.

    Without `weights` both are those that were given. The folder lasts as long as the context.

    Raises:
        UserError: a weight is of no component, the score store holds no scores of training clips, a component is 0
            there, or maps are of different sizes.
    """
    if not settings.weights:
        yield scored, scores
        return
    for name in settings.weights:
        if name not in scored.components:
            raise UserError(
                f"params.yaml: runs.{run}.evaluate.weights: there is no component '{name}'"
                f"{did_you_mean(name, scored.components)}; {scored.info.get('run', run)} has: "
                f"{', '.join(scored.components)}"
            )
    with TemporaryDirectory(prefix=f".{scores.name}.", suffix=".partial", dir=scores.parent) as place:
        folder = Path(place)
        if (scores / "pictures").is_dir():
            (folder / "pictures").symlink_to((scores / "pictures").resolve(), target_is_directory=True)
        training = read_training_scores(scores, run)
        parts = [
            _Fusion(run, settings, scored, scores, index, training[training["seed"] == seed])
            for index, seed in enumerate(scored.seeds)
        ]
        values = np.stack([part.write(folder) for part in parts])
        info = {**scored.info, "divided_by": {str(part.seed): part.means for part in parts}}
        yield replace(scored, components={FUSED: values, **scored.components}, info=info), folder


class _Fusion:
    """The components of one seed on their way into one.

    Attributes:
        seed: of the model.
        means: of each component over the training clips.
    """

    def __init__(
        self, run: str, settings: Evaluate, scored: Scored, scores: Path, index: int, training: pd.DataFrame
    ) -> None:
        self.run, self.settings, self.scored, self.scores, self.index = run, settings, scored, scores, index
        self.seed, self.training = scored.seeds[index], training
        self.maps = {name: read_training_maps(scores, self.seed, name) for name in settings.weights}
        self.means = {name: self._mean(name) for name in settings.weights}

    def _mean(self, name: str) -> float:
        maps = self.maps[name]
        if maps:
            sums = [(np.nansum(one, dtype=np.float64), int(np.isfinite(one).sum())) for one in maps.values()]
            total, count = np.sum(sums, axis=0).tolist()
            mean = total / count if count else np.nan
        else:
            mean = float(self.training[name].mean())
        if not np.isfinite(mean) or mean == 0:
            raise UserError(
                f"run {self.run}, seed {self.seed}: the mean of '{name}' over the training clips is {mean:g}, so that "
                "nothing can be divided by it; leave it out of evaluate.weights"
            )
        return float(mean)

    def write(self, folder: Path) -> Floats:
        """Write the maps of all clips into a folder and return the scores of the test frames, (N,)."""
        for clip, rows in self.training.groupby("clip"):
            parts = {name: rows[name].to_numpy(np.float32) for name in self.settings.weights}
            there = {name: maps.get(str(clip)) for name, maps in self.maps.items()}
            summed = self._sum(parts, there, str(clip))
            if any(one is not None for one in there.values()):
                write_training_map(folder, self.seed, str(clip), FUSED, summed)
        starts = np.concatenate([[0], np.cumsum(self.scored.lengths)])
        found = []
        for clip, start, end in zip(self.scored.names, starts[:-1], starts[1:], strict=True):
            scores = self.scored.components
            parts = {name: scores[name][self.index, start:end].astype(np.float32) for name in self.settings.weights}
            there = {name: self._map(clip, name) for name in self.settings.weights}
            summed = self._sum(parts, there, clip)
            if any(one is not None for one in there.values()):
                write_map(folder, self.seed, clip, FUSED, summed)
            flat = summed.reshape(len(summed), -1)
            covered = np.isfinite(flat).any(1)
            pool = np.nanmax if self.settings.pool == "max" else np.nanmean
            values = np.full(len(flat), np.nan)
            values[covered] = pool(flat[covered], axis=1)
            found.append(values)
        return np.concatenate(found)

    def _map(self, clip: str, name: str) -> npt.NDArray[np.float16] | None:
        try:
            return read_map(self.scores, self.seed, clip, name)
        except FileNotFoundError:
            return None

    def _sum(
        self, parts: dict[str, npt.NDArray[np.float32]], maps: dict[str, npt.NDArray[np.float16] | None], clip: str
    ) -> Maps:
        """Return the weighted sum of a clip, (T, h, w), smoothed; (T, 1, 1) where no component has a map."""
        sizes = {one.shape for one in maps.values() if one is not None}
        if len(sizes) > 1:
            raise UserError(
                f"run {self.run}: the maps of {', '.join(maps)} of the clip '{clip}' are of different sizes, "
                f"{sorted(sizes)}; leave one out of evaluate.weights"
            )
        summed: Maps = np.zeros(next(iter(sizes), (len(next(iter(parts.values()))), 1, 1)), np.float32)
        for name, weight in self.settings.weights.items():
            one = maps[name]
            values = parts[name][:, None, None] if one is None else one.astype(np.float32)
            summed += np.float32(weight / self.means[name]) * values
        return box_filter(summed, (self.settings.filter[0] if self.scored.ordered else 1, *self.settings.filter[1:]))


def box_filter(values: Maps, size: tuple[int, ...]) -> Maps:
    """Return means over boxes of `size` frames, rows and columns; beyond an edge its values go on.

    NaN stays NaN and leaves the means of its neighbours.
    """
    if all(side == 1 for side in size):
        return values
    from scipy.ndimage import uniform_filter  # takes a third of a second, and most runs filter nothing

    there = np.isfinite(values)
    if there.all():
        return np.asarray(uniform_filter(values, size, mode="nearest"), np.float32)
    known = uniform_filter(there.astype(np.float64), size, mode="nearest")
    sums = uniform_filter(np.where(there, values, 0).astype(np.float64), size, mode="nearest")
    return np.where(there, sums / np.where(there, known, 1), np.nan).astype(np.float32)
