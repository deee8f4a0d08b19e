"""Everything that stage `ingest` will read, verified, and what was found told."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from vadpipe.datasets.base import RawClip, RawDataset
from vadpipe.errors import UserError
from vadpipe.params import Ingest
from vadpipe.prepare.ingest import expected, frame_rate, how_to_store, notes_of, sampling
from vadpipe.progress import bar, counted
from vadpipe.store.frames import Checked, checked


@dataclass
class Found:
    """What one split holds."""

    abnormal: int = 0
    masks: int = 0
    boxes: int = 0
    unlabelled: int = 0
    seconds: float = 0.0
    sizes: Counter[str] = field(default_factory=Counter)
    rates: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    longest_side: int = 0

    @property
    def frames(self) -> int:
        """Return the number of frames of all clips."""
        return sum(self.lengths)


@dataclass(frozen=True)
class Report:
    """What was found.

    Attributes:
        lines: for people.
        ordered: whether the frames of a clip follow each other in time.
        shortest: frames of the shortest clip.
        longest_side: of what is stored, pixels.
    """

    lines: list[str]
    ordered: bool
    shortest: int
    longest_side: int


def inspect(params: Ingest, dataset: RawDataset, where: str) -> Report:
    """Decode every frame and mask of a data set as stage `ingest` will, without storing anything.

    Args:
        where: how to name the parameters in messages, such as `params.yaml: ingest.ped2`.

    Raises:
        UserError: the first thing that is not as it should be.
    """
    rates = [frame_rate(params, dataset, clip, where) for clip in dataset.clips]
    storing = how_to_store(params, dataset)
    oddities: list[str] = []
    categories: dict[str, None] = {}
    splits = {"train": Found(), "test": Found()}
    with bar(expected(params, dataset.clips), "frames", "check") as progress:
        for clip, rate in zip(dataset.clips, rates, strict=True):
            frames = checked(counted(clip.frames(sampling(params)), progress), replace(storing, size=clip.size))
            found = splits[clip.split]
            oddities += _inspect_clip(clip, frames, rate, found)
            categories |= dict.fromkeys(clip.categories)
            if rate is not None:
                source = params.fps or clip.fps or rate
                found.rates[f"{rate:.5g}" + ("" if math.isclose(rate, source) else f" of {source:.5g}")] += 1
    lines = [_split(name, found, dataset.ordered) for name, found in splits.items()]
    if storing.counts is not None:
        low, high = storing.counts
        lines.append(f"16 bit: training frames have {low} to {high} counts, which become 64 to 191 of 255")
    if categories:
        lines.append(f"categories, a model each: {len(categories)} ({', '.join(categories)})")
    test = splits["test"]
    if any(clip.abnormal for clip in dataset.clips):
        lines.append("labels: of each category in turn its own test images are normal, all others abnormal")
    elif test.unlabelled == test.frames:
        lines.append("labels: none")
    else:
        labelled = test.frames - test.unlabelled
        lines.append(f"labels: {test.abnormal} of {labelled} test frames are abnormal ({test.abnormal / labelled:.1%})")
        if test.unlabelled:
            lines.append(f"labels: none for {test.unlabelled} of {test.frames} test frames")
    lines.append(f"masks: {test.masks} frames; boxes: {test.boxes} frames")
    if splits["train"].sizes.keys() != test.sizes.keys() and dataset.ordered:
        oddities.append("training and test clips have other sizes; most methods compare them place by place")
    lines += [f"oddity: {oddity}" for oddity in [*dataset.oddities, *oddities]]
    shortest = min(length for found in splits.values() for length in found.lengths)
    longest = max(found.longest_side for found in splits.values())
    return Report(lines, dataset.ordered, shortest, longest)


def _split(name: str, found: Found, ordered: bool) -> str:
    sizes = ", ".join(f"{size} ({count} clips)" for size, count in found.sizes.most_common())
    text = (
        f"{name}: {len(found.lengths)} clips, {found.frames} frames "
        f"({min(found.lengths)} to {max(found.lengths)} a clip), {sizes}"
    )
    if ordered:
        rates = ", ".join(rate for rate, _ in found.rates.most_common())
        text += f", {rates} frames a second, {found.seconds / 60:.1f} min"
    return text


def _inspect_clip(clip: RawClip, frames: Iterator[Checked], rate: float | None, found: Found) -> list[str]:
    """Go through the frames of a clip, add to what was found, and return its oddities."""
    length, empty, labels = 0, 0, set()
    size = None
    notes: Counter[str] = Counter()
    for frame in frames:
        size = frame.size
        length += 1
        labels.add(frame.label)
        found.abnormal += frame.label == 1
        found.unlabelled += frame.label is None
        found.boxes += bool(frame.boxes)
        notes.update(frame.notes)
        if frame.mask is not None:
            found.masks += 1
            empty += frame.label == 1 and not frame.mask.any()
    if size is None:
        raise UserError(f"{clip.split}/{clip.name} has no frames; remove the clip or add its frames")
    found.lengths.append(length)
    found.sizes[f"{size.height}x{size.width} {'grey' if size.channels == 1 else 'colour'}"] += 1
    found.longest_side = max(found.longest_side, size.height, size.width)
    if rate is not None:
        found.seconds += length / rate
    oddities = [f"{clip.name}: {note}" for note in notes_of(clip)]
    oddities += [f"{clip.name}: {note} ({count} of {length} frames)" for note, count in notes.items()]
    if clip.split == "test" and rate is not None and len(labels) == 1 and labels != {None}:
        kind = "abnormal" if labels == {1} else "normal"
        oddities.append(f"{clip.name} is {kind} in every frame, so it has no AUC of its own")
    if empty:
        oddities.append(f"{clip.name}: {empty} abnormal frames have an empty mask")
    return oddities
