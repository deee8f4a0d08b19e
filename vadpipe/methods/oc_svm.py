"""`oc_svm`: on which side of a surface around the training vectors a frame's vector lies.

Schölkopf, Platt, Shawe-Taylor, Smola, Williamson, "Estimating the support of a high-dimensional distribution", Neural
Computation 2001: a one-class support vector machine with a Gaussian kernel, a baseline of the one-class papers. Vectors
are standardised by training, and reduced to the components that hold 95 % of their variance, as Ruff et al. (ICML 2018)
have it for pixels. They chose the kernel's width on a tenth of the test set; here it comes from the training vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors.numpy import load_file, save_file
from sklearn.svm import OneClassSVM

from vadpipe.errors import UserError
from vadpipe.methods.base import Fit, FitParams, Method, training_clips
from vadpipe.params import Seeds
from vadpipe.store import FeatureClip, Store
from vadpipe.store.features import Vectors
from vadpipe.store.scores import Scores

Floats = npt.NDArray[np.float64]


class TrainParams(FitParams):
    """Parameters of training."""

    seeds: Seeds
    clips: list[str]
    nu: float = Field(gt=0, le=1)
    variance: float = Field(gt=0, le=1)
    most: int = Field(ge=2)


class OcSvm(Method[FeatureClip]):
    """Score = distance to the far side of the surface, in units of the kernel."""

    needs = "features"
    temporal = False
    Train = TrainParams
    train: TrainParams

    def fit(self, store: Store[FeatureClip], fit: Fit) -> None:
        """Train on all vectors, or on `most` of them, drawn by chance: the time grows with their square.

        Raises:
            UserError: there is one training vector.
        """
        params = self.train
        vectors = np.concatenate([clip.vectors() for clip in training_clips(self, store)]).astype(np.float64)
        if len(vectors) < 2:
            raise UserError("oc_svm: one training vector has no support; add training frames")
        if len(vectors) > params.most:
            chosen = np.random.default_rng(fit.seed).choice(len(vectors), params.most, replace=False)
            vectors = vectors[np.sort(chosen)]
        self.mean = vectors.mean(axis=0)
        scale = vectors.std(axis=0)
        # What never changes in training has no scale, and would decide alone.
        varies = scale > 1e-6 * max(float(scale.max()), 1e-12)
        standard = np.where(varies, (vectors - self.mean) / np.where(varies, scale, 1), 0)
        _, lengths, axes = np.linalg.svd(standard, full_matrices=False)
        shares = np.cumsum(lengths**2) / max(float((lengths**2).sum()), 1e-300)
        kept = axes[: int((shares < params.variance).sum()) + 1]
        self.axes = kept.T * np.where(varies, 1 / np.where(varies, scale, 1), 0)[:, None]
        reduced = (vectors - self.mean) @ self.axes
        self.gamma = 1 / (reduced.shape[1] * max(float(reduced.var()), 1e-12))
        machine = OneClassSVM(kernel="rbf", nu=params.nu, gamma=self.gamma).fit(reduced)
        self.support: Floats = machine.support_vectors_
        self.weights: Floats = machine.dual_coef_[0]
        self.offset = float(machine.intercept_[0])

    def save(self, folder: Path) -> None:
        """Save the support vectors, their weights, and how vectors are brought to them."""
        numbers = np.array([self.gamma, self.offset])
        names = {"mean": self.mean, "axes": self.axes, "support": self.support, "weights": self.weights}
        arrays = {name: np.ascontiguousarray(values) for name, values in names.items()}
        save_file({**arrays, "numbers": numbers}, folder / "machine.safetensors")

    def load(self, folder: Path) -> None:
        """Load what `save` wrote."""
        found = load_file(folder / "machine.safetensors")
        self.mean, self.axes, self.support, self.weights = (
            found[name] for name in ("mean", "axes", "support", "weights")
        )
        self.gamma, self.offset = found["numbers"].tolist()

    @property
    def record(self) -> dict[str, Any]:
        """Return the numbers of support vectors and of components."""
        return {"support": len(self.support), "components": self.axes.shape[1]}

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield one component, `outside`: minus the decision function."""
        for chunk in clip.chunks():
            yield Scores({"outside": self._outside(chunk)})

    def _outside(self, vectors: Vectors) -> Vectors:
        reduced = (vectors.astype(np.float64) - self.mean) @ self.axes
        squares = (reduced**2).sum(1)[:, None] - 2 * reduced @ self.support.T + (self.support**2).sum(1)
        kernel = np.exp(-self.gamma * np.maximum(squares, 0))
        return np.asarray(-(kernel @ self.weights + self.offset), np.float32)
