"""The frames of training clips, each decoded once and brought to the size of a network, beside their composites.

They lie in files that are mapped into memory, so that a data set may be larger than it, and an epoch decodes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from vadpipe.errors import UserError
from vadpipe.machine import check_disk
from vadpipe.store import Clip, CompositeClip
from vadpipe.store.atomic import replacing
from vadpipe.training.group import leads, wait_for
from vadpipe.training.motion import Motion, motion_gradients, token_weights

Image = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_AT_ONCE = 256  # frames
_LEAST = 3  # frames of a clip: one before, one after
_COVERED = 0.25  # share of a pixel that what was pasted covers, to count


class Batch(NamedTuple):
    """Frames on their way into the network.

    Attributes:
        images: uint8 (B, F * 3, H, W), the frames around each one, or it alone.
        clean: uint8 (B, 3, H, W), the frame itself, without what was pasted.
        pasted: bool (B, 1, H, W).
        weights: float32 (B, N), of the tokens.
        composite: float32 (B,), 1 where anything was pasted.
    """

    images: torch.Tensor
    clean: torch.Tensor
    pasted: torch.Tensor
    weights: torch.Tensor
    composite: torch.Tensor


@dataclass(frozen=True)
class Frames:
    """All frames of some clips, one clip behind the other: N frames.

    Attributes:
        clean: uint8 (N, H, W, C), grey or RGB.
        composite: the same with what was pasted; None = no clip has composites.
        pasted: bool (N, H, W); None = the same.
        motion: uint8 (N, H, W, C), of the clean frames.
        first: index of the first frame of each frame's clip, (N,).
        last: of the last one.
    """

    clean: Image
    composite: Image | None
    pasted: npt.NDArray[np.bool_] | None
    motion: Image
    first: Ints
    last: Ints

    def __len__(self) -> int:
        return len(self.clean)

    def batch(self, index: Ints, composite: npt.NDArray[np.bool_], neighbour: int, patch: int, kind: Motion) -> Batch:
        """Return frames by their indices (B,), those marked with what was pasted into them and their neighbours.

        Args:
            neighbour: frames between the one and those beside it; a missing one is replaced by the frame itself. 0 =
                the frame alone.
        """
        shown = index[:, None]
        if neighbour:
            around = shown + np.array([-neighbour, 0, neighbour])
            inside = (around >= self.first[index, None]) & (around <= self.last[index, None])
            shown = np.where(inside, around, index[:, None])
        images = self.clean[shown]
        pasted = np.zeros(images.shape[:1] + images.shape[2:4], np.bool_)
        if self.composite is not None and self.pasted is not None and composite.any():
            images[composite] = self.composite[shown[composite]]
            pasted[composite] = self.pasted[index[composite]]
        clean = self.clean[index]
        return Batch(
            _planes(images),
            _planes(clean[:, None]),
            torch.from_numpy(pasted[:, None]),
            torch.from_numpy(token_weights(self.motion[index], pasted, patch, kind)),
            torch.from_numpy(pasted.any((1, 2)).astype(np.float32)),
        )


def _planes(images: Image) -> torch.Tensor:
    """Return images (B, F, H, W, C) as planes (B, F * 3, H, W); grey ones are repeated."""
    planes = np.moveaxis(images, -1, 2)
    if planes.shape[2] == 1:
        planes = np.repeat(planes, 3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(planes.reshape(len(planes), -1, *planes.shape[3:])))


def cached_frames(clips: Sequence[Clip], size: tuple[int, int], kind: Motion, folder: Path) -> Frames:
    """Return the frames of clips at a size (height, width); what an interrupted training left in `folder` is taken up.

    Raises:
        UserError: a clip has fewer than three frames, or the disk is full.
    """
    for clip in clips:
        if clip.length < _LEAST:
            raise UserError(f"{clip.path} has {clip.length} frames, but motion needs {_LEAST}; remove the clip")
    channels = max(clip.info["channels"] for clip in clips)
    lengths = [clip.length for clip in clips]
    edges = np.concatenate([[0], np.cumsum(lengths)])
    if not leads():
        wait_for(folder)
    elif not folder.is_dir():
        with_composites = any(isinstance(clip, CompositeClip) and clip.has_composites for clip in clips)
        shape = int(edges[-1]), *size, channels
        size_of_all = int(np.prod(shape)) * (3 if with_composites else 2)
        check_disk(folder, size_of_all, "choose a smaller size, or free some", cached=False)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder, folder=True) as beside:
            _write(clips, beside, shape, with_composites, kind)
    there = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
    owner = np.repeat(np.arange(len(lengths)), lengths)
    first, last = edges[owner], edges[owner + 1] - 1
    return Frames(there["clean"], there.get("composite"), there.get("pasted"), there["motion"], first, last)


def _write(clips: Sequence[Clip], folder: Path, shape: tuple[int, ...], with_composites: bool, kind: Motion) -> None:
    def file(name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape)

    files = {name: file(name, np.uint8, shape) for name in ("clean", "motion")}
    if with_composites:
        files |= {"composite": file("composite", np.uint8, shape), "pasted": file("pasted", np.bool_, shape[:3])}
    start = 0
    for clip in clips:
        part = slice(start, start + clip.length)
        _fill(files["clean"][part], (scaled(chunk, shape[1:]) for chunk in clip.chunks()))
        _fill(files["motion"][part], _motions(files["clean"][part], kind))
        if with_composites:
            files["composite"][part] = files["clean"][part]
            if isinstance(clip, CompositeClip):
                _fill(files["composite"][part], (scaled(chunk, shape[1:]) for chunk in clip.composites()))
                _fill(files["pasted"][part], (_shrunk(chunk, shape[1], shape[2]) for chunk in clip.pasted()))
        start += clip.length


def _motions(frames: Image, kind: Motion) -> Iterator[Image]:
    """Yield the motion of a clip's frames, some at a time, each time with a frame before and behind them."""
    for start in range(0, len(frames), _AT_ONCE):
        before, end = max(start - 1, 0), min(start + _AT_ONCE, len(frames))
        yield motion_gradients(frames[before : end + 1], kind)[start - before :][: end - start]


def _fill(target: npt.NDArray[np.generic], chunks: Iterator[npt.NDArray[np.generic]]) -> None:
    start = 0
    for chunk in chunks:
        target[start : start + len(chunk)] = chunk
        start += len(chunk)


def scaled(images: Image, shape: tuple[int, ...]) -> Image:
    """Return images (n, H, W, 3) at a height, a width and a number of channels, (n, h, w, C)."""
    height, width, channels = shape
    if channels == 1:
        images = images[..., :1]  # of a grey image all channels are one
    if images.shape[1:3] != (height, width):
        images = np.stack([
            cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, channels)
            for image in images
        ])  # fmt: skip
    return images


def _shrunk(masks: npt.NDArray[np.bool_], height: int, width: int) -> npt.NDArray[np.bool_]:
    shares = [cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) for mask in masks]
    return np.asarray(np.stack(shares) >= _COVERED)
