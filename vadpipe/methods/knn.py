"""`knn`: distance of a frame's vector to its nearest training vectors (DN2).

Bergman, Cohen, Hoshen, "Deep Nearest Neighbor Anomaly Detection", 2020: nothing is trained, the gallery is
all training vectors, and the score is the sum of the squared L2 distances to the k = 2 nearest of them.

Where the feature set has a grid, each cell has a gallery of its own (the camera stands still, and what is
normal depends on the place), and a frame scores what its worst cell does.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from vadpipe.methods.base import Fit, Method, Section, training_clips
from vadpipe.nn.neighbours import Gallery
from vadpipe.params import Device
from vadpipe.store import FeatureClip, Store
from vadpipe.store.scores import Scores


class ScoreParams(Section):
    """Parameters of scoring."""

    k: int = Field(ge=1)
    device: Device


class Knn(Method[FeatureClip]):
    """Score = sum of the squared L2 distances to the k nearest training vectors; exact."""

    needs = "features"
    temporal = False
    Score = ScoreParams

    def fit(self, store: Store[FeatureClip], fit: Fit) -> None:
        """Gather the training vectors, (N, cells, D)."""
        self.vectors = np.concatenate([clip.cells(clip.vectors()) for clip in training_clips(self, store)])

    def save(self, folder: Path) -> None:
        """Save the training vectors."""
        save_file({"vectors": self.vectors}, folder / "gallery.safetensors")

    def load(self, folder: Path) -> None:
        """Load the training vectors."""
        self.vectors = load_file(folder / "gallery.safetensors")["vectors"]
        self.__dict__.pop("galleries", None)

    @cached_property
    def galleries(self) -> list[Gallery]:
        """A gallery a cell."""
        params = self.score_params
        return [Gallery(np.ascontiguousarray(cell), params.k, params.device) for cell in self.vectors.swapaxes(0, 1)]

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield one component, `distance`, in squared units of the features.

        Of a grid it is the largest over the cells, and the map `distance` (n, rows, columns) holds all.

        Raises:
            UserError: k is larger than the gallery.
        """
        for chunk in clip.chunks():
            cells = clip.cells(chunk).swapaxes(0, 1)
            pairs = zip(self.galleries, cells, strict=True)
            # A training frame is not its own neighbour: it would tell nothing of what is normal.
            own = clip.split == "train"
            values = np.stack([gallery.nearest(cell, own)[0].sum(1) for gallery, cell in pairs], 1)
            maps = {"distance": values.reshape(-1, *clip.grid)} if len(cells) > 1 else {}
            yield Scores({"distance": values.max(1)}, maps)
