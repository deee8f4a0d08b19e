"""`feature_lstm`: an LSTM predicts the next frame's vector; the score is how far off the true one is.

Scotto, "Design and implementation of a visual anomaly detection system based on attention", master's thesis,
Pisa 2021: a frozen backbone gives one vector a frame, an LSTM learns to predict the next vector on normal
clips. Its slides leave open the window, the layers, the loss and the distance; ours stand in params.yaml.

Where the feature set has a grid, a cell takes the place of the frame: one LSTM, shared by all cells, predicts
each cell's next vector, and a frame scores what its worst cell does. An average over a whole frame drowns
what happens in a small part of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from vadpipe.errors import UserError
from vadpipe.methods.base import DeviceParams, EpochParams, Fit, Method, training_clips
from vadpipe.nn.device import choose_device
from vadpipe.nn.saved import known_of, load_weights, save_network
from vadpipe.store import FeatureClip, Store
from vadpipe.store.scores import Scores
from vadpipe.training.loop import Plan, seeded, train

Distance = Literal["l2", "cosine"]
# What the LSTM carries from frame to frame: its hidden and its cell values.
State = tuple[torch.Tensor, torch.Tensor]
# Vectors (B, window + 1, D), and which of the steps between them are there (B, window).
Batch = tuple[torch.Tensor, torch.Tensor]


class TrainParams(EpochParams):
    """Parameters of training."""

    predict: Literal["vector", "change"]
    hidden: int = Field(ge=1)
    layers: int = Field(ge=1)
    window: int = Field(ge=1)
    loss: Distance


class ScoreParams(DeviceParams):
    """Parameters of scoring."""

    distance: Distance


class Predictor(nn.Module):
    """Vectors up to frame t to a prediction of the vector of frame t + 1; both standardised.

    Attributes:
        mean: of the training vectors, (D,).
        scale: root mean square of their deviations from it, a scalar.
    """

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, dim: int, hidden: int, layers: int, predict: str) -> None:
        super().__init__()
        self.shape: dict[str, Any] = {"dim": dim, "hidden": hidden, "layers": layers, "predict": predict}
        self.lstm = nn.LSTM(dim, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, dim)
        if predict == "change":
            # Training starts at the prediction that nothing changes.
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, vectors: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """Return the predictions (B, L, D) of the vectors after `vectors` (B, L, D), and the state."""
        outputs, state = self.lstm(vectors, state)
        predictions = self.head(outputs)
        return predictions + vectors if self.shape["predict"] == "change" else predictions, state

    def standardise(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return (vectors - mean) / scale.

        One scale for all dimensions: a third of a ReLU network's dimensions are almost always 0, and divided
        by a deviation of their own, the first of them that fires would outshout all others.
        """
        return (vectors - self.mean) / self.scale


