"""`brightness`: how far the mean grey of a frame is from that of the training frames.

A baseline that knows nothing about the scene: what it finds, any method should find.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vadpipe.methods.base import Fit, Method, training_clips
from vadpipe.store import Clip, Store
from vadpipe.store.scores import Scores


class Brightness(Method[Clip]):
    """Score = |mean grey of the frame - mean grey of all training frames|."""

    needs = "clips"
    temporal = False

    def fit(self, store: Store[Clip], fit: Fit) -> None:
        """Average the grey of the training frames."""
        means = [chunk.mean((1, 2)) for clip in training_clips(self, store) for chunk in clip.chunks(grey=True)]
        self.mean = float(np.concatenate(means).mean())

    def save(self, folder: Path) -> None:
        """Save the mean."""
        (folder / "brightness.json").write_text(json.dumps({"mean": self.mean}))

    def load(self, folder: Path) -> None:
        """Load the mean."""
        self.mean = json.loads((folder / "brightness.json").read_text())["mean"]

    def score(self, clip: Clip) -> Iterator[Scores]:
        """Yield one component, `brightness`, in grey levels."""
        for chunk in clip.chunks(grey=True):
            yield Scores({"brightness": np.abs(chunk.mean((1, 2)) - self.mean).astype(np.float32)})
