"""The networks of `sdmae` layer by layer, as one would write them down first: what the fast form is compared with."""

from __future__ import annotations

import torch

from vadpipe.nn.cvt import Attention, CvtBlock, join_heads, split_heads
from vadpipe.nn.masked_autoencoder import Masks, Student, Teacher


def attention(layer: Attention, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Attend with the matrix of all scores written out."""
    query, key, value = (split_heads(part(tokens, grid)) for part in (layer.query, layer.key, layer.value))
    scores = query @ key.transpose(-1, -2) * tokens.shape[-1] ** -0.5
    return layer.out(join_heads(scores.softmax(-1) @ value))


def block(layer: CvtBlock, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    tokens = tokens + attention(layer.attention, layer.before_attention(tokens), grid)
    return tokens + layer.mlp(layer.before_mlp(tokens), grid)


def forward(
    teacher: Teacher, student: Student, images: torch.Tensor, masks: Masks
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what the teacher and the student paint, and the logit of the head."""
    patches = teacher.embed_norm(teacher.embed(images).flatten(2).transpose(1, 2))
    kept = patches.gather(1, masks.kept[..., None].expand(-1, -1, patches.shape[-1]))
    tokens = torch.cat([teacher.cls.expand(len(kept), -1, -1), kept], 1)
    for layer in teacher.encoder:
        tokens = block(layer, tokens, teacher.seen)
    encoded = teacher.encoder_norm(tokens)
    narrow = teacher.narrow(encoded)
    hidden = teacher.mask.expand(len(narrow), masks.restore.shape[1] - teacher.kept, -1)
    raster = torch.cat([narrow[:, 1:], hidden], 1)
    raster = raster.gather(1, masks.restore[..., None].expand(-1, -1, raster.shape[-1]))
    tokens = trunk = block(teacher.decoder[0], torch.cat([narrow[:, :1], raster], 1), teacher.grid)
    for layer in teacher.decoder[1:]:
        tokens = block(layer, tokens, teacher.grid)
    taught = teacher.patches(teacher.decoder_norm(tokens[:, 1:]))
    imitated = student.patches(student.norm(block(student.block, trunk, student.grid)[:, 1:]))
    head = encoded.new_zeros(len(encoded)) if teacher.head is None else teacher.head(encoded[:, 0])[:, 0]
    return taught, imitated, head
