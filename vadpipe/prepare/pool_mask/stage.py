"""The pools of a store of inpainted images, on all cores."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path

import cv2
import numpy as np

from vadpipe import progress
from vadpipe.parallel import ordered_map
from vadpipe.params import PoolMask
from vadpipe.pictures import pools as pictures
from vadpipe.prepare.pool_mask.find import Pool, find_pool
from vadpipe.store import images, open_store
from vadpipe.store.atomic import replacing
from vadpipe.store.base import clip_file, write_manifests
from vadpipe.store.prepared import INPAINTED, POOLS, Prepared, PreparedClip, write_clip

_SHOWN = 8
_NAMED = 3


def write_pools(params: PoolMask, source: Path, out: Path, workers: int | None = None) -> None:
    """Write the images of an inpainted store with the region of the pool, and `preview.png`.

    Says of each clip in how many images no pool was found, so that their region is the whole image.

    Raises:
        UserError: `source` is no inpainted store, or the disk is full.
    """
    clips: list[PreparedClip] = open_store(source, INPAINTED).all_clips()
    count = sum(clip.length for clip in clips)
    fallbacks: list[str] = []
    samples: list[tuple[PreparedClip, int, Pool]] = []
    start = time.perf_counter()
    with replacing(out, folder=True) as folder:
        with progress.bar(count, "images", "pool_mask") as bar:
            done = progress.counted(pools(clips, params, workers), bar)
            for clip in clips:
                lost: list[str] = []
                found = _noted(clip, islice(done, clip.length), lost, samples)
                # Written as they come, while the next ones are looked for.
                write_clip(
                    clip_file(folder, clip.split, clip.name), POOLS, clip, _prepared(clip, found), **params.model_dump()
                )
                if lost:
                    fallbacks.append(_fallback(clip, lost))
        write_manifests(folder)
        seconds = time.perf_counter() - start
        chosen = [samples[index] for index in _spread(len(samples), _SHOWN)]
        (folder / "preview.png").write_bytes(images.encode_png(_preview(chosen)))
    print("".join(f"{line}\n" for line in fallbacks), end="")
    print(f"pools of {count} images, {count / seconds:.1f} images/s -> {out} (look at {out}/preview.png)")


def pools(clips: Iterable[PreparedClip], params: PoolMask, workers: int | None = None) -> Iterator[Pool]:
    """Yield the pool of each image of clips."""
    # Images, not pixels, are what the cores share; they are looked at in many small steps, so not in threads.
    cv2.setNumThreads(1)
    data = chain.from_iterable(group for clip in clips for group in clip.encoded())
    yield from ordered_map(partial(_find, params), data, workers, processes=True)


def _find(params: PoolMask, data: bytes) -> Pool:
    return find_pool(images.decode(data), params)


def _noted(
    clip: PreparedClip, found: Iterable[Pool], lost: list[str], samples: list[tuple[PreparedClip, int, Pool]]
) -> Iterator[Pool]:
    """Yield the pools of a clip, note the names of images without one, and keep some for the preview."""
    shown = _spread(clip.length, _SHOWN)
    for index, (name, pool) in enumerate(zip(clip.column("name"), found, strict=True)):
        if pool.confidence == 0:
            lost.append(name)
        if index in shown:
            samples.append((clip, index, pool))
        yield pool


def _prepared(clip: PreparedClip, found: Iterable[Pool]) -> Iterator[Prepared]:
    data = chain.from_iterable(clip.encoded())
    columns = zip(clip.column("name"), data, clip.column("filled"), found, strict=True)
    for name, image, filled, pool in columns:
        area = None if filled is None else images.decode_grey(filled) > 0
        yield Prepared(name, image, area, pool.region, pool.confidence)


def _fallback(clip: PreparedClip, names: list[str]) -> str:
    more = ", ..." if len(names) > _NAMED else ""
    return (
        f"no pool was found in {len(names)} of {clip.length} images of {clip.split}/{clip.name}, "
        f"so their region is the whole image: {', '.join(names[:_NAMED])}{more}"
    )


def _spread(length: int, count: int) -> list[int]:
    return [int(index) for index in np.unique(np.linspace(0, length - 1, count).astype(int))] if length else []


def _preview(chosen: list[tuple[PreparedClip, int, Pool]]) -> images.Image:
    tiles = []
    for clip, index, pool in chosen:
        caption = f"{clip.split}/{clip.name} {index}: {pool.technique}, confidence {pool.confidence:.2f}"
        hulls = pool.hulls
        tiles.append(pictures.Found(clip.frame(index), pool.region, hulls.get("water"), hulls.get("lanes"), caption))
    return pictures.pools(tiles)
