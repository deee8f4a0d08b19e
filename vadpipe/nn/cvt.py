"""Blocks of a convolutional vision transformer (CvT): attention whose queries, keys and values come from convolutions.

Wu et al., ICCV 2021, in the form of Ristea et al. (CVPR 2024), where 1x1 convolutions take the place of the dense
layers behind the attention.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

Mlp = Literal["pointwise", "dense"]

HEADS = 4
EXPANSION = 2  # hidden width over width
DROPOUT = 0.1


class Projection(nn.Module):
    """Tokens (B, 1 + N, D) to tokens: 3x3 over their grid, channel by channel, then a linear layer for each.

    The class token, which comes first, has no place in the grid and takes the linear layer alone.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Return the projected tokens."""
        cells = to_grid(tokens[:, 1:], grid)
        mixed = from_grid(self.norm(self.convolution(cells)))
        projected: torch.Tensor = self.linear(torch.cat([tokens[:, :1], mixed], 1))
        return projected


class Attention(nn.Module):
    """Self-attention with convolutional projections; scores are divided by the root of the whole width, as in CvT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (Projection(width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Return what each token gathers, (B, 1 + N, D)."""
        query, key, value = (split_heads(layer(tokens, grid)) for layer in (self.query, self.key, self.value))
        gathered = functional.scaled_dot_product_attention(query, key, value, scale=tokens.shape[-1] ** -0.5)
        result: torch.Tensor = self.out(join_heads(gathered))
        return result


class PointwiseMlp(nn.Module):
    """1x1 convolutions over the grid; the class token passes through unchanged."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen = nn.Conv2d(width, EXPANSION * width, 1)
        self.drop = nn.Dropout(DROPOUT)
        self.narrow = nn.Conv2d(EXPANSION * width, width, 1)

    def forward(self, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Return the tokens (B, 1 + N, D) after the two layers."""
        cells = to_grid(tokens[:, 1:], grid)
        mixed = self.narrow(self.drop(functional.gelu(self.widen(cells))))
        return torch.cat([tokens[:, :1], from_grid(mixed)], 1)


class DenseMlp(nn.Module):
    """Dense layers for every token, that of the class too, without dropout: what the pointwise form replaced."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, EXPANSION * width)
        self.narrow = nn.Linear(EXPANSION * width, width)

    def forward(self, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Return the tokens (B, 1 + N, D) after the two layers."""
        result: torch.Tensor = self.narrow(functional.gelu(self.widen(tokens)))
        return result


class CvtBlock(nn.Module):
    """Tokens (B, 1 + N, D), the class token first, to tokens of the same shape."""

    def __init__(self, width: int, mlp: Mlp) -> None:
        super().__init__()
        self.before_attention = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width)
        self.before_mlp = nn.LayerNorm(width, eps=1e-6)
        self.mlp = PointwiseMlp(width) if mlp == "pointwise" else DenseMlp(width)

    def forward(self, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """Return the tokens; `grid` has the rows and columns of the N tokens behind the first."""
        tokens = tokens + self.attention(self.before_attention(tokens), grid)
        result: torch.Tensor = tokens + self.mlp(self.before_mlp(tokens), grid)
        return result


def fold_norms(network: nn.Module) -> None:
    """Fold the batch norms of a network that is done learning into the convolutions before them, in place."""
    for module in network.modules():
        if isinstance(module, Projection) and isinstance(module.norm, nn.BatchNorm2d):
            module.convolution = fuse_conv_bn_eval(module.convolution, module.norm)
            module.norm = nn.Identity()


def to_grid(tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Return tokens (B, N, D) as planes (B, D, rows, columns), channels last in memory."""
    return tokens.transpose(1, 2).reshape(len(tokens), -1, *grid)


def from_grid(planes: torch.Tensor) -> torch.Tensor:
    """Return planes (B, D, rows, columns) as tokens (B, N, D)."""
    return planes.flatten(2).transpose(1, 2)


def split_heads(tokens: torch.Tensor) -> torch.Tensor:
    """Return tokens (B, N, D) as (B, heads, N, D / heads)."""
    return tokens.reshape(*tokens.shape[:2], HEADS, -1).transpose(1, 2)


def join_heads(tokens: torch.Tensor) -> torch.Tensor:
    """Return tokens (B, heads, N, D / heads) as (B, N, D)."""
    return tokens.transpose(1, 2).flatten(2)
