"""`knn`: distance of a frame's vector to its nearest training vectors (DN2).

Bergman, Cohen, Hoshen, "Deep Nearest Neighbor Anomaly Detection", 2020: nothing is trained, the gallery is
all training vectors, and the score is the sum of the squared L2 distances to the k = 2 nearest of them.

Where the feature set has a grid, each cell has a gallery of its own (the camera stands still, and what is
normal depends on the place), and a frame scores what its worst cell does.

`distance: cosine` compares vectors that were brought to length 1: what a network sees, without how strongly. On images
of the classes of CIFAR-10 that is worth 0.16 of AUROC with EfficientNet-Lite0 (docs/results.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from safetensors.numpy import load_file, save_file

from vadpipe.methods.base import Fit, Method, Section, training_clips
from vadpipe.nn.neighbours import Gallery
from vadpipe.params import Device
from vadpipe.store import FeatureClip, Store
from vadpipe.store.features import Vectors
from vadpipe.store.scores import Scores


class ScoreParams(Section):
    """Parameters of scoring."""

    k: int = Field(ge=1)
    distance: Literal["l2", "cosine"]
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
        cells = self._compared(self.vectors).swapaxes(0, 1)
        return [Gallery(np.ascontiguousarray(cell), params.k, params.device) for cell in cells]

    def _compared(self, vectors: Vectors) -> Vectors:
        if self.score_params.distance == "l2":
            return vectors
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        units: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
        return units

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield one component, `distance`, in squared units of the features, or twice a cosine distance each (0 to 4).

        Of a grid it is the largest over the cells, and the map `distance` (n, rows, columns) holds all.

        Raises:
            UserError: k is larger than the gallery.
        """
        for chunk in clip.chunks():
            cells = self._compared(clip.cells(chunk)).swapaxes(0, 1)
            pairs = zip(self.galleries, cells, strict=True)
            # A training frame is not its own neighbour: it would tell nothing of what is normal.
            own = clip.split == "train"
            values = np.stack([gallery.nearest(cell, own)[0].sum(1) for gallery, cell in pairs], 1)
            maps = {"distance": values.reshape(-1, *clip.grid)} if len(cells) > 1 else {}
            yield Scores({"distance": values.max(1)}, maps)
