"""Everything that a reader needs, verified, and what was found told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vadpipe import progress
from vadpipe.datasets import base
from vadpipe.datasets.base import RawClip
from vadpipe.errors import UserError
from vadpipe.store import images
from vadpipe.store.clips import checked_rows


@dataclass
class Found:
    """What one split holds."""

    abnormal: int = 0
    masks: int = 0
    boxes: int = 0
    unlabelled: int = 0
    sizes: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)

    @property
    def frames(self) -> int:
        """Return the number of frames of all clips."""
        return sum(self.lengths)


def inspect(reader: str, source: Path) -> Iterator[str]:
    """Decode every frame and mask of a data set, and yield lines that say what was found.

    Raises:
        UserError: the first thing that is not as it should be.
    """
    dataset = base.get(reader)(source)
    oddities = list(dataset.oddities)
    splits = {"train": Found(), "test": Found()}
    with progress.bar(len(dataset.clips), "clips", "check") as bar:
        for clip in progress.counted(dataset.clips, bar):
            oddities += _inspect_clip(clip, splits[clip.split])
    for split, found in splits.items():
        sizes = ", ".join(f"{size} ({count} clips)" for size, count in found.sizes.most_common())
        yield (
            f"{split}: {len(found.lengths)} clips, {found.frames} frames "
            f"({min(found.lengths)} to {max(found.lengths)} a clip), {sizes}"
        )
    test = splits["test"]
    if test.unlabelled:
        yield f"labels: none for {test.unlabelled} of {test.frames} test frames"
    else:
        share = test.abnormal / test.frames
        yield f"labels: {test.abnormal} of {test.frames} test frames are abnormal ({share:.1%})"
    yield f"masks: {test.masks} frames; boxes: {test.boxes} frames"
    yield from (f"oddity: {oddity}" for oddity in oddities)


def _inspect_clip(clip: RawClip, found: Found) -> list[str]:
    """Decode a clip, add to what was found, and return its oddities."""
    length, empty, labels = 0, 0, set()
    size = None
    for rows in checked_rows(clip.frames(), None):
        for row in rows:
            _decode(row["image"], row["name"])
            size = row["size"]
            length += 1
            labels.add(row["label"])
            found.abnormal += row["label"] == 1
            found.unlabelled += row["label"] is None
            found.boxes += bool(row["boxes"])
            if row["mask"] is not None:
                found.masks += 1
                empty += row["label"] == 1 and not images.decode_grey(row["mask"]).any()
    if size is None:
        raise UserError(f"{clip.split}/{clip.name} has no frames; remove the clip or add its frames")
    found.lengths.append(length)
    found.sizes[f"{size.height}x{size.width} {'grey' if size.channels == 1 else 'colour'}"] += 1
    oddities = []
    if clip.split == "test" and len(labels) == 1 and labels != {None}:
        kind = "abnormal" if labels == {1} else "normal"
        oddities.append(f"{clip.name} is {kind} in every frame, so it has no AUC of its own")
    if empty:
        oddities.append(f"{clip.name}: {empty} abnormal frames have an empty mask")
    return oddities


def _decode(data: bytes, name: str) -> None:
    try:
        images.decode(data)
    except ValueError as error:
        raise UserError(f"{name}: {error}; replace the file") from None
