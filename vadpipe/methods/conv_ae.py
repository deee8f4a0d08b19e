"""`conv_ae`: a convolutional autoencoder that learns the empty pool; the score is what it cannot reproduce.

Carlucci, "Convolutional Autoencoder for Anomaly Detection", project report, IST 2021: trained on images from which
swimmers were inpainted, with the mean squared error inside the pool, at a fifth of the images' size. The report
tells the kernels, {3, 5, 9} and {3, 5, 7, 9}, and that channels grow; channels and strides are ours. Each layer
halves the image, so that the code of {3, 5, 9} with channels 8, 16, 32 holds 1/6 of the input's numbers and that of
{3, 5, 7, 9} with 8, 16, 32, 64 1/12 of them: the report asks for a compressive bottleneck, and a further layer
that doubles the channels halves the code. Kernels grow inwards where a pixel stands for 8 or 16 of the input, so
that the code sees 65 (171) pixels of it, as much as a swimmer near the camera covers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from vadpipe.errors import UserError
from vadpipe.methods.base import DeviceParams, EpochParams, Fit, Method, training_clips
from vadpipe.nn.cells import hottest
from vadpipe.nn.device import choose_device
from vadpipe.nn.saved import known_of, load_weights, parameters, save_network
from vadpipe.store import PreparedClip, Store
from vadpipe.store.base import parts
from vadpipe.store.scores import Scores
from vadpipe.training.augment import Sample, augmented
from vadpipe.training.loop import Curve, Plan, seeded, train
from vadpipe.training.samples import planes, resized, samples, training_samples
from vadpipe.training.targets import Target, modified

Images = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
# Images and targets (B, 3, H, W) in 0..1, weights of the pixels inside and outside the pool (B, 1, H, W).
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

# A reconstruction whose values all lie this close to 0 or to 1 has collapsed.
_NOTHING = 0.02
_IMAGES = 8  # at once, when scoring


class TrainParams(EpochParams):
    """Parameters of training."""

    clips: list[str] = Field(min_length=1)
    scale: float = Field(gt=0, le=1)
    kernels: list[int] = Field(min_length=1)
    channels: list[int] = Field(min_length=1)
    strides: list[int] = Field(min_length=1)
    target: Target
    noise: float = Field(gt=0, le=1)
    filled: float = Field(ge=0, le=1)
    images: int | None = Field(ge=1)
    dropout: float = Field(ge=0, lt=1)

    @model_validator(mode="after")
    def _one_of_each_a_layer(self) -> TrainParams:
        if not len(self.kernels) == len(self.channels) == len(self.strides):
            raise ValueError("kernels, channels and strides must have one number a layer each")
        if any(kernel < 1 or kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError("kernels must be odd, so that a pixel has a middle")
        if min(self.channels) < 1 or min(self.strides) < 1:
            raise ValueError("channels and strides must be at least 1")
        if any(kernel < stride for kernel, stride in zip(self.kernels, self.strides, strict=True)):
            raise ValueError("a kernel smaller than its stride leaves pixels unseen")
        return self


class ScoreParams(DeviceParams):
    """Parameters of scoring."""

    exponent: float = Field(gt=0)
    squeeze: float = Field(gt=0, le=1)
    highlights: float | None = Field(gt=0)


class CollapsedError(UserError):
    """A network that gives the same for every image."""


class Autoencoder(nn.Module):
    """Images (B, 3, H, W) in 0..1 to reconstructions of the same shape; the decoder mirrors the encoder."""

    def __init__(self, kernels: Sequence[int], channels: Sequence[int], strides: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.shape = {
            "kernels": list(kernels),
            "channels": list(channels),
            "strides": list(strides),
            "dropout": dropout,
        }
        self.stride = int(np.prod(strides))
        layers = list(zip(kernels, [3, *channels], channels, strides, strict=False))
        down: list[nn.Module] = []
        for kernel, before, after, stride in layers:
            down += [nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.ReLU()]
        up: list[nn.Module] = []
        for kernel, before, after, stride in reversed(layers):
            up += [nn.ConvTranspose2d(after, before, kernel, stride, kernel // 2, stride - 1), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Dropout(dropout))
        self.decoder = nn.Sequential(*up[:-1], nn.Sigmoid())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the reconstructions; images of any size are extended to a multiple of the strides and cut again."""
        height, width = images.shape[-2:]
        extended = functional.pad(images, (0, -width % self.stride, 0, -height % self.stride), mode="replicate")
        result: torch.Tensor = self.decoder(self.encoder(extended))[..., :height, :width]
        return result


