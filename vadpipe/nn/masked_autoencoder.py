"""The self-distilled masked autoencoder: a teacher, and a student that branches off behind its decoder's first block.

Ristea et al., CVPR 2024, sections 3.1 to 3.3. No embedding of positions: the decoder's convolutions over the grid are
all that tells a token where it is.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from vadpipe.nn.cvt import CvtBlock, Mlp

ENCODER_WIDTH, DECODER_WIDTH = 256, 128
BLOCKS = 3

Order = Literal["shuffled", "raster"]


class Layout(NamedTuple):
    """What it takes to build the networks again.

    Attributes:
        channels: of an image, three for each frame in it.
        height: pixels.
        width: pixels.
        patch: side of a patch, pixels.
        values: channels of what is reconstructed, 3 or with the anomaly map 4.
        kept: tokens that the encoder sees.
        mlp: `pointwise` or `dense`.
        head: whether there is a class head.
    """

    channels: int
    height: int
    width: int
    patch: int
    values: int
    kept: int
    mlp: Mlp
    head: bool

    @property
    def grid(self) -> tuple[int, int]:
        """Return rows and columns of the tokens of an image."""
        return self.height // self.patch, self.width // self.patch

    @property
    def patch_values(self) -> int:
        """Return how many numbers a token stands for."""
        return int(self.patch**2 * self.values)


class Masks(NamedTuple):
    """Which tokens of each image are kept, all (B, ...).

    Attributes:
        kept: indices of those kept, (B, K), in the order in which the encoder sees them.
        restore: (B, N), where each token of the raster lies in kept followed by masked ones.
        masked: (B, N), True = the encoder does not see it.
    """

    kept: torch.Tensor
    restore: torch.Tensor
    masked: torch.Tensor


class Taught(NamedTuple):
    """What the teacher gives.

    Attributes:
        patches: reconstruction, (B, N, values a patch).
        trunk: tokens after the decoder's first block, (B, 1 + N, 128), where the student begins.
        head: logit of the class head, (B,); zeros without a head.
    """

    patches: torch.Tensor
    trunk: torch.Tensor
    head: torch.Tensor


def draw_masks(noise: torch.Tensor, kept: int, order: Order) -> Masks:
    """Return masks that keep the `kept` tokens of lowest noise (B, N), in the order of their noise or of the raster."""
    shuffled = noise.argsort(1)
    if order == "raster":
        shuffled = torch.cat([shuffled[:, :kept].sort(1).values, shuffled[:, kept:]], 1)
    restore = shuffled.argsort(1)
    return Masks(shuffled[:, :kept], restore, restore >= kept)


class Teacher(nn.Module):
    """Images (B, C, H, W) in -1..1, of which part of the patches is seen, to all patches; CLS says what kind it is.

    Attributes:
        grid: rows and columns of the tokens of an image.
        seen: rows and columns in which the encoder sees the tokens that are kept.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        mlp = layout.mlp
        self.grid, self.kept = layout.grid, layout.kept
        self.seen = self.grid[0], self.kept // self.grid[0]
        self.embed = nn.Conv2d(layout.channels, ENCODER_WIDTH, layout.patch, layout.patch)
        self.embed_norm = nn.LayerNorm(ENCODER_WIDTH)
        self.cls = nn.Parameter(torch.zeros(1, 1, ENCODER_WIDTH))
        self.encoder = nn.ModuleList(CvtBlock(ENCODER_WIDTH, mlp) for _ in range(BLOCKS))
        self.encoder_norm = nn.LayerNorm(ENCODER_WIDTH)
        self.narrow = nn.Linear(ENCODER_WIDTH, DECODER_WIDTH)
        self.mask = nn.Parameter(torch.zeros(1, 1, DECODER_WIDTH))
        self.decoder = nn.ModuleList(CvtBlock(DECODER_WIDTH, mlp) for _ in range(BLOCKS))
        self.decoder_norm = nn.LayerNorm(DECODER_WIDTH)
        self.patches = nn.Linear(DECODER_WIDTH, layout.patch_values)
        self.head = nn.Linear(ENCODER_WIDTH, 1) if layout.head else None

    def forward(self, images: torch.Tensor, masks: Masks) -> Taught:
        """Return reconstruction, trunk and logit."""
        encoded = self.encode(images, masks)
        trunk = self.trunk(encoded, masks)
        tokens = trunk
        for block in self.decoder[1:]:
            tokens = block(tokens, self.grid)
        patches = self.patches(self.decoder_norm(tokens[:, 1:]))
        head = self.head(encoded[:, 0])[:, 0] if self.head is not None else encoded.new_zeros(len(encoded))
        return Taught(patches, trunk, head)

    def encode(self, images: torch.Tensor, masks: Masks) -> torch.Tensor:
        """Return the tokens of class and kept patches, (B, 1 + K, 256)."""
        tokens = torch.cat([self.cls.expand(len(images), -1, -1), self._embedded(images, masks)], 1)
        for block in self.encoder:
            tokens = block(tokens, self.seen)
        result: torch.Tensor = self.encoder_norm(tokens)
        return result

    def _embedded(self, images: torch.Tensor, masks: Masks) -> torch.Tensor:
        """Return the embedded patches that are kept, (B, K, 256): the convolution, but not where nobody looks."""
        patches = to_patches(images, self.embed.kernel_size[0])
        kept = patches.gather(1, masks.kept[..., None].expand(-1, -1, patches.shape[-1]))
        weight = self.embed.weight.permute(0, 2, 3, 1).flatten(1)
        result: torch.Tensor = self.embed_norm(functional.linear(kept, weight, self.embed.bias))
        return result

    def trunk(self, encoded: torch.Tensor, masks: Masks) -> torch.Tensor:
        """Return the tokens of class and all patches after the decoder's first block, (B, 1 + N, 128)."""
        tokens = self.narrow(encoded)
        hidden = self.mask.expand(len(tokens), masks.restore.shape[1] - self.kept, -1)
        raster = torch.cat([tokens[:, 1:], hidden.to(tokens.dtype)], 1)
        raster = raster.gather(1, masks.restore[..., None].expand(-1, -1, raster.shape[-1]))
        result: torch.Tensor = self.decoder[0](torch.cat([tokens[:, :1], raster], 1), self.grid)
        return result


class Student(nn.Module):
    """The trunk of a teacher (B, 1 + N, 128) to an imitation of its patches (B, N, values)."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.grid = layout.grid
        self.block = CvtBlock(DECODER_WIDTH, layout.mlp)
        self.norm = nn.LayerNorm(DECODER_WIDTH)
        self.patches = nn.Linear(DECODER_WIDTH, layout.patch_values)

    def forward(self, trunk: torch.Tensor) -> torch.Tensor:
        """Return the imitation."""
        result: torch.Tensor = self.patches(self.norm(self.block(trunk, self.grid)[:, 1:]))
        return result


def to_patches(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Cut images (B, C, H, W) into patches (B, N, patch * patch * C), in raster order."""
    batch, channels, height, width = images.shape
    cut = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)
