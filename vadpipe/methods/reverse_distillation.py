"""`reverse_distillation`: where a student cannot unfold what a teacher saw from its essence.

Deng, Li, "Anomaly detection via reverse distillation from one-class embedding", CVPR 2022. The teacher is the frozen
backbone of the feature set; a bottleneck squeezes its maps into a code, from which a student makes them again, and both
are trained on normal images until the cosine between the teacher's and the student's maps is high. The map is the sum
over the layers of one minus the cosine, place by place, blurred; the image scores its highest value.

The loss of the released code takes the cosine of a whole map at once (`image`); the paper's formula, a mean over its
places (`place`), is known to do worse (issue 22 of its repository).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from vadpipe.errors import UserError
from vadpipe.methods.base import DeviceParams, EpochParams, Fit, Method, training_clips
from vadpipe.nn.device import choose_device
from vadpipe.nn.maps import Maps, blurred
from vadpipe.nn.reverse import Kind, ReverseStudent, fold_norms
from vadpipe.nn.saved import known_of, load_weights, parameters, save_network
from vadpipe.store import FeatureClip, Store
from vadpipe.store.base import regroup
from vadpipe.store.scores import Scores
from vadpipe.training.loop import Plan, seeded, train

# Images that are scored at once.
_IMAGES = 8

# Maps (n, channels, h, w) of each layer.
Pyramid = list[torch.Tensor]


class TrainParams(EpochParams):
    """Parameters of training."""

    clips: list[str]
    layers: list[int] = Field(min_length=2)
    block: Kind
    width: float = Field(gt=0, le=8)
    depths: list[int] = Field(min_length=2)
    depth: int = Field(ge=1)
    loss: Literal["image", "place"]
    betas: list[float] = Field(min_length=2, max_length=2)


class ScoreParams(DeviceParams):
    """Parameters of scoring."""

    sigma: float = Field(ge=0)


class ReverseDistillation(Method[FeatureClip]):
    """Score = the largest sum, over layers, of one minus the cosine of teacher and student."""

    needs = "features"
    temporal = False
    features = "maps"
    quick = False
    Train = TrainParams
    Score = ScoreParams
    train: TrainParams
    score_params: ScoreParams

    def fit(self, store: Store[FeatureClip], fit: Fit) -> None:
        """Train on the maps of all training images, held in memory as they are stored, 16 bits a number.

        Raises:
            UserError: the features are no maps of these layers, a map is not half of the one before, or the training
                diverged.
        """
        params = self.train
        clips = training_clips(self, store)
        chunks = [clip.maps(chunk, params.layers) for clip in clips for chunk in _halves(clip)]
        layers = [np.concatenate(layer) for layer in zip(*chunks, strict=True)]
        self.shape: dict[str, Any] = {
            "channels": [layer.shape[-1] for layer in layers],
            **{"kind": params.block, "width": params.width, "depths": params.depths, "depth": params.depth},
        }
        _check(params, [layer.shape[1:3] for layer in layers])
        with seeded(fit.seed):
            self.network = ReverseStudent(**self.shape)
        optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=params.learning_rate,
            betas=(params.betas[0], params.betas[1]),
            weight_decay=params.weight_decay,
        )

        def batches(epoch: int, generator: np.random.Generator) -> Iterator[Pyramid]:
            order = generator.permutation(len(layers[0]))
            for start in range(0, len(order), params.batch):
                rows = order[start : start + params.batch]
                yield _planes([layer[rows] for layer in layers])

        steps = -(-len(layers[0]) // params.batch)
        plan = Plan(params.epochs, fit.seed, fit.checkpoints, params.device, params.precision, steps=steps)
        self.losses = train(self.network, optimizer, batches, self._loss, plan)

    def _loss(self, network: nn.Module, teacher: Pyramid) -> torch.Tensor:
        """Return the sum over layers of one minus the cosine, mean over images, and with `place` over places."""
        pairs = list(zip(teacher, network(teacher), strict=True))
        if self.train.loss == "image":
            pairs = [(one.flatten(1), other.flatten(1)) for one, other in pairs]
        cosines = [functional.cosine_similarity(one, other.float(), dim=1).mean() for one, other in pairs]
        return torch.stack([1 - cosine for cosine in cosines]).sum()

    def save(self, folder: Path) -> None:
        """Save bottleneck and student, their shape and the mean loss of each epoch."""
        save_network(folder, self.network, shape=self.shape, losses=self.losses)

    def load(self, folder: Path) -> None:
        """Load bottleneck and student."""
        known = known_of(folder)
        self.shape, self.losses = known["shape"], known["losses"]
        self.network = ReverseStudent(**self.shape)
        load_weights(folder, self.network)
        self.parts = {name: parameters(part) for name, part in self.network.named_children()}
        # From here on it only scores.
        fold_norms(self.network)

    @property
    def record(self) -> dict[str, Any]:
        """Return the numbers of parameters."""
        return {"parameters": sum(self.parts.values()), **self.parts}

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield the component `difference` and its map."""
        device = choose_device(self.score_params.device)
        self.network.to(device).to(memory_format=torch.channels_last)
        # However many images a row group of the store holds.
        for images in regroup(clip.chunks(), _IMAGES):
            teacher = clip.maps(images, self.train.layers)
            with torch.inference_mode():
                found = self._differences([one.to(device) for one in _planes(teacher)])
            found = blurred(found, self.score_params.sigma, clip.info["computed"]["height"])
            yield Scores({"difference": found.max(axis=(1, 2))}, {"difference": found})

    def _differences(self, teacher: Pyramid) -> Maps:
        """Return the sum of the maps of all layers, (n, h, w), at the size of the first."""
        size = teacher[0].shape[-2:]
        summed = torch.zeros(len(teacher[0]), 1, *size, device=teacher[0].device)
        for one, other in zip(teacher, self.network(teacher), strict=True):
            apart = 1 - functional.cosine_similarity(one, other, dim=1)[:, None]
            summed += functional.interpolate(apart, size=size, mode="bilinear", align_corners=True)
        found: Maps = summed[:, 0].cpu().numpy()
        return found


def _halves(clip: FeatureClip) -> Iterator[npt.NDArray[Any]]:
    """Yield the vectors of a clip as they are stored."""
    return (chunk.astype(np.float16) for chunk in clip.chunks())


def _planes(layers: Sequence[npt.NDArray[Any]]) -> Pyramid:
    """Return maps (n, h, w, channels) as (n, channels, h, w), float32."""
    return [torch.from_numpy(np.asarray(layer, np.float32)).permute(0, 3, 1, 2) for layer in layers]


def _check(params: TrainParams, sizes: Sequence[tuple[int, ...]]) -> None:
    if len(params.depths) != len(params.layers):
        raise UserError(
            f"params.yaml: reverse_distillation.train.depths has {len(params.depths)} numbers of blocks for "
            f"{len(params.layers)} layers; give one a layer"
        )
    halves = all((2 * b[0], 2 * b[1]) == tuple(a) for a, b in pairwise(sizes))
    if not halves or any(side % 2 for side in sizes[-1]):
        told = ", ".join(f"{height}x{width}" for height, width in sizes)
        raise UserError(
            f"reverse_distillation: the maps of layers {params.layers} are {told}; each must be half of the one "
            "before, which a ViT has none of, and the last of even sides: choose a backbone that halves from layer to "
            "layer, and height and width of the features that are multiples of 32"
        )
