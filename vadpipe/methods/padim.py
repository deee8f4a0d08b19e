"""`padim`: how far a place is from the Gaussian of normal features at that place.

Defard, Setkov, Loesch, Audigier, "PaDiM: a patch distribution modeling framework for anomaly detection and
localization", ICPR workshops 2021. Maps of several layers are joined at the size of the first, some of their channels
drawn by chance, and each place of the image has a mean and a covariance of its own, to whose diagonal 0.01 is added.
The map is the Mahalanobis distance, blurred; the image scores its highest value. It takes for granted that things lie
where they lay in training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import load_file, save_file

from vadpipe.errors import UserError
from vadpipe.methods.base import Fit, FitParams, Method, Section, training_clips
from vadpipe.nn.device import choose_device
from vadpipe.nn.maps import Maps, blurred, joined
from vadpipe.params import Device, Seeds
from vadpipe.store import FeatureClip, Store
from vadpipe.store.scores import Scores

# Places whose covariances are inverted at once.
_PLACES = 64


class TrainParams(FitParams):
    """Parameters of fitting."""

    seeds: Seeds
    clips: list[str]
    layers: list[int] = Field(min_length=1)
    dimensions: int = Field(ge=1)
    ridge: float = Field(gt=0)


class ScoreParams(Section):
    """Parameters of scoring."""

    sigma: float = Field(ge=0)
    device: Device


class Padim(Method[FeatureClip]):
    """Score = the largest Mahalanobis distance of a place of the image."""

    needs = "features"
    temporal = False
    features = "maps"
    Train = TrainParams
    Score = ScoreParams
    train: TrainParams

    def fit(self, store: Store[FeatureClip], fit: Fit) -> None:
        """Add up sums and products place by place, so that memory does not grow with the number of images.

        Raises:
            UserError: the features are no maps of these layers, or there is one training image.
        """
        clips = training_clips(self, store)
        first = next(clips[0].chunks())
        channels = sum(one.shape[-1] for one in clips[0].maps(first, self.train.layers))
        if self.train.dimensions > channels:
            raise UserError(
                f"padim: train.dimensions is {self.train.dimensions}, but layers {self.train.layers} have {channels} "
                "channels; lower it"
            )
        order = np.random.default_rng(fit.seed).permutation(channels)
        self.chosen = np.sort(order[: self.train.dimensions])
        # Moved to where the first images are, the products keep their digits.
        self.centre = self._cells(clips[0], first).mean(axis=0)
        sums = torch.zeros(*self.centre.shape)
        products = torch.zeros(*self.centre.shape, self.centre.shape[-1])
        count = 0
        for clip in clips:
            for chunk in clip.chunks():
                cells = self._cells(clip, chunk) - self.centre
                moved = torch.from_numpy(cells).transpose(0, 1)
                sums += moved.sum(1)
                products.baddbmm_(moved.transpose(1, 2), moved)
                count += len(cells)
        if count < 2:
            raise UserError("padim: one training image has no covariance; add training images")
        mean = sums / count
        whiten = torch.empty_like(products)
        ridge = self.train.ridge * torch.eye(self.centre.shape[-1], dtype=torch.float64)
        for start in range(0, len(mean), _PLACES):
            part = slice(start, start + _PLACES)
            outer = mean[part, :, None].double() * mean[part, None].double()
            covariance = (products[part].double() - count * outer) / (count - 1) + ridge
            lower = torch.linalg.cholesky(covariance)
            whiten[part] = torch.linalg.solve_triangular(lower, torch.eye(len(ridge)).double(), upper=False).float()
        self.centre = self.centre + mean.numpy()
        self.whiten = whiten.numpy()
        self.count = count

    def save(self, folder: Path) -> None:
        """Save the chosen channels, and of each place the mean and the inverse factor of the covariance."""
        arrays = {"chosen": self.chosen, "centre": self.centre, "whiten": self.whiten, "count": np.array(self.count)}
        save_file(arrays, folder / "model.safetensors")

    def load(self, folder: Path) -> None:
        """Load what `save` wrote."""
        found = load_file(folder / "model.safetensors")
        self.chosen, self.centre, self.whiten = (found[name] for name in ("chosen", "centre", "whiten"))
        self.count = int(found["count"])

    @property
    def record(self) -> dict[str, Any]:
        """Return the number of places and of channels."""
        return {"places": len(self.centre), "channels": len(self.chosen)}

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield the component `distance` and its map."""
        device = choose_device(self.score_params.device)
        whiten, centre = (torch.from_numpy(one).to(device) for one in (self.whiten, self.centre))
        for chunk in clip.chunks():
            height, width = clip.maps(chunk, self.train.layers)[0].shape[1:3]
            moved = torch.from_numpy(self._cells(clip, chunk)).to(device) - centre
            # (places, channels, channels) times (places, channels, n)
            squares: Maps = (whiten @ moved.permute(1, 2, 0)).square().sum(1).T.cpu().numpy()
            squares = self._without_itself(squares) if clip.split == "train" else squares
            roots: Maps = np.sqrt(squares).reshape(-1, height, width)
            found = blurred(roots, self.score_params.sigma, clip.info["computed"]["height"])
            yield Scores({"distance": found.max(axis=(1, 2))}, {"distance": found})

    def _without_itself(self, squares: Maps) -> Maps:
        """Return the squared distances of training images to the mean and covariance of all others.

        That is what a distance to all says of one of them, by the formula of Sherman and Morrison; the ridge is larger
        by one part in their number. In itself a training image tells too little of what is normal.
        """
        count = self.count
        if count < 3:
            return squares
        shrunk = squares * (count - 2) / (count - 1)
        rest = 1 - shrunk * count / ((count - 1) * (count - 2))
        found = (count / (count - 1)) ** 2 * shrunk / np.maximum(rest, 1e-6)
        return found.astype(np.float32)

    def _cells(self, clip: FeatureClip, chunk: Maps) -> Maps:
        """Return the chosen channels of all layers, (n, places, channels)."""
        layers = clip.maps(chunk, self.train.layers)
        starts = np.cumsum([0, *(one.shape[-1] for one in layers)])
        # Chosen before they are enlarged, of which three of four would be thrown away again.
        parts = np.split(self.chosen, np.searchsorted(self.chosen, starts[1:-1]))
        few = [np.take(one, part - start, axis=-1) for one, part, start in zip(layers, parts, starts, strict=False)]
        maps = joined([few[0], *(one for one in few[1:] if one.shape[-1])], nearest=True)
        return maps.reshape(len(maps), -1, maps.shape[-1])
