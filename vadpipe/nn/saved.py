"""A network in a model's folder: its weights as safetensors, and what else is known of it as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from vadpipe.store.atomic import write_json

_WEIGHTS, _KNOWN = "network.safetensors", "network.json"


def save_network(folder: Path, network: nn.Module, **known: Any) -> None:
    """Save the weights, and what it takes to build the network again, such as its shape."""
    save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, folder / _WEIGHTS)
    write_json(folder / _KNOWN, known)


def known_of(folder: Path) -> dict[str, Any]:
    """Return what `save_network` was told of the network."""
    known: dict[str, Any] = json.loads((folder / _KNOWN).read_text())
    return known


def load_weights(folder: Path, network: nn.Module) -> None:
    """Load the weights into a network of the shape of the saved one, and make it ready to score."""
    network.load_state_dict(load_file(folder / _WEIGHTS))
    network.eval()


def parameters(network: nn.Module) -> int:
    """Return the number of weights that are trained."""
    return sum(value.numel() for value in network.parameters())
