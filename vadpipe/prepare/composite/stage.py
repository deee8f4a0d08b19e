"""The composite store of a data set: training clips beside copies into which virtual anomalies were pasted.

As the self-distilled masked autoencoder trains with (Ristea et al., CVPR 2024, section 3.4): objects of UBnormal's
abnormal training videos (Acsintoae et al., CVPR 2022), cut out by their id maps, pasted frame by frame. Test clips
stay as they are.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from vadpipe import progress
from vadpipe.errors import UserError
from vadpipe.machine import check_disk, keep_freed_memory
from vadpipe.parallel import ordered_map
from vadpipe.params import Composite as Params
from vadpipe.pictures.composites import contact_sheet
from vadpipe.prepare.composite.cutting import Sequence, cut_source
from vadpipe.prepare.composite.pasting import AS_IT_IS, Tone, levels, matched, pasted
from vadpipe.prepare.composite.planning import Placed, Target, plan
from vadpipe.prepare.composite.walkers import Walkers, by_clip, observe
from vadpipe.store import images, open_clips
from vadpipe.store.atomic import replacing
from vadpipe.store.base import clip_file, write_manifests
from vadpipe.store.clips import Clip
from vadpipe.store.composites import Composite, CompositeClip, write_clip

_SHOWN = 4  # clips of the preview
_PACKED = 0.7  # bytes a PNG takes of one of the pixels, at most


class Task(NamedTuple):
    """A row group of a clip: names and encoded frames, and what is pasted into each."""

    clip: Clip
    names: list[str]
    data: list[bytes]
    placed: list[list[Placed]]


@dataclass(frozen=True)
class Work:
    """What is pasted into the training clips, by their paths, and how it is toned."""

    plans: dict[Path, list[list[Placed]]]
    tones: dict[Path, Tone]


def write_composites(params: Params, source: Path, out: Path, workers: int | None = None) -> None:
    """Write the composite store of a clip store, and `preview.png`.

    Raises:
        UserError: `source` is no clip store or holds loose images, the source of anomalies lacks a part of its layout,
            training shows nobody on foot where places or scales are taken from people, no sequence fits, or the disk is
            full.
    """
    clips = open_clips(source)
    if not clips[0].info["ordered"]:
        raise UserError(f"{source} holds loose images, which nothing moves through; remove it from `composite`")
    chosen = _chosen([clip for clip in clips if clip.split == "train"], params)
    size = sum(path.stat().st_size for path in source.rglob("*.parquet"))
    check_disk(out, size + sum(_PACKED * _pixels(clip) for clip in chosen), "lower its share, or free some")
    sequences = cut_source(Path(params.source))
    work = _planned(chosen, sequences, params)
    start, count = time.perf_counter(), sum(clip.length for clip in clips)
    with replacing(out, folder=True) as folder:
        with progress.bar(count, "frames", "composite") as bar:
            for clip, made in groupby(composited(clips, work, params, workers), key=itemgetter(0)):
                path = clip_file(folder, clip.split, clip.name)
                shown = progress.counted(map(itemgetter(1), made), bar)
                write_clip(path, clip, shown, composite=params.model_dump())
        write_manifests(folder)
        seconds = time.perf_counter() - start
        written = [CompositeClip(clip_file(folder, clip.split, clip.name)) for clip in chosen]
        (folder / "preview.png").write_bytes(images.encode_png(contact_sheet(written[:_SHOWN])))
    objects = sum(len(placed) for placed in chain(*work.plans.values()))
    frames = sum(map(bool, chain(*work.plans.values())))
    print(
        f"pasted {objects} cutouts of {len(sequences)} sequences into {frames} frames of {len(chosen)} training clips, "
        f"{count / seconds:.1f} frames/s -> {out} (look at {out}/preview.png)"
    )


def composited(
    clips: list[Clip], work: Work, params: Params, workers: int | None = None
) -> Iterator[tuple[Clip, Composite]]:
    """Yield the frames of clips, those of training with what is pasted into them; a row group is a piece of work."""

    def make(task: Task) -> list[tuple[Clip, Composite]]:
        made = []
        for name, data, placed in zip(task.names, task.data, task.placed, strict=True):
            if not placed:
                made.append((task.clip, Composite(name, data)))
                continue
            frame = images.decode_as_stored(data)
            tone = work.tones[task.clip.path] if params.grey or frame.ndim == 2 else None
            composite, shown = pasted(frame, placed, tone, params.edge)
            origins = [one.origin for one in placed]
            made.append(
                (task.clip, Composite(name, data, images.encode_png(composite), images.encode_mask(shown), origins))
            )
        return made

    # Frames, not pixels, are what the cores share; threads that ask for memory anew wait for each other.
    cv2.setNumThreads(1)
    keep_freed_memory()
    yield from chain.from_iterable(ordered_map(make, _tasks(clips, work), workers))


def _tasks(clips: list[Clip], work: Work) -> Iterator[Task]:
    for clip in clips:
        placed = work.plans.get(clip.path) or [[]] * clip.length
        names, first = clip.column("name"), 0
        for data in clip.encoded():
            part = slice(first, first + len(data))
            yield Task(clip, names[part], data, placed[part])
            first += len(data)


def _chosen(clips: list[Clip], params: Params) -> list[Clip]:
    """Return the clips that are pasted into: a share of them, by their names alone, whatever their order."""
    drawn = sorted(clips, key=lambda clip: _generator(clip, params).random())
    kept = drawn[: max(1, round(params.share * len(clips)))]
    return sorted(kept, key=lambda clip: clip.name)


def _planned(clips: list[Clip], sequences: list[Sequence], params: Params) -> Work:
    people = [None] * len(clips) if _needs_nobody(clips, params) else by_clip(list(ordered_map(observe, clips)))
    objects = levels(sequences)
    plans, tones = {}, {}
    for clip, walkers in zip(clips, people, strict=True):
        tones[clip.path] = AS_IT_IS if walkers is None else matched(objects, walkers)
        generator = _generator(clip, params)
        generator.random()  # was drawn to choose the clip
        plans[clip.path] = plan(_target(clip, walkers, params), sequences, params, generator)
    return Work(plans, tones)


def _needs_nobody(clips: list[Clip], params: Params) -> bool:
    """Return whether nothing is taken from the people of the training clips: neither place nor scale nor brightness."""
    coloured = not params.grey and all(clip.info["channels"] == 3 for clip in clips)
    return params.place == "source" and params.scale == "source" and coloured


def _target(clip: Clip, walkers: Walkers | None, params: Params) -> Target:
    asked = params.place == "ground" or params.scale == "person"
    if asked and (walkers is None or walkers.few):
        raise UserError(
            f"{clip.path} and the other training clips show too few people on foot to tell where they walk and how "
            "tall they are; set `place: source` and `scale: source` in composite of params.yaml"
        )
    ground = walkers.ground() if walkers is not None and params.place == "ground" else None
    typical = walkers.typical() if walkers is not None and params.scale == "person" else None
    size = clip.info["height"], clip.info["width"]
    return Target(clip.name, clip.length, clip.info["fps"], size, ground, typical)


def _generator(clip: Clip, params: Params) -> np.random.Generator:
    return np.random.default_rng((params.seed, zlib.crc32(clip.name.encode())))


def _pixels(clip: Clip) -> int:
    return int(clip.length * clip.info["height"] * clip.info["width"] * clip.info["channels"])
