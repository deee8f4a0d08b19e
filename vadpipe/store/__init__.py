"""Stores on disk: clips, prepared images, flow, features and scores. The only code that knows file formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from vadpipe.errors import UserError
from vadpipe.store import clips, features, flow, prepared
from vadpipe.store.base import SPLITS, clip_files, metadata
from vadpipe.store.clips import Clip
from vadpipe.store.features import FeatureClip, feature_clips
from vadpipe.store.flow import FlowClip
from vadpipe.store.prepared import PreparedClip

__all__ = [
    "AnyClip",
    "Clip",
    "FeatureClip",
    "FlowClip",
    "PreparedClip",
    "Store",
    "open_clips",
    "open_store",
]

AnyClip = Clip | PreparedClip | FlowClip | FeatureClip
ClipT = TypeVar("ClipT", bound=AnyClip)

# What is wanted -> the kinds of stores that serve: prepared images are images.
SERVED_BY = {kind: {kind} for kind in (clips.KIND, prepared.INPAINTED, prepared.POOLS, flow.KIND, features.KIND)}
SERVED_BY[clips.KIND] |= {prepared.INPAINTED, prepared.POOLS}

_CLIP_CLASSES: dict[str, type[Clip | FlowClip]] = {
    clips.KIND: Clip,
    prepared.INPAINTED: PreparedClip,
    prepared.POOLS: PreparedClip,
    flow.KIND: FlowClip,
}


@dataclass(frozen=True)
class Store(Generic[ClipT]):
    """An opened store.

    Attributes:
        kind: `clips`, `inpainted`, `pools`, `flow` or `features`.
        info: its metadata (that of the first clip, where each clip has a file of its own).
    """

    path: Path
    kind: str
    info: dict[str, Any]
    all_clips: list[ClipT]

    def clips(self, split: str) -> list[ClipT]:
        """Return the clips of `train` or `test`, sorted by name."""
        return [clip for clip in self.all_clips if clip.split == split]


def open_store(path: Path, kind: str | None = None) -> Store[Any]:
    """Open a store and check that it serves as a store of `kind`.

    Raises:
        UserError: nothing is there, or it is of another kind.
    """
    files = [file for split in SPLITS for file in clip_files(path, split)] if path.is_dir() else [path]
    if not files or not files[0].exists():
        raise UserError(f"{path} is not here; run `dvc repro` or `dvc pull`")
    info = metadata(files[0])
    found = info.get("kind", "unknown")
    if kind is not None and found not in SERVED_BY[kind]:
        raise UserError(f"{path} is a store of kind '{found}', but '{kind}' is wanted; change `uses` of the run")
    if found == features.KIND:
        return Store(path, found, info, list(feature_clips(path, info)))
    if found not in _CLIP_CLASSES:
        raise UserError(f"{path} is no store of this program; remove it and run `dvc repro`")
    return Store(path, found, info, [_CLIP_CLASSES[found](file) for file in files])


def open_clips(path: Path) -> list[Clip]:
    """Open a store of images, a clip store or a prepared one, and return the clips of all splits.

    Raises:
        UserError: nothing is there, or it is a store of something else.
    """
    return list(open_store(path, clips.KIND).all_clips)
