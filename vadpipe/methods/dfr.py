"""`dfr`: deep feature reconstruction, an autoencoder of a pretrained network's features, cell by cell.

Yang, Shi, Qi, "DFR: Deep Feature Reconstruction for Unsupervised Anomaly Segmentation", 2020: maps of several
depths of a frozen network are brought to one grid; 1x1 convolutions, that is one small network for every cell,
compress a cell's vector and restore it; the score is what is lost. The width of the code is the number of
principal components that explain 90 % of the variance.

Ours differs: the features come from the feature set (any timm network, VGG19 there), every channel is divided by
its deviation on training cells (layers of different size would not count alike), and principal components are those of
all training cells, not of ten images.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn

from vadpipe.errors import UserError
from vadpipe.methods.base import DeviceParams, EpochParams, Fit, Method, training_clips
from vadpipe.nn.cells import hottest
from vadpipe.nn.device import choose_device
from vadpipe.nn.saved import known_of, load_weights, parameters, save_network
from vadpipe.store import FeatureClip, Store
from vadpipe.store.scores import Scores
from vadpipe.training.loop import Plan, seeded, train

# A cell counts where more than this share of it lies inside the region.
_INSIDE = 0.5
# A channel that hardly varies on training cells must not shout when it does: the floor of its deviation, as a
# share of the root mean square deviation of all channels.
_FLOOR = 0.1


class TrainParams(EpochParams):
    """Parameters of training."""

    clips: list[str] = Field(min_length=1)
    variance: float = Field(gt=0, le=1)
    batch: int = Field(ge=2)


class CellAutoencoder(nn.Module):
    """Vectors of cells (B, D) to their reconstruction, through a code of `code` numbers.

    Attributes:
        mean: of the training cells, (D,).
        scale: their deviation, (D,).
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, dim: int, code: int) -> None:
        super().__init__()
        widths = [dim, (dim + 2 * code) // 2, 2 * code]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
        layers.append(nn.Linear(2 * code, code))
        widths = [code, *reversed(widths)]
        for before, after in pairwise(widths[:-1]):
            layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
        layers.append(nn.Linear(widths[-2], dim))
        self.layers = nn.Sequential(*layers)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def forward(self, cells: torch.Tensor) -> torch.Tensor:
        """Return the squared errors (B,), mean over the dimensions, of cells (B, D)."""
        standard = (cells - self.mean) / self.scale
        errors: torch.Tensor = (self.layers(standard) - standard).square().mean(-1)
        return errors


class Dfr(Method[FeatureClip]):
    """Score = error of an autoencoder of pretrained features, cell by cell."""

    needs = "features"
    temporal = False
    features = "cells"
    Train = TrainParams
    Score = DeviceParams
    train: TrainParams

    def fit(self, store: Store[FeatureClip], fit: Fit) -> None:
        """Train on the cells of all training frames, held in memory.

        Raises:
            UserError: no cell lies inside the region, or the training diverged.
        """
        params = self.train
        cells = torch.from_numpy(np.concatenate([_inside(clip) for clip in training_clips(self, store)]))
        if len(cells) < 2:
            raise UserError(f"{store.path}: dfr finds no two cells inside the region of its training frames")
        mean, deviation = cells.mean(0), cells.std(0)
        scale = deviation.clamp(min=_FLOOR * float(deviation.square().mean().sqrt()) + 1e-6)
        self.shape = {"dim": cells.shape[1], "code": code_width((cells - mean) / scale, params.variance)}
        with seeded(fit.seed):
            self.network = CellAutoencoder(**self.shape)
        self.network.mean.copy_(mean)
        self.network.scale.copy_(scale)
        optimizer = torch.optim.Adam(
            self.network.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
        )

        def batches(epoch: int, generator: np.random.Generator) -> Iterator[torch.Tensor]:
            order = generator.permutation(len(cells))
            # A batch of one cell has no deviation to normalise by.
            parts = np.split(order, range(params.batch, len(order), params.batch))
            yield from (cells[rows] for rows in parts if len(rows) > 1)

        plan = Plan(params.epochs, fit.seed, fit.checkpoints, params.device, params.precision)
        self.losses = train(self.network, optimizer, batches, lambda network, batch: network(batch).mean(), plan)

    def save(self, folder: Path) -> None:
        """Save the network, its shape and the mean loss of each epoch."""
        save_network(folder, self.network, shape=self.shape, **self.record, losses=self.losses)

    def load(self, folder: Path) -> None:
        """Load the network."""
        known = known_of(folder)
        self.shape, self.losses = known["shape"], known["losses"]
        self.network = CellAutoencoder(**self.shape)
        load_weights(folder, self.network)

    @property
    def record(self) -> dict[str, Any]:
        """Return the number of parameters and the width of the code."""
        return {"parameters": parameters(self.network), "code": self.shape["code"]}

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield the component `error`, the mean of the worst hundredth of the cells, and the map, NaN outside."""
        device = choose_device(self.score_params.device)
        self.network.to(device)
        for chunk, region in zip(clip.chunks(), clip.regions(), strict=True):
            cells = torch.tensor(clip.cells(chunk), device=device)
            with torch.inference_mode():
                values = self.network(cells.flatten(0, 1)).float().cpu().numpy().reshape(region.shape)
            values[region <= _INSIDE] = np.nan
            yield Scores(
                {"error": np.array([hottest(one) for one in values], np.float32)},
                {"error": values.reshape(-1, *clip.grid)},
            )


def _inside(clip: FeatureClip) -> npt.NDArray[np.float32]:
    """Return the cells of a clip that lie inside the region, (N, D)."""
    return np.concatenate(
        [clip.cells(chunk)[region > _INSIDE] for chunk, region in zip(clip.chunks(), clip.regions(), strict=True)]
    )


def code_width(cells: torch.Tensor, variance: float) -> int:
    """Return the number of principal components that explain this share of the variance of cells (N, D)."""
    covariance = torch.cov(cells.T.double()).reshape(cells.shape[1], -1)
    values = torch.linalg.eigvalsh(covariance).flip(0).clamp(min=0)
    explained = values.cumsum(0) / values.sum().clamp(min=1e-12)
    return int((explained < variance).sum()) + 1
