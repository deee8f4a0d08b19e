"""`pasted`: a network learns to find foreign pieces pasted onto normal images; the score is how foreign a place is.

A method of our own for one-class images. An autoencoder answers "can I reproduce this?", and sharp ropes and glitter
are harder to reproduce than a swimmer. This network answers "does this belong?": it has seen all of the normal
images as normal, edges and highlights too, and bodies of any shape and colour as foreign (`training/pasting.py`).
Nothing abnormal is ever shown to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from vadpipe.methods.base import DeviceParams, EpochParams, Fit, Method, training_clips
from vadpipe.nn.cells import hottest
from vadpipe.nn.device import choose_device
from vadpipe.nn.saved import known_of, load_weights, parameters, save_network
from vadpipe.parallel import ordered_map
from vadpipe.params import Shares
from vadpipe.store import PreparedClip, Store
from vadpipe.store.base import parts
from vadpipe.store.scores import Scores
from vadpipe.training.augment import Sample, varied, window
from vadpipe.training.loop import Plan, seeded, train
from vadpipe.training.pasting import pasted
from vadpipe.training.samples import planes, samples, training_samples

# Images, what is foreign and what counts, (B, 3, H, W) and twice (B, 1, h, w).
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]

_CELL = 2  # pixels of the network's input a side of a value of its map
_IMAGES = 8  # at once, when scoring
_FOREIGN = 3.0  # weight of a foreign pixel, which is rare


class TrainParams(EpochParams):
    """Parameters of training."""

    clips: list[str] = Field(min_length=1)
    scale: float = Field(gt=0, le=1)
    window: float = Field(gt=0, le=1)
    size: Shares
    images: int = Field(ge=1)
    batch: int = Field(ge=2)


class Finder(nn.Module):
    """Images (B, 3, H, W) to how foreign each place is, logits (B, 1, ceil(H / 2), ceil(W / 2)); a small U-Net.

    Ronneberger et al., MICCAI 2015; strides instead of pooling, and hardly anything at full size, where most time
    would go.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (16, 32, 48, 64, 64)
        self.first = nn.Sequential(_block(3, 12, 3, 1), _block(12, widths[0], 3, 2))
        self.down = nn.ModuleList(
            nn.Sequential(_block(before, after, 3, 2), _block(after, after, 3, 1)) for before, after in pairwise(widths)
        )
        self.up = nn.ModuleList(_block(below + beside, beside, 3, 1) for beside, below in pairwise(widths))
        self.last = nn.Conv2d(widths[0], 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        levels = [self.first(images * 2 - 1)]
        for down in self.down:
            levels.append(down(levels[-1]))
        below = levels.pop()
        for up, beside in zip(reversed(self.up), reversed(levels), strict=True):
            below = up(torch.cat([functional.interpolate(below, size=beside.shape[-2:]), beside], 1))
        result: torch.Tensor = self.last(below)
        return result


def _block(before: int, after: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


class PastedFinder(Method[PreparedClip]):
    """Score = how foreign a place looks to a network that learned to find foreign pieces in normal images."""

    needs = "pools"
    temporal = False
    Train = TrainParams
    Score = DeviceParams
    train: TrainParams

    def fit(self, store: Store[PreparedClip], fit: Fit) -> None:
        """Train on the normal images, held in memory, with other pieces in every epoch.

        Raises:
            UserError: the images have several sizes, or the training diverged.
        """
        params = self.train
        normal = training_samples(training_clips(self, store), params.scale)
        with seeded(fit.seed):
            self.network = Finder()
        self.network.to(choose_device(params.device)).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.epochs)

        def batches(epoch: int, generator: np.random.Generator) -> Iterator[Batch]:
            return _batches(normal, params, generator)

        plan = Plan(params.epochs, fit.seed, fit.checkpoints, params.device, params.precision)
        self.losses = train(self.network, optimizer, batches, _loss, plan, schedule)

    def save(self, folder: Path) -> None:
        """Save the network and the mean loss of each epoch."""
        save_network(folder, self.network, **self.record, losses=self.losses)

    def load(self, folder: Path) -> None:
        """Load the network."""
        self.losses = known_of(folder)["losses"]
        self.network = Finder()
        load_weights(folder, self.network)

    @property
    def record(self) -> dict[str, Any]:
        """Return the number of parameters."""
        return {"parameters": parameters(self.network)}

    def score(self, clip: PreparedClip) -> Iterator[Scores]:
        """Yield the component `foreign`, the mean of the highest hundredth of the map, and the map, logits.

        The map is NaN outside the region and where the image is made up.
        """
        device = choose_device(self.score_params.device)
        self.network.to(device).to(memory_format=torch.channels_last)
        for part in parts(samples(clip, self.train.scale), _IMAGES):
            images = planes(np.stack([sample.image for sample in part]).astype(np.float32) / np.float32(255))
            with torch.inference_mode():
                logits = self.network(images.to(device))[:, 0].float().cpu().numpy()
            inside = _cells(np.stack([sample.region & ~sample.filled for sample in part])).numpy()[:, 0] == 1
            logits[~inside] = np.nan
            yield Scores({"foreign": np.array([hottest(one) for one in logits], np.float32)}, {"foreign": logits})


def _batches(normal: list[Sample], params: TrainParams, generator: np.random.Generator) -> Iterator[Batch]:
    """Yield batches of variants of windows of the normal images, every image as often, with foreign pieces."""
    rounds = [generator.permutation(len(normal)) for _ in range(-(-params.images // len(normal)))]
    order = np.concatenate(rounds)[: params.images]
    seeds = generator.integers(2**63, size=len(order))
    low, high = (share / params.window for share in params.size)
    others = [window(sample, params.window, generator) for sample in normal]

    def make(item: tuple[int, int]) -> tuple[Any, Any, Any]:
        chance = np.random.default_rng(item[1])
        shown = varied(window(normal[item[0]], params.window, chance), chance, upright=True)
        found = pasted(shown, others, (low, high), chance)
        return found.image, found.foreign, found.counts

    for part in parts(ordered_map(make, zip(order.tolist(), seeds.tolist(), strict=True)), params.batch):
        if len(part) > 1:  # a batch of one image has little to normalise by
            images, foreign, counts = (np.stack(values) for values in zip(*part, strict=True))
            yield planes(images.astype(np.float32) / np.float32(255)), _cells(foreign, any_of=True), _cells(counts)


def _cells(masks: np.ndarray[Any, np.dtype[np.bool_]], any_of: bool = False) -> torch.Tensor:
    """Bring masks (n, H, W) to the size of the map, (n, 1, h, w): 1 where all pixels of a cell are set, or any."""
    values = planes(masks[..., None])
    if any_of:
        return functional.max_pool2d(values, _CELL, ceil_mode=True)
    return 1 - functional.max_pool2d(1 - values, _CELL, ceil_mode=True)


def _loss(network: nn.Module, batch: Batch) -> torch.Tensor:
    """Binary cross-entropy over the cells that count."""
    images, foreign, counts = batch
    weight = torch.tensor(_FOREIGN, device=images.device)
    losses = functional.binary_cross_entropy_with_logits(
        network(images).float(), foreign, reduction="none", pos_weight=weight
    )
    counts = torch.maximum(counts, foreign)
    return (losses * counts).sum() / counts.sum().clamp(min=1)