class ConvAe(Method[PreparedClip]):
    """Score = error of an autoencoder that was trained on the empty pool, where the pool is."""

    needs = "pools"
    temporal = False
    Train = TrainParams
    Score = ScoreParams
    train: TrainParams
    network: Autoencoder
    losses: Curve
    optimizer_state: dict[str, torch.Tensor]

    def memory(self) -> int:
        """Return the bytes of the weights of encoder and decoder, their gradient and the optimizer's two moments."""
        layers = zip(self.train.kernels, [3, *self.train.channels], self.train.channels, strict=False)
        return 4 * 2 * sum(kernel**2 * before * after for kernel, before, after in layers) * 4

    def fit(self, store: Store[PreparedClip], fit: Fit) -> None:
        """Train on images of the empty pool, held in memory; a saved model goes on where it stopped.

        Raises:
            UserError: images are too small for the network, no pixel is left to learn from, or the training diverged.
            CollapsedError: the network gives all 0 or all 1.
        """
        params = self.train
        clips = training_clips(self, store)
        normal = training_samples(clips, params.scale)
        shown = normal
        if params.images is not None:
            # From images of up to twice the size, because crops enlarge and would blur.
            large = training_samples(clips, min(1, 2 * params.scale))
            size = normal[0].region.shape
            shown = [resized(sample, *size) for sample in augmented(large, params.images, fit.seed)]
        if fit.start is not None:
            self.load(fit.start)
        else:
            with seeded(fit.seed):
                self.network = Autoencoder(params.kernels, params.channels, params.strides, params.dropout)
            self.losses, self.optimizer_state = [], {}
        batches = Batches(shown, params, self.network.stride)
        self._place(params.device)
        optimizer = torch.optim.Adam(
            self.network.parameters(), lr=params.learning_rate, weight_decay=params.weight_decay
        )
        if self.optimizer_state:
            optimizer.load_state_dict(_nested(self.optimizer_state, optimizer))
        plan = Plan(params.epochs, fit.seed, fit.checkpoints, params.device, params.precision, done=tuple(self.losses))
        self.losses = train(self.network, optimizer, batches, _loss, plan)
        self.optimizer_state = _flat(optimizer)
        self._measure(normal)

    def _place(self, device: str) -> None:
        self.network.to(choose_device(device)).to(memory_format=torch.channels_last)

    def _measure(self, normal: Sequence[Sample]) -> None:
        """Take the error of the training images that heat maps are scaled by, and refuse a collapsed network."""
        errors, values = [], []
        for part in parts(normal, _IMAGES):
            images = np.stack([sample.image for sample in part])
            inside = np.stack([sample.region & ~sample.filled for sample in part])
            output = self._reconstruct(images)
            values.append(output.reshape(-1)[::7])
            errors.append(_errors(output, images)[inside])
        name_collapse(np.concatenate(values), len(self.losses))
        self.scale = float(np.concatenate(errors).mean(dtype=np.float64))

    def _reconstruct(self, images: Images) -> npt.NDArray[np.float32]:
        """Return reconstructions float32 (n, H, W, 3) in 0..1 of uint8 images."""
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            output = self.network(torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255)
        return output.permute(0, 2, 3, 1).float().cpu().numpy()  # type: ignore[no-any-return]

    def save(self, folder: Path) -> None:
        """Save the network, and the state of the optimizer, with which a training goes on."""
        known = {**self.network.shape, **self.record, "scale": self.scale, "losses": self.losses}
        save_network(folder, self.network, **known)
        save_file(self.optimizer_state, folder / "optimizer.safetensors")

    def load(self, folder: Path) -> None:
        """Load what `save` wrote."""
        known = known_of(folder)
        self.network = Autoencoder(*(known[key] for key in ("kernels", "channels", "strides", "dropout")))
        load_weights(folder, self.network)
        self.optimizer_state = load_file(folder / "optimizer.safetensors")
        self.scale, self.losses = known["scale"], known["losses"]

    @property
    def record(self) -> dict[str, Any]:
        """Return the number of parameters and the numbers of the code a number of the input."""
        shape = self.network.shape
        return {
            "parameters": parameters(self.network),
            "code_share": shape["channels"][-1] / (3 * self.network.stride**2),  # type: ignore[index]
        }

    def score(self, clip: PreparedClip) -> Iterator[Scores]:
        """Yield the component `heat`, its map, and the reconstruction.

        The map is (squared error / mean squared error of training pixels) ** exponent, NaN outside the pool and
        where the image is made up. The component is the mean of the hottest hundredth of it.
        """
        self._place(self.score_params.device)
        for part in parts(samples(clip, self.train.scale), _IMAGES):
            inside = np.stack([sample.region & ~sample.filled for sample in part])
            images = np.stack([self._prepared(sample) for sample in part])
            output = self._reconstruct(images)
            heat = (_errors(output, images) / self.scale) ** self.score_params.exponent
            heat[~inside] = np.nan
            pictures = {"reconstruction": (output * 255).round().astype(np.uint8)}
            yield Scores({"heat": np.array([hottest(one) for one in heat], np.float32)}, {"heat": heat}, pictures)

    def _prepared(self, sample: Sample) -> Images:
        """Take highlights out of an image and squeeze its range, as the report does with test images."""
        params, image = self.score_params, sample.image.astype(np.float32)
        if params.highlights is not None:
            grey, pool = image.mean(-1), sample.region
            bright = pool & (grey > grey[pool].mean() + params.highlights * grey[pool].std())
            image[bright] = image[pool].mean(0)
        return (image * np.float32(params.squeeze)).round().astype(np.uint8)


