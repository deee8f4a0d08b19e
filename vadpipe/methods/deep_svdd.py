"""`deep_svdd`: how far an image's code lies from the centre of a sphere that training shrinks around normal images.

Ruff et al., "Deep one-class classification", ICML 2018, and the PyTorch code that its authors released: a small LeNet
for 32x32 pixels is pretrained as the encoder of an autoencoder; the mean code of the training images becomes a centre
that never moves, and the encoder then learns to bring their codes to it (Eq. 4, `one_class`), or those that lie outside
a sphere of a radius that lets a share of them out (Eq. 3, `soft_boundary`). A network that maps everything onto the
centre would have no loss, so it is given nothing to do that with: no biases, no trained shift behind the batch
normalisation, no activation with a bound, and a centre none of whose components lies so near 0 that zero weights would
reach it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.optim.lr_scheduler import MultiStepLR

from vadpipe.errors import UserError
from vadpipe.methods.base import DeviceParams, EpochParams, Fit, Method, training_clips
from vadpipe.nn.device import choose_device
from vadpipe.nn.saved import known_of, load_weights, parameters, save_network
from vadpipe.store import Clip, Store
from vadpipe.store.atomic import replacing
from vadpipe.store.scores import Scores
from vadpipe.training.group import leads
from vadpipe.training.loop import Curve, Plan, seeded, train
from vadpipe.training.samples import planes

Images = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
# Images (B, 3, S, S) in the range of training, and whether the radius is to follow them.
Batch = tuple[torch.Tensor, bool]
Loss = Callable[[nn.Module, Batch], dict[str, torch.Tensor]]

_KERNEL = 5
_AT_ONCE = 256  # images of training that are looked at
_WARM_UP = 10  # epochs before the radius follows the distances; until then it is 0
_CLOSEST = 0.1  # to 0, of a component of the centre
# Images that differ by less, in units of their mean contrast, are the same.
_SAME = 1e-5
# Codes that spread by less than this share of what they did before the training are one.
_COLLAPSED = 1e-5


class TrainParams(EpochParams):
    """Parameters of training."""

    clips: list[str] = Field(min_length=1)
    side: int = Field(ge=2, le=1024)
    channels: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    code: int = Field(ge=1)
    objective: Literal["one_class", "soft_boundary"]
    nu: float = Field(gt=0, le=1)
    pretrain_epochs: int = Field(ge=0)
    pretrain_milestone: int = Field(ge=1)
    milestone: int = Field(ge=1)
    batch: int = Field(ge=2)

    @model_validator(mode="after")
    def _whole_cells(self) -> TrainParams:
        halved = 1 << len(self.channels)
        if self.side % halved:
            raise ValueError(
                f"{len(self.channels)} layers halve the image as often, but a side of {self.side} is no multiple of "
                f"{halved}; change side, or the number of channels"
            )
        if self.pretrain_epochs and self.code % self.cells**2:
            raise ValueError(
                f"the autoencoder lays the code out on {self.cells}x{self.cells} cells, but {self.code} is no multiple "
                f"of {self.cells**2}; change code, or give pretrain_epochs: 0"
            )
        if self.objective == "soft_boundary" and self.epochs <= _WARM_UP:
            raise ValueError(
                f"a soft boundary has no radius within the first {_WARM_UP} epochs; give more, or objective: one_class"
            )
        return self

    @property
    def cells(self) -> int:
        """Return the side of the last layer's maps."""
        return self.side // (1 << len(self.channels))


class Phase(NamedTuple):
    """One of the two trainings: the folder of its state, its epochs, and how many of them are at the full rate."""

    name: str
    epochs: int
    milestone: int


class Encoder(nn.Module):
    """Images (B, 3, S, S) to codes (B, code): each layer halves the image; the last, linear, takes all of it."""

    def __init__(self, side: int, channels: Sequence[int], code: int) -> None:
        super().__init__()
        self.side, self.channels, self.code = side, list(channels), code
        self.cells = side // (1 << len(channels))
        layers: list[nn.Module] = []
        for before, after in pairwise([3, *channels]):
            convolution = nn.Conv2d(before, after, _KERNEL, padding=_KERNEL // 2, bias=False)
            layers += [convolution, _norm(after), nn.LeakyReLU(), nn.MaxPool2d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * self.cells**2, code, bias=False))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the codes."""
        codes: torch.Tensor = self.layers(images)
        return codes


class Autoencoder(nn.Module):
    """Images (B, 3, S, S) in 0..1 to reconstructions of the same shape; the decoder mirrors the encoder."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        widths = [encoder.code // encoder.cells**2, *reversed(encoder.channels)]
        layers: list[nn.Module] = [
            nn.BatchNorm1d(encoder.code, eps=1e-4, affine=False),
            nn.Unflatten(1, (widths[0], encoder.cells, encoder.cells)),
            nn.LeakyReLU(),
        ]
        for before, after in pairwise(widths):
            layers += [_grow(before, after), _norm(after), nn.LeakyReLU(), nn.Upsample(scale_factor=2)]
        self.decoder = nn.Sequential(*layers, _grow(widths[-1], 3), nn.Sigmoid())
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight, nn.init.calculate_gain("leaky_relu"))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the reconstructions."""
        reconstructions: torch.Tensor = self.decoder(self.encoder(images))
        return reconstructions


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-4, affine=False)


def _grow(before: int, after: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, after, _KERNEL, padding=_KERNEL // 2, bias=False)


class Sphere(nn.Module):
    """Images (B, 3, S, S) to the squared distances (B,) of their codes from a centre.

    Attributes:
        centre: (code,); it never moves.
        radius: (), 0 where the objective has none.
    """

    centre: torch.Tensor
    radius: torch.Tensor

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("centre", torch.zeros(encoder.code))
        self.register_buffer("radius", torch.zeros(()))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the squared distances."""
        distances: torch.Tensor = (self.encoder(images).float() - self.centre).square().sum(1)
        return distances


