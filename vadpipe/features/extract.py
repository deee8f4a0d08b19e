"""Frames to vectors: decoded ahead in threads, computed in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from vadpipe import progress
from vadpipe.nn.backbones import Backbone
from vadpipe.nn.device import autocast, choose_device
from vadpipe.params import FeatureSet
from vadpipe.store import PreparedClip, open_clips
from vadpipe.store.atomic import replacing
from vadpipe.store.base import clip_file, regroup, write_manifests
from vadpipe.store.clips import Clip
from vadpipe.store.features import Halves, Vectors, write_clip


def extract(params: FeatureSet, source: Path, out: Path) -> None:
    """Write the features of a store of images.

    Raises:
        UserError: the backbone or its weights are not to be had, or a vector holds NaN.
    """
    clips = open_clips(source)
    device = choose_device(params.device)
    backbone = Backbone(params, params.grid).to(device).to(memory_format=torch.channels_last)
    computed = {**params.model_dump(), **backbone.record, "torch": torch.__version__, "device": device.type}
    with replacing(out, folder=True) as folder:
        with progress.bar(sum(clip.length for clip in clips), "frames", "features") as bar:
            for clip in clips:
                chunks = progress.advancing(vectors(clip, backbone, params, device), bar)
                path = clip_file(folder, clip.split, clip.name)
                about = {**clip.origin, "grid": params.grid, "maps": backbone.maps, "computed": computed}
                write_clip(path, backbone.dim, chunks, shares(clip, params.grid), **about)
        write_manifests(folder)
    print(f"{len(clips)} clips, {backbone.dim} features a frame ({backbone.record['weights']}) -> {out}")


def vectors(clip: Clip, backbone: Backbone, params: FeatureSet, device: torch.device) -> Iterator[Vectors | Halves]:
    """Yield the vectors of a clip, (n, D), a batch at a time: float32, and float16 of maps, as the store keeps them."""
    with torch.inference_mode(), autocast(device, params.precision):
        for batch in regroup(backbone.frames(clip.encoded()), params.batch):
            pinned = torch.from_numpy(batch)
            if device.type == "cuda":
                pinned = pinned.pin_memory()
            # (n, H, W, 3) seen as (n, 3, H, W) is channels_last already: nothing is copied.
            result = backbone(pinned.to(device, non_blocking=True).permute(0, 3, 1, 2))
            # Here the rounding takes all cores, in NumPy one.
            yield (result.half() if backbone.maps else result.float()).cpu().numpy()


def shares(clip: Clip, grid: list[int] | None) -> Iterator[Vectors] | None:
    """Yield what share of each cell matters, float32 (n, rows x columns), where the clip has a region.

    What is inside the region and was not made up by inpainting matters.
    """
    if grid is None or not isinstance(clip, PreparedClip):
        return None
    return (
        np.stack([cv2.resize(one, grid[::-1], interpolation=cv2.INTER_AREA).ravel() for one in matters])
        for matters in (
            (region & ~filled).astype(np.float32) for region, filled in zip(clip.regions(), clip.filled(), strict=True)
        )
    )