class Batches:
    """Every image once an epoch, in random order, with its target and the weights of its pixels."""

    def __init__(self, shown: Sequence[Sample], params: TrainParams, smallest: int) -> None:
        """Check and stack the samples.

        Raises:
            UserError: an image is smaller than the network's stride, or nothing is left to learn from.
        """
        height, width = shown[0].region.shape
        if min(height, width) < smallest:
            raise UserError(
                f"conv_ae: the images are {height}x{width} pixels at train.scale {params.scale}, but the network needs "
                f"{smallest}x{smallest}; give a larger scale, larger images or smaller strides"
            )
        self.images = np.stack([sample.image for sample in shown])
        self.region = np.stack([sample.region for sample in shown])
        weights = np.where(np.stack([sample.filled for sample in shown]), np.float32(params.filled), np.float32(1))
        self.inside = self.region * weights
        if not any((sample.region & ~sample.filled).any() for sample in shown):
            raise UserError("conv_ae: no pixel is left to learn from, since all of the pool is filled; add images")
        self.params = params

    def __call__(self, epoch: int, generator: np.random.Generator) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        order = generator.permutation(len(self.images))
        for rows in np.split(order, range(self.params.batch, len(order), self.params.batch)):
            images = self.images[rows].astype(np.float32) / np.float32(255)
            outside = ~self.region[rows]
            targets = modified(self.params.target, images, outside, self.params.noise, generator)
            # The plain target is the input itself, whatever the output: no loss outside.
            beyond = np.zeros_like(outside) if self.params.target == "plain" else outside
            yield planes(images), planes(targets), planes(self.inside[rows, ..., None]), planes(beyond[..., None])


def _loss(network: nn.Module, batch: Batch) -> torch.Tensor:
    """Mean squared error inside the pool plus that outside it, each divided by its own area.

    Divided by the whole image, the loss would count little where little of the pool is seen.
    """
    images, targets, inside, outside = batch
    errors = (network(images).float() - targets).square().mean(1, keepdim=True)
    means = [(errors * weights).sum((1, 2, 3)) / weights.sum((1, 2, 3)).clamp(min=1) for weights in (inside, outside)]
    return torch.stack(means).sum(0).mean()


def name_collapse(values: npt.NDArray[np.float32], epochs: int) -> None:
    """Refuse reconstructions, values in 0..1, that are nothing but black or white.

    Raises:
        CollapsedError: they are.
    """
    for name, distance in (("0", values), ("1", 1 - values)):
        if distance.max() < _NOTHING:
            raise CollapsedError(
                f"conv_ae: the training collapsed to all {name} within {epochs} epochs: every reconstruction is "
                f"{'black' if name == '0' else 'white'}; lower train.learning_rate, or take another seed or target"
            )


def _errors(output: npt.NDArray[np.float32], images: Images) -> npt.NDArray[np.float32]:
    """Return squared errors (n, H, W), mean over the channels, of outputs in 0..1 and uint8 images."""
    return np.square(output - images.astype(np.float32) / np.float32(255)).mean(-1)  # type: ignore[no-any-return]


def _flat(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return the state of an optimizer as named tensors."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{key}": value.cpu().contiguous() for index, values in state.items() for key, value in values.items()
    }


def _nested(flat: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return what `_flat` made as a state that an optimizer loads."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in flat.items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
