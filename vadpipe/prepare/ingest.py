"""Raw data in, clip store and label store out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

from vadpipe.datasets import base
from vadpipe.datasets.base import RawClip, RawDataset
from vadpipe.errors import UserError
from vadpipe.files import read_bytes
from vadpipe.params import Ingest
from vadpipe.progress import bar, counted
from vadpipe.store.atomic import replacing
from vadpipe.store.base import clip_file, write_manifests
from vadpipe.store.clips import write_clip
from vadpipe.store.counts import Counts, range16
from vadpipe.store.frames import Frame, Storing
from vadpipe.store.image_files import Pixels, read_image
from vadpipe.store.sampling import Sampling


def ingest(name: str, params: Ingest, source: Path, out: Path, truth: Path) -> None:
    """Write the clip store and the label store of a data set.

    Raises:
        UserError: the layout, a frame, a mask or a label is not as it should be.
    """
    dataset = base.scan(source, params.reader, params.objects, params.labels)
    with replacing(truth, folder=True) as labels, replacing(out, folder=True) as clips:
        frames = write_clips(name, params, dataset, clips, labels)
    for note in [*dataset.oddities, *(f"{clip.name}: {note}" for clip in dataset.clips for note in notes_of(clip))]:
        print(f"oddity: {note}")
    print(f"{name}: {len(dataset.clips)} clips, {frames} frames -> {out}, {truth}")


def write_clips(name: str, params: Ingest, dataset: RawDataset, clips: Path, labels: Path) -> int:
    """Write all clips and their labels into empty folders and return the number of frames."""
    where = f"params.yaml: ingest.{name}"
    rates = {id(clip): frame_rate(params, dataset, clip, where) for clip in dataset.clips}
    storing = how_to_store(params, dataset)
    info = {
        "dataset": name,
        "ordered": dataset.ordered,
        "source": f"data/raw/{name}",
        "ingest": params.model_dump(),
        "counts": storing.counts,
    }
    total = 0
    with bar(expected(params, dataset.clips), "frames", f"ingest {name}") as progress:
        for clip in dataset.clips:
            path, truth = (clip_file(folder, clip.split, clip.name) for folder in (clips, labels))
            frames = counted(clip.frames(sampling(params)), progress)
            # Only where there are some: a data set without categories says nothing of them.
            about = info | ({"categories": clip.categories} if clip.categories else {})
            known = {"abnormal": clip.abnormal, "unmasked": clip.unmasked}
            known = {key: value for key, value in known.items() if value}
            brought = replace(storing, size=clip.size)
            total += write_clip(path, truth, frames, brought, known, fps=rates[id(clip)], **about)
    for folder in (clips, labels):
        write_manifests(folder)
    return total


def sampling(params: Ingest) -> Sampling:
    """Return which frames are taken."""
    return Sampling(params.fps, params.every, params.rate, params.start, params.end)


def frame_rate(params: Ingest, dataset: RawDataset, clip: RawClip, where: str) -> float | None:
    """Return the frame rate of what is taken of a clip; None for loose images.

    Args:
        where: how to name the parameters in messages.

    Raises:
        UserError: frames in time have none, or loose images are given one.
    """
    in_time = {"fps": params.fps, "rate": params.rate, "end": params.end, "start": params.start or None}
    if not dataset.ordered:
        for name, value in in_time.items():
            if value is not None:
                raise UserError(f"{where}.{name} is {value:g}, but these are loose images without a time; make it null")
        return None
    fps = sampling(params).fps_of(clip.fps)
    if fps is None:
        raise UserError(
            f"{where}.fps is null, but {clip.split}/{clip.name} is a folder of frames, which does not say how many "
            "there are in a second; give it (`--fps` of `vadpipe data add`)"
        )
    return fps


def expected(params: Ingest, clips: Iterable[RawClip]) -> int | None:
    """Return about how many frames will be taken of clips, for progress alone; None where nobody knows."""
    total = 0.0
    for clip in clips:
        if clip.expected is None:
            return None
        fps = params.fps or clip.fps
        seconds = clip.expected / fps if fps else math.inf
        share = max(0.0, min(seconds, params.end or math.inf) - params.start) / seconds if fps else 1.0
        total += clip.expected * share * (params.rate / fps if params.rate and fps else 1 / params.every)
    return round(total)


def notes_of(clip: RawClip) -> list[str]:
    """Return what is odd about a clip that was read, each once: some clips are read twice."""
    return list(dict.fromkeys(clip.notes))


def how_to_store(params: Ingest, dataset: RawDataset) -> Storing:
    """Return how frames are stored; where training frames have 16 bit, with the range that they are scaled by.

    Raises:
        UserError: a training frame cannot be read, or training frames have 8 and 16 bit.
    """
    training = [clip for clip in dataset.clips if clip.split == "train"]
    firsts = [next(clip.frames(sampling(params)), None) for clip in training]
    deep = [first is not None and _counts(first) is not None for first in firsts]
    counts = None
    if any(deep):
        frames = chain.from_iterable(clip.frames(sampling(params)) for clip in training)
        counts = range16(_all_counts(frames))
    return Storing(params.quality, params.side, counts=counts)


def _all_counts(frames: Iterator[Frame]) -> Iterator[Counts]:
    with bar(None, "frames", "range of 16-bit frames") as progress:
        for frame in counted(frames, progress):
            counts = _counts(frame)
            if counts is None:
                raise UserError(f"{frame.name} has 8 bit, but other training frames have 16; give all the same depth")
            yield counts


def _counts(frame: Frame) -> Counts | None:
    """Return the counts of a 16-bit frame, uint16 (H, W), None for one of 8 bit."""
    pixels: Pixels
    if isinstance(frame.image, Path):
        try:
            pixels = read_image(read_bytes(frame.image)).pixels
        except ValueError as error:
            raise UserError(f"{frame.name}: {error}; replace the file or remove its clip") from None
    else:
        pixels = frame.image
    return pixels if pixels.dtype == "uint16" else None  # type: ignore[return-value]
