"""What it takes to train a backbone further: the layer that its weights end in, and which of its stages are trained."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from vadpipe.errors import UserError
from vadpipe.nn.backbones import config_of, weights_of
from vadpipe.nn.pixels import Pixels
from vadpipe.params import BackboneParams


def class_head(params: BackboneParams) -> nn.Linear | None:
    """Return the linear layer, vector to logits, that the weights of a backbone end in; None where they have none.

    Raises:
        UserError: as `Backbone`.
    """
    name = config_of(params)["classifier"]
    if params.layers or not isinstance(name, str):
        return None
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(0)
        donor = timm.create_model(params.backbone)
    head: Any = donor.get_classifier()  # type: ignore[operator]
    if not isinstance(head, nn.Linear):
        return None
    if params.weights == "random":
        return head
    weights, _ = weights_of(params)
    found = {of: weights.get(f"{name}.{of}") for of in ("weight", "bias")}
    if any(value is None or value.shape != getattr(head, of).shape for of, value in found.items()):
        return None
    head.load_state_dict({of: value.float() for of, value in found.items() if value is not None})
    return head


def trained_after(net: nn.Module, stage: int) -> dict[str, nn.Parameter]:
    """Return the parameters of a backbone's network that come after one of its stages, by name.

    Args:
        stage: as the layers of a feature set count: of a ResNet 0 is the stem, 1 to 4 are its layers.

    Raises:
        UserError: there is no such stage, or nothing comes after it.
    """
    if isinstance(net, Pixels):
        raise UserError("params.yaml: panda: pixels have nothing to adapt; give another backbone, or adaptation: none")
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
