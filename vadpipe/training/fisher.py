"""How much each weight of a network matters to what it learned first: the diagonal of the Fisher information.

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017: the expectation, over images and
labels of the first training, of the squared gradient of its loss, for one image at a time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from vadpipe.errors import UserError
from vadpipe.files import there

Tensors = dict[str, torch.Tensor]


def fisher_diagonal(
    logits: Callable[[torch.Tensor], torch.Tensor],
    weights: Mapping[str, nn.Parameter],
    images: Iterable[tuple[torch.Tensor, int | None]],
) -> Tensors:
    """Return the mean, over images, of the squared gradient of the cross-entropy, a number a weight.

    A batch would not do: the square of a mean of gradients is not the mean of their squares.

    Args:
        logits: images (1, ...) -> logits (1, classes).
        weights: by name, those that are asked for.
        images: (1, ...) each, with its class; None = the class is drawn from what the network predicts, which makes it
            the Fisher information of the network itself.
    """
    total = {name: torch.zeros_like(value) for name, value in weights.items()}
    count = 0
    for image, label in images:
        values = logits(image)
        drawn = values.detach().softmax(1).multinomial(1)[:, 0] if label is None else values.new_tensor([label]).long()
        gradients = torch.autograd.grad(functional.cross_entropy(values, drawn), list(weights.values()))
        for name, gradient in zip(total, gradients, strict=True):
            total[name] += gradient.square()
        count += 1
    return {name: value / max(count, 1) for name, value in total.items()}


def save_fisher(path: Path, fisher: Tensors, **known: Any) -> None:
    """Save a diagonal, and what is known of it."""
    save_file({name: value.cpu().contiguous() for name, value in fisher.items()}, path, {"known": json.dumps(known)})


def load_fisher(path: Path, weights: Mapping[str, nn.Parameter], backbone: Mapping[str, Any]) -> tuple[Tensors, Any]:
    """Load a diagonal that `save_fisher` wrote, and what is known of it.

    Args:
        weights: which it is wanted for.
        backbone: the record of the backbone whose it must be.

    Raises:
        UserError: it is not there, is no such file, or is of another backbone, of other weights, or of fewer of them.
    """
    if not there(path):
        raise UserError(f"params.yaml: train.fisher: {path} is not here; give null, and it is computed")
    try:
        found = load_file(path)
        with safe_open(path, "pt") as file:
            known = json.loads((file.metadata() or {})["known"])
    except Exception as error:  # safetensors raises its own type for every kind of damage
        raise UserError(
            f"params.yaml: train.fisher: {path} is no Fisher information that panda saved ({type(error).__name__}); "
            "give models/RUN/SEED/fisher.safetensors of another run, or null"
        ) from None
    for name in ("backbone", "sha256"):
        if known.get(name) != backbone[name]:
            raise UserError(
                f"params.yaml: train.fisher: {path} is of another backbone: its {name} is '{known.get(name)}', that of "
                f"the run '{backbone[name]}'; give null, and it is computed anew"
            )
    for name, value in weights.items():
        if name not in found or found[name].shape != value.shape:
            raise UserError(
                f"params.yaml: train.fisher: {path} says nothing of '{name}', which is trained; give null, or freeze "
                "as many stages as the run that saved it"
            )
    return {name: found[name].to(value.device) for name, value in weights.items()}, known
