"""What reverse distillation trains: a bottleneck that fuses the maps of a teacher, and a student that unfolds them.

Deng, Li, "Anomaly detection via reverse distillation from one-class embedding", CVPR 2022; as in the released code,
whose bottleneck has no 1x1 convolution at its end and whose student has its blocks in the order of the encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Kind = Literal["basic", "bottleneck"]


class Block(nn.Module):
    """A residual block of a ResNet; where it changes size or channels, its shortcut does too.

    Args:
        stride: 2 halves the sides, 1/2 doubles them by a transposed convolution.
        width: of the 3x3 convolution of a bottleneck, in quarters of the channels that come out.
    """

    def __init__(self, kind: Kind, before: int, after: int, stride: float = 1, width: float = 1) -> None:
        super().__init__()
        if kind == "basic":
            layers = [
                _resize(before, after, stride, 3),
                nn.ReLU(),
                _normed(nn.Conv2d(after, after, 3, 1, 1, bias=False)),
            ]
        else:
            inner = round(after // 4 * width)
            layers = [
                _normed(nn.Conv2d(before, inner, 1, bias=False)),
                nn.ReLU(),
                _resize(inner, inner, stride, 3),
                nn.ReLU(),
                _normed(nn.Conv2d(inner, after, 1, bias=False)),
            ]
        self.layers = nn.Sequential(*layers)
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else _resize(before, after, stride, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Return the maps (n, channels, h, w) of the block."""
        return torch.relu(self.layers(maps) + self.shortcut(maps))


def _normed(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))


def _resize(before: int, after: int, stride: float, kernel: int) -> nn.Sequential:
    if stride < 1:
        return _normed(nn.ConvTranspose2d(before, after, 2, 2, bias=False))
    return _normed(nn.Conv2d(before, after, kernel, int(stride), kernel // 2, bias=False))


def fold_norms(network: nn.Module) -> None:
    """Fold the batch norms of a network that is done learning into the convolutions before them, in place."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        first, last = module[0], module[-1]
        if isinstance(first, nn.Conv2d | nn.ConvTranspose2d) and isinstance(last, nn.BatchNorm2d):
            module[0] = fuse_conv_bn_eval(first, last, transpose=isinstance(first, nn.ConvTranspose2d))
            module[1] = nn.Identity()


class ReverseStudent(nn.Module):
    """Maps of a teacher's layers, each of half the sides of the one before, to what a student makes of their essence.

    Args:
        channels: of the layers, the largest map first.
        kind: of the blocks, and how wide the 3x3 convolutions of a bottleneck are, as in the teacher.
        depths: blocks of the student, of the smallest map first.
        depth: blocks of the bottleneck.
    """

    def __init__(self, channels: Sequence[int], kind: Kind, width: float, depths: Sequence[int], depth: int) -> None:
        super().__init__()
        last = channels[-1]
        # Each layer is brought to the size of the last one, step by step.
        self.fuse = nn.ModuleList(
            nn.Sequential(
                *(
                    nn.Sequential(_resize(before, after, 2, 3), nn.ReLU())
                    for before, after in zip(channels[index:-1], channels[index + 1 :], strict=True)
                )
            )
            for index in range(len(channels) - 1)
        )
        code = 2 * last
        self.bottleneck = nn.Sequential(
            Block(kind, len(channels) * last, code, 2, width),
            *(Block(kind, code, code, 1, width) for _ in range(depth - 1)),
        )
        unfold = []
        before = code
        for after, count in zip(reversed(channels), depths, strict=True):
            blocks = [Block(kind, after, after, 1, width) for _ in range(count - 1)]
            unfold.append(nn.Sequential(Block(kind, before, after, 0.5, width), *blocks))
            before = after
        self.unfold = nn.ModuleList(unfold)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return the student's maps (n, channels, h, w), in the order of the teacher's."""
        fused = [fuse(one) for fuse, one in zip(self.fuse, maps, strict=False)]
        found = self.bottleneck(torch.cat([*fused, maps[-1]], 1))
        student = []
        for unfold in self.unfold:
            found = unfold(found)
            student.append(found)
        return student[::-1]
