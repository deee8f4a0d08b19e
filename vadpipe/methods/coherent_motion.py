"""`coherent_motion`: how fast a person-sized window moves as a whole, for its row of the image.

A baseline without a network: legs that swing cancel in the mean flow vector of a window, wheels do not.

The window is a centred Gaussian in rows, columns and frames. Each sigma is that of a uniform box, side /
sqrt(12), and the box is what a walker fills while taking a step:
- height and width: the medians over the moving components of all training frames (4-connected cells faster
  than `moving`). A merged group counts once, as one person does, so the medians stand while most components
  are single people; what touches the image border is cut off and left out, and so are specks of noise;
- duration: `step_s`. Legs change places every step, so the motion of the whole body repeats with each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from math import ceil, sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import Field
from scipy import ndimage

from vadpipe.errors import UserError
from vadpipe.methods.base import Fit, FitParams, Method, training_clips
from vadpipe.nn.cells import cell_means
from vadpipe.store import FlowClip, Store
from vadpipe.store.scores import Scores

# Sigmas at which the window is cut off; 99.7 % of a Gaussian lies within.
_TRUNCATE = 3.0
# Share of the window's weight that a person moves at least: a box of the window's own size holds 0.84 of it
# (0.917 on each side), a silhouette fills about 0.6 of its box, and half of it may be hidden.
_PERSON = 0.25
# Specks are many but cover little: half of the moving area lies in components of a typical size or larger,
# and what has less than this share of that size is a speck.
_SPECK = 0.1
# A cell of a component has 4 neighbours in its frame, none in time.
_IN_FRAME = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])[:, None, None]

Array = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float64]


class TrainParams(FitParams):
    """Parameters of training."""

    cell: int = Field(ge=1)  # side of a cell in pixels of the frame
    moving: float = Field(gt=0)  # a cell moves if its mean flow is longer, pixels a frame
    step_s: float = Field(gt=0)  # duration of a walker's step, seconds


class CoherentMotion(Method[FlowClip]):
    """Score = largest length of a window's mean flow vector / the length that training shows in its row.

    Attributes:
        box: height and width of the typical moving component, pixels.
        line: slope, level at row 0 and lower bound of the length in training (pixels a frame), rows in pixels.
    """

    needs = "flow"
    temporal = True
    Train = TrainParams

    def fit(self, store: Store[FlowClip], fit: Fit) -> None:
        """Measure the box, then the line.

        Raises:
            UserError: the training clips show no person-sized motion.
        """
        clips = training_clips(self, store)
        sides = [np.empty((0, 3))]
        for clip in clips:
            sides += [component_sides(cells[2] > 0) * [*self._pixels(clip), 1] for cells in self._cells(clip)]
        self.box = self._box(np.concatenate(sides))
        self.line = self._line(clips)

    def save(self, folder: Path) -> None:
        """Save box and line."""
        (folder / "coherent_motion.json").write_text(json.dumps({"box": self.box, "line": self.line}))

    def load(self, folder: Path) -> None:
        """Load box and line."""
        learned = json.loads((folder / "coherent_motion.json").read_text())
        self.box, self.line = learned["box"], learned["line"]

    def score(self, clip: FlowClip) -> Iterator[Scores]:
        """Yield one component and its map of cells, `coherence`: 1 = as training shows in that row."""
        slope, level, lowest = self.line
        for lengths, _ in self._windows(clip):
            expected = np.maximum(slope * self._rows(clip, lengths) + level, lowest).astype(np.float32)
            coherence = lengths / expected[:, None]
            yield Scores({"coherence": coherence.max((1, 2))}, {"coherence": coherence})

    def _box(self, sides: Reals) -> list[float]:
        """Return the median height and width of components without specks; (k, 3): height, width, area."""
        if not len(sides):
            raise self._nothing_moves()
        areas = np.sort(sides[:, 2])
        typical = areas[np.searchsorted(areas.cumsum(), areas.sum() / 2)]
        return list(map(float, np.median(sides[sides[:, 2] >= _SPECK * typical, :2], axis=0)))

    def _line(self, clips: list[FlowClip]) -> list[float]:
        """Fit a line to the largest length in each row of each frame, where the row shows a person.

        Every such maximum is a point of the fit, so a row weighs by how often something moves there. Where
        training shows nothing the line may fall to zero and below: it is kept above its lowest value among
        the rows that show a person, and above `moving`, below which no motion is seen.
        """
        rows, tops = [np.empty(0)], [np.empty(0)]
        for clip in clips:
            for lengths, shares in self._windows(clip):
                longest = np.where(shares >= _PERSON, lengths, -1).max(2)
                frame, row = np.nonzero(longest >= 0)
                rows.append(self._rows(clip, lengths)[row])
                tops.append(longest[frame, row])
        x, y = np.concatenate(rows), np.concatenate(tops)
        if not len(x):
            raise self._nothing_moves()
        slope, level = np.polyfit(x, y, 1) if np.ptp(x) > 0 else (0.0, y.mean())
        lowest = min(slope * x.min(), slope * x.max()) + level
        return [float(slope), float(level), max(float(lowest), self.train.moving)]

    def _nothing_moves(self) -> UserError:
        return UserError(
            "coherent_motion: nobody moves across the training clips; train on clips in which people walk, or"
            f" lower methods.coherent_motion.train.moving (now {self.train.moving} pixels a frame)"
        )

    def _windows(self, clip: FlowClip) -> Iterator[tuple[Array, Array]]:
        """Yield the lengths and shares of `mean_flow` for all frames in order, a few frames at a time."""
        box = [self.train.step_s * clip.info["fps"], *np.divide(self.box, self._pixels(clip))]
        sigmas = [side / sqrt(12) for side in box]
        halo = ceil(_TRUNCATE * sigmas[0])
        chunks = self._cells(clip)
        first = next(chunks)
        # Frames without flow have no weight, so they can stand in before and after the clip.
        nothing = np.full((3, halo, *first.shape[2:]), np.nan, np.float32)
        held = nothing
        for cells in chain([first], chunks, [nothing]):
            held = np.concatenate([held, cells], axis=1)
            if held.shape[1] > 2 * halo:
                lengths, shares = mean_flow(held, sigmas)
                yield lengths[halo:-halo], shares[halo:-halo]
                held = held[:, -2 * halo :]

    def _cells(self, clip: FlowClip) -> Iterator[Array]:
        """Yield float32 (3, n, h, w): x and y of the moving cells, and 1 where a cell moves, else 0."""
        for chunk in clip.chunks():
            x, y = (cell_means(chunk[..., i].astype(np.float32), *clip.cell(self.train.cell)) for i in (0, 1))
            moves = np.hypot(x, y) > self.train.moving
            yield np.stack([x * moves, y * moves, moves])

    def _pixels(self, clip: FlowClip) -> list[float]:
        """Return height and width of a cell in pixels of the frame."""
        cell = zip(clip.cell(self.train.cell), ("height", "width"), strict=True)
        return [points * clip.info[f"frame_{side}"] / clip.info[side] for points, side in cell]

    def _rows(self, clip: FlowClip, lengths: Array) -> Reals:
        """Return the centres of the rows of cells, in pixels of the frame."""
        return np.asarray((np.arange(lengths.shape[1]) + 0.5) * self._pixels(clip)[0])


def mean_flow(cells: Array, sigmas: list[float]) -> tuple[Array, Array]:
    """Average the flow of the moving cells in a Gaussian window, centred on every cell.

    A normalised convolution (Knutsson and Westin, CVPR 1993): still cells, frames without flow and what lies
    beyond the image have no weight. Where less than the share of a person moves, still cells make up the
    difference, so that a lone cell does not count as one.

    Args:
        cells: float32 (3, n, h, w): x and y of the moving cells, and 1 where a cell moves, else 0; a frame
            without flow has NaN in x and gives NaN.
        sigmas: of the window in frames, rows and columns of cells.

    Returns:
        The length of the mean vector and the share of the window's weight that moves, float32 (n, h, w).
    """
    seen = ~np.isnan(cells[0, :, :1, :1])
    inside = np.broadcast_to(seen, cells.shape[1:]).astype(np.float32)
    radius = [ceil(_TRUNCATE * sigma) for sigma in sigmas]
    x, y, moving, whole = (
        ndimage.gaussian_filter(np.where(seen, values, 0), sigmas, mode="constant", radius=radius)
        for values in (*cells, inside)
    )
    whole[~seen[:, 0, 0]] = np.nan
    return np.hypot(x, y) / np.maximum(moving, _PERSON * whole), moving / whole


def component_sides(moving: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return height, width, area (k, 3), in cells, of the components in bool (n, h, w) off the border."""
    labels, _ = ndimage.label(moving, _IN_FRAME)
    boxes = [[(side.start, side.stop) for side in box[1:]] for box in ndimage.find_objects(labels)]
    start, stop = np.moveaxis(np.array(boxes, np.int64).reshape(-1, 2, 2), 2, 0)
    areas = np.bincount(labels.ravel())[1:]
    whole = ((start > 0) & (stop < moving.shape[1:])).all(1)
    return np.column_stack([stop - start, areas])[whole]