class FeatureLstm(Method[FeatureClip]):
    """Score = distance of a frame's standardised vector to an LSTM's prediction from the frames before it."""

    needs = "features"
    temporal = True
    Train = TrainParams
    Score = ScoreParams
    train: TrainParams

    def memory(self) -> int:
        """Return the bytes of the hidden weights, their gradient and the two moments of the optimizer."""
        return 4 * self.train.layers * 4 * self.train.hidden**2 * 4

    def fit(self, store: Store[FeatureClip], fit: Fit) -> None:
        """Train on all training vectors, held in memory.

        Raises:
            UserError: no training clip has two frames, or the training diverged.
        """
        params = self.train
        clips = training_clips(self, store)
        sequences = [cell for clip in clips for cell in _cells(torch.from_numpy(clip.vectors()), clip.grid)]
        if max(map(len, sequences)) < 2:
            raise UserError(f"{store.path}: feature_lstm needs a training clip of at least two frames")
        vectors = torch.cat(sequences)
        with seeded(fit.seed):
            self.network = Predictor(vectors.shape[1], params.hidden, params.layers, params.predict)
        self.network.mean.copy_(vectors.mean(0))
        self.network.scale.copy_((vectors - self.network.mean).square().mean().sqrt().clamp(min=1e-6))
        windows = Windows(self.network.standardise(vectors), [len(cell) for cell in sequences], params)
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs)
        plan = Plan(params.epochs, fit.seed, fit.checkpoints, params.device, params.precision)
        self.losses = train(self.network, optimizer, windows, self._loss, plan, schedule)

    def _loss(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        vectors, there = batch
        predictions, _ = network(vectors[:, :-1])
        if self.train.loss == "l2":
            # Squared: the gradient of the distance itself jumps where the prediction is right.
            errors = ((predictions - vectors[:, 1:]) ** 2).mean(-1)
        else:
            errors = distance("cosine", predictions, vectors[:, 1:])
        loss: torch.Tensor = (errors * there).sum() / there.sum()
        return loss

    def save(self, folder: Path) -> None:
        """Save the network, its shape and the mean loss of each epoch."""
        save_network(folder, self.network, **self.network.shape, losses=self.losses)

    def load(self, folder: Path) -> None:
        """Load the network."""
        shape = known_of(folder)
        self.losses = shape.pop("losses")
        self.network = Predictor(**shape)
        load_weights(folder, self.network)

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield one component, `distance`: L2 in standard deviations, or 1 - cosine; NaN for the first frame.

        Of a grid it is the largest over the cells, and the map `distance` (n, rows, columns) holds all.
        The LSTM's state is carried through the clip, so that memory does not grow with its length.
        """
        device = choose_device(self.score_params.device)
        self.network.to(device)
        rows, columns = clip.grid
        state: State | None = None
        prediction = torch.full((rows * columns, 1, self.network.shape["dim"]), torch.nan, device=device)
        for chunk in clip.chunks():
            with torch.inference_mode():
                vectors = self.network.standardise(_cells(torch.tensor(chunk, device=device), clip.grid))
                outputs, state = self.network(vectors, state)
                predictions = torch.cat([prediction, outputs], 1)
                prediction = predictions[:, -1:]
                distances = distance(self.score_params.distance, predictions[:, :-1], vectors)
                values = distances.T.float().cpu().numpy()
            maps = {"distance": values.reshape(-1, rows, columns)} if rows * columns > 1 else {}
            yield Scores({"distance": values.max(1)}, maps)


class Windows:
    """Every step from a frame to the next, once an epoch, in windows that start elsewhere each time.

    Args:
        vectors: standardised, (N, D), sequence after sequence.
        lengths: of the sequences, frames.
    """

    def __init__(self, vectors: torch.Tensor, lengths: list[int], params: TrainParams) -> None:
        self.vectors = vectors
        self.lengths = lengths
        self.params = params

    def __call__(self, epoch: int, generator: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of an epoch: vectors (B, window + 1, D) and a mask of the steps (B, window)."""
        windows = self._cut(generator)
        steps = np.arange(self.params.window + 1)
        for batch in np.split(windows, range(self.params.batch, len(windows), self.params.batch)):
            start, count = batch[:, :1], batch[:, 1:]
            # A window cut short by its clip repeats its last frame; the mask takes those steps out.
            rows = torch.from_numpy(start + np.minimum(steps, count))
            yield self.vectors[rows], torch.from_numpy(steps[:-1] < count)

    def _cut(self, generator: np.random.Generator) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
        """Return the windows in random order, (first frame, steps); none crosses the border of a clip."""
        windows, first = [], 0
        for length in self.lengths:
            cuts = np.arange(generator.integers(self.params.window), length - 1, self.params.window)
            edges = np.unique([0, *cuts, length - 1])
            windows += list(zip(first + edges[:-1], np.diff(edges), strict=True))
            first += length
        return generator.permutation(np.array(windows))


def distance(kind: Distance, predictions: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Return the L2 distances or 1 - cosine of vectors (..., D), shape (...)."""
    if kind == "l2":
        return (predictions - vectors).square().sum(-1).sqrt()
    return 1 - torch.cosine_similarity(predictions, vectors, dim=-1)


def _cells(vectors: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return vectors (n, cells x D), one cell behind the other, as one sequence a cell, (cells, n, D)."""
    return vectors.reshape(len(vectors), grid[0] * grid[1], -1).transpose(0, 1)