class DeepSvdd(Method[Clip]):
    """Score = squared distance of an image's code from the centre, less the square of the radius."""

    needs = "clips"
    temporal = False
    quick = False
    Train = TrainParams
    Score = DeviceParams
    train: TrainParams
    network: Sphere
    losses: Curve
    # The lowest and the highest value of the training images, of equal contrast.
    bounds: tuple[float, float]

    def memory(self) -> int:
        """Return the bytes of the encoder's weights, their gradient and the optimizer's two moments."""
        params = self.train
        weights = sum(_KERNEL**2 * before * after for before, after in pairwise([3, *params.channels]))
        return 4 * 4 * (weights + params.channels[-1] * params.cells**2 * params.code)

    def fit(self, store: Store[Clip], fit: Fit) -> None:
        """Train the autoencoder, then its encoder, on images held in memory; either goes on where it was interrupted.

        Raises:
            UserError: the training images are all the same, the training diverged, or the encoder collapsed.
        """
        params = self.train
        clips = training_clips(self, store)
        images = np.concatenate([resized(chunk, params.side) for clip in clips for chunk in clip.chunks()])
        self.bounds = _bounds(images)
        with seeded(fit.seed):
            self.network = Sphere(Encoder(params.side, params.channels, params.code))
            autoencoder = Autoencoder(self.network.encoder) if params.pretrain_epochs else None
        curve = [] if autoencoder is None else self._pretrain(autoencoder, images, fit)
        before = self._codes(images)
        self.network.centre.copy_(centre_of(before))
        phase = Phase("phase_2", params.epochs, params.milestone)
        self.losses = curve + self._train(self.network, images, self._loss, phase, fit)
        _name_collapse(before, self._codes(images), params.epochs)
        if leads():
            shutil.rmtree(fit.checkpoints, ignore_errors=True)

    def _pretrain(self, autoencoder: Autoencoder, images: Images, fit: Fit) -> Curve:
        done = fit.checkpoints / "autoencoder"
        if done.is_dir():
            load_weights(done, autoencoder)
            known: Curve = known_of(done)["losses"]
            return known
        phase = Phase("phase_1", self.train.pretrain_epochs, self.train.pretrain_milestone)
        curve = self._train(autoencoder, images, _reconstruction, phase, fit)
        if leads():
            with replacing(done, folder=True) as folder:
                save_network(folder, autoencoder, losses=curve)
        return curve

    def _train(self, network: nn.Module, images: Images, loss: Loss, phase: Phase, fit: Fit) -> Curve:
        params = self.train
        _place(network, params.device)
        optimizer = torch.optim.Adam(network.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay)

        def batches(epoch: int, generator: np.random.Generator) -> Iterator[Batch]:
            order = generator.permutation(len(images))
            for rows in np.split(order, range(params.batch, len(order), params.batch)):
                if len(rows) > 1:  # a batch of one image has no deviation to normalise by
                    yield self._shown(images[rows]), epoch >= _WARM_UP

        steps = -(-(len(images) - 1) // params.batch)
        folder = fit.checkpoints / phase.name
        plan = Plan(phase.epochs, fit.seed, folder, params.device, params.precision, steps=steps)
        return train(network, optimizer, batches, loss, plan, MultiStepLR(optimizer, [phase.milestone]))

    def _shown(self, images: Images) -> torch.Tensor:
        """Return images as the network sees them: of equal contrast, those of training from 0 to 1."""
        low, high = self.bounds
        return planes((equal_contrast(images) - low) / (high - low))

    def _codes(self, images: Images) -> torch.Tensor:
        """Return the codes of images, (n, code), on the CPU, with the statistics of training."""
        encoder = self.network.encoder.eval()
        device = _place(encoder, self.train.device)
        with torch.inference_mode():
            return torch.cat([encoder(self._shown(part).to(device)).cpu() for part in _some(images)])

    def _loss(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Eq. 4, or Eq. 3, after which the radius is that which leaves `nu` of the batch outside."""
        images, settled = batch
        distances = network(images)
        if self.train.objective == "one_class":
            return {"one_class": distances.mean()}
        radius = self.network.radius
        loss = radius.square() + (distances - radius.square()).clamp(min=0).mean() / self.train.nu
        if settled:  # in a training by several processes each goes by its share of the batch
            radius.copy_(distances.detach().sqrt().quantile(1 - self.train.nu))
        return {"soft_boundary": loss}

    def save(self, folder: Path) -> None:
        """Save the encoder with centre and radius, how images are brought to it, and the losses of each epoch."""
        encoder = self.network.encoder
        shape = {"side": encoder.side, "channels": encoder.channels, "code": encoder.code}
        save_network(folder, self.network, shape=shape, bounds=self.bounds, **self.record, losses=self.losses)

    def load(self, folder: Path) -> None:
        """Load what `save` wrote."""
        known = known_of(folder)
        self.bounds, self.losses = tuple(known["bounds"]), known["losses"]
        self.network = Sphere(Encoder(**known["shape"]))
        load_weights(folder, self.network)

    @property
    def record(self) -> dict[str, Any]:
        """Return the number of parameters."""
        return {"parameters": parameters(self.network)}

    def score(self, clip: Clip) -> Iterator[Scores]:
        """Yield one component, `distance`."""
        device = _place(self.network, self.score_params.device)
        for chunk in clip.chunks():
            images = self._shown(resized(chunk, self.network.encoder.side)).to(device)
            with torch.inference_mode():
                distances = self.network(images) - self.network.radius.square()
            yield Scores({"distance": distances.cpu().numpy()})


def _place(network: nn.Module, device: str) -> torch.device:
    """Bring a network to a device, in the order in which images come, and return the device."""
    there = choose_device(device)
    network.to(there).to(memory_format=torch.channels_last)
    return there


def _some(images: Images) -> Iterator[Images]:
    """Yield images some at a time."""
    return (images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE))


def resized(images: Images, side: int) -> Images:
    """Return images (n, H, W, 3) as (n, side, side, 3): a pixel is the mean of those it stands for, or between them."""
    if images.shape[1:3] == (side, side):
        return images
    shrinks = images.shape[1] * images.shape[2] > side**2
    way = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.stack([cv2.resize(image, (side, side), interpolation=way) for image in images]).astype(np.uint8)


def equal_contrast(images: Images) -> Floats:
    """Return images (n, S, S, 3), each less its mean and divided by its mean absolute value then; even ones are 0."""
    centred = images - images.mean((1, 2, 3), keepdims=True)
    contrast = np.abs(centred).mean((1, 2, 3), keepdims=True)
    equal: Floats = (centred / np.where(contrast > 0, contrast, 1)).astype(np.float32)
    return equal


def _bounds(images: Images) -> tuple[float, float]:
    """Return the lowest and the highest value of images of equal contrast.

    Raises:
        UserError: they are all the same.
    """
    ends = [(part.min(0), part.max(0)) for part in map(equal_contrast, _some(images))]
    low, high = np.min([low for low, _ in ends], 0), np.max([high for _, high in ends], 0)
    if (high - low).max() < _SAME:
        side = images.shape[1]
        raise UserError(
            f"deep_svdd: the training images are all the same at {side}x{side} pixels and equal contrast, so that "
            "nothing says how normal ones differ; add images, or give a larger train.side"
        )
    return float(low.min()), float(high.max())


def centre_of(codes: torch.Tensor) -> torch.Tensor:
    """Return the mean of codes (n, code), its components at least 0.1 from 0 but for those that are 0."""
    mean = codes.mean(0)
    return torch.where(mean.abs() < _CLOSEST, _CLOSEST * mean.sign(), mean)


def _reconstruction(network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """Squared errors, summed over an image."""
    images, _ = batch
    return {"reconstruction": (network(images).float() - images).square().sum((1, 2, 3)).mean()}


def _name_collapse(before: torch.Tensor, after: torch.Tensor, epochs: int) -> None:
    """Refuse an encoder that gives one code for all training images, by their codes (n, code).

    Raises:
        UserError: it does.
    """
    spreads = [
        float((codes.double() - codes.double().mean(0)).square().sum(1).mean().sqrt()) for codes in (before, after)
    ]
    if spreads[1] <= _COLLAPSED * spreads[0]:
        raise UserError(
            f"deep_svdd: the training collapsed within {epochs} epochs: all training images have the same code; lower "
            "train.learning_rate or train.epochs, or take another seed"
        )
