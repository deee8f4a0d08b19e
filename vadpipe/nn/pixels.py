"""The frame itself in the place of a backbone, so that what features are worth is seen beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

# The name of the backbone, and what timm would know of it: red, green and blue from 0 to 1.
PIXELS = "pixels"
CONFIG: dict[str, Any] = {
    **{"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear", "crop_pct": 1.0},
    **{"crop_mode": "center", "classifier": None, "fixed_input_size": False},
}


class Pixels(nn.Module):
    """A network of no layer but its input, 0: frames (n, 3, H, W) to vectors (n, 3 x H x W), or to a list of maps."""

    def __init__(self, layers: Sequence[int]) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, frames: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return them as they are."""
        return [frames] if self.layers else frames.flatten(1)
