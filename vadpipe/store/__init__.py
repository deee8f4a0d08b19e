"""Stores on disk: clips, labels, prepared images, composites, flow, features, scores. What knows file formats."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from vadpipe.errors import UserError
from vadpipe.store import clips, composites, features, flow, labels, prepared
from vadpipe.store.base import SPLITS, ClipFile, check_listed, listed_clips
from vadpipe.store.clips import Clip
from vadpipe.store.composites import CompositeClip
from vadpipe.store.features import FeatureClip
from vadpipe.store.flow import FlowClip
from vadpipe.store.labels import LabelClip
from vadpipe.store.prepared import PreparedClip

__all__ = [
    "AnyClip",
    "Clip",
    "CompositeClip",
    "FeatureClip",
    "FlowClip",
    "LabelClip",
    "PreparedClip",
    "Store",
    "open_clips",
    "open_store",
]

AnyClip = Clip | PreparedClip | CompositeClip | FlowClip | FeatureClip
ClipT = TypeVar("ClipT", bound=ClipFile)

# What is wanted -> the kinds of stores that serve: prepared images are images.
_KINDS = (clips.KIND, labels.KIND, prepared.INPAINTED, prepared.POOLS, composites.KIND, flow.KIND, features.KIND)
SERVED_BY = {kind: {kind} for kind in _KINDS}
SERVED_BY[clips.KIND] |= {prepared.INPAINTED, prepared.POOLS, composites.KIND}

_CLIP_CLASSES: dict[str, type[ClipFile]] = {
    clips.KIND: Clip,
    labels.KIND: LabelClip,
    prepared.INPAINTED: PreparedClip,
    prepared.POOLS: PreparedClip,
    composites.KIND: CompositeClip,
    flow.KIND: FlowClip,
    features.KIND: FeatureClip,
}


@dataclass(frozen=True)
class Store(Generic[ClipT]):
    """An opened store; a split is read when it is asked for, so that a training needs the training clips alone.

    Attributes:
        kind: `clips`, `labels`, `inpainted`, `pools`, `composites`, `flow` or `features`.
        info: the metadata of its first clip.
        category: whose clips it gives; None = all.
    """

    path: Path
    kind: str
    info: dict[str, Any]
    category: str | None = None

    def clips(self, split: str) -> list[ClipT]:
        """Return the clips of `train` or `test`, sorted by name.

        Raises:
            UserError: a clip is missing, damaged, or of another length than when the store was written.
        """
        found: list[Any] = []
        for name, listed in sorted(listed_clips(self.path, split).items()):
            path = self.path / split / f"{name}.parquet"
            check_listed(path, listed)
            clip = _CLIP_CLASSES[self.kind](path)
            if self.category is None or self.category in clip.info["categories"]:
                found.append(clip)
                if isinstance(clip, LabelClip):
                    clip.category = self.category
        return found

    def categories(self) -> list[str]:
        """Return the categories of the training clips, sorted; none where the data set has no categories."""
        return sorted({category for clip in self.clips("train") for category in clip.info.get("categories", [])})

    def of(self, category: str | None) -> Store[ClipT]:
        """Return the store with the clips of a category alone; None = all clips."""
        return replace(self, category=category)

    def all_clips(self) -> list[ClipT]:
        """Return the clips of both splits, those for training first."""
        return [clip for split in SPLITS for clip in self.clips(split)]


def open_store(path: Path, kind: str | None = None) -> Store[Any]:
    """Open a store and check that it serves as a store of `kind`.

    Raises:
        UserError: nothing is there, or it is of another kind.
    """
    split = next((split for split in SPLITS if (path / split).is_dir()), None)
    if split is None:
        raise UserError(f"{path} is not here; run `dvc repro` or `dvc pull`")
    listed = listed_clips(path, split)
    if not listed:
        raise UserError(f"{path} has no clips for {split}; run `dvc repro`")
    first = path / split / f"{min(listed)}.parquet"
    check_listed(first, listed[min(listed)])
    info = ClipFile(first).info
    found = info.get("kind", "unknown")
    if kind is not None and found not in SERVED_BY[kind]:
        raise UserError(f"{path} is a store of kind '{found}', but '{kind}' is wanted; change `uses` of the run")
    if found not in _CLIP_CLASSES:
        raise UserError(f"{path} is no store of this program; remove it and run `dvc repro`")
    return Store(path, found, info)


def open_clips(path: Path) -> list[Clip]:
    """Open a store of images, a clip store or a prepared one, and return the clips of all splits.

    Raises:
        UserError: nothing is there, or it is a store of something else.
    """
    return list(open_store(path, clips.KIND).all_clips())
