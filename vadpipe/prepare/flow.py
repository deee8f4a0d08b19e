"""Dense optical flow between consecutive frames, on all cores."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np

from vadpipe import progress
from vadpipe.errors import UserError
from vadpipe.machine import check_disk
from vadpipe.parallel import ordered_map
from vadpipe.params import Flow
from vadpipe.pictures.flow import preview
from vadpipe.store import images, open_clips
from vadpipe.store.atomic import replacing
from vadpipe.store.base import clip_file, write_manifests
from vadpipe.store.clips import Clip
from vadpipe.store.flow import BYTES, FlowField, write_clip

_PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}
# Farnebäck (2003) with the values of OpenCV's own example.
_FARNEBACK = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}

# Pixels a side, below which DIS finds no level to begin at.
_SMALLEST = 12

Estimator = Callable[[images.Image, images.Image], np.ndarray]


def write_flow(params: Flow, source: Path, out: Path) -> None:
    """Write the flow store of a clip store, with a colour-wheel picture `preview.png` of its first test clip.

    Raises:
        UserError: `source` is no clip store, its frames have no order, or the disk is full.
    """
    clips = open_clips(source)
    if not clips[0].info["ordered"]:
        raise UserError(f"{source} holds loose images, between which there is no motion; remove it from `flow`")
    check_sizes(clips, params.scale)
    points = sum(clip.length * math.prod(_grid(clip, params.scale)) for clip in clips)
    check_disk(out, points * BYTES, "lower its scale, or free some")
    with replacing(out, folder=True) as folder:
        with progress.bar(sum(clip.length for clip in clips), "frames", "flow") as bar:
            for clip, chunks in groupby(flows(clips, params), key=itemgetter(0)):
                write_clip(
                    clip_file(folder, clip.split, clip.name),
                    progress.advancing(map(itemgetter(1), chunks), bar),
                    *_grid(clip, params.scale),
                    frame_height=clip.info["height"],
                    frame_width=clip.info["width"],
                    **(clip.origin | params.model_dump()),
                )
        write_manifests(folder)
        # Between the frames of a clip of one there is nothing to show.
        shown = next((clip for clip in reversed(clips) if clip.length > 1), None)
        if shown is not None:
            images_and_flow = preview(shown, folder / shown.split / f"{shown.name}.parquet")
            (folder / "preview.png").write_bytes(images.encode_png(images_and_flow))
    print(f"flow of {len(clips)} clips -> {out}{f' (look at {out}/preview.png)' if shown else ''}")


def check_sizes(clips: list[Clip], scale: float) -> None:
    """Refuse clips that are too small at a scale.

    Raises:
        UserError: the clip is named.
    """
    for clip in clips:
        height, width = _grid(clip, scale)
        if min(height, width) < _SMALLEST:
            raise UserError(
                f"{clip.path}: its flow at scale {scale:g} would be {height}x{width} pixels, but DIS needs {_SMALLEST} "
                f"on each side; raise flow.{clip.info['dataset']}.scale in params.yaml"
            )


def flows(clips: list[Clip], params: Flow, workers: int | None = None) -> Iterator[tuple[Clip, list[FlowField | None]]]:
    """Yield the flow of clips, a row group at a time: float16 (h, w, 2) in pixels of the frame a frame.

    The first frame of a clip has None. A row group is one piece of work for a thread: it decodes its frames
    and the one before, so that hardly a frame is decoded twice. The cores go on with the next clip while
    the last piece of one is computed.
    """
    local = threading.local()

    def work(task: tuple[Clip, list[bytes]]) -> tuple[Clip, list[FlowField | None]]:
        clip, group = task
        if not hasattr(local, "estimate"):
            local.estimate = _estimator(params)
        height, width = _grid(clip, params.scale)
        # Vectors are stored in pixels of the clip's frames, so that thresholds do not depend on `scale`.
        unit = np.array([clip.info["width"] / width, clip.info["height"] / height], np.float32)
        greys = [_resized(images.decode_grey(data), height, width) if data else None for data in group]
        return clip, [
            None if before is None or now is None else (local.estimate(before, now) * unit).astype(np.float16)
            for before, now in pairwise(greys)
        ]

    # Frames, not pixels, are what the cores share: OpenCV's own threads would only stand in the way.
    cv2.setNumThreads(1)
    yield from ordered_map(work, ((clip, group) for clip in clips for group in _with_predecessor(clip)), workers)


def _with_predecessor(clip: Clip) -> Iterator[list[bytes]]:
    last = b""
    for group in clip.encoded():
        yield [last, *group]
        last = group[-1]


def _estimator(params: Flow) -> Estimator:
    """Return a flow estimator for one thread (DIS keeps buffers inside)."""
    if params.algorithm == "farneback":
        return lambda before, now: cv2.calcOpticalFlowFarneback(before, now, None, **_FARNEBACK)  # type: ignore
    dis = cv2.DISOpticalFlow.create(_PRESETS[params.preset])
    return lambda before, now: dis.calc(before, now, None)  # type: ignore[call-overload]


def _grid(clip: Clip, scale: float) -> tuple[int, int]:
    return round(clip.info["height"] * scale), round(clip.info["width"] * scale)


def _resized(image: images.Image, height: int, width: int) -> images.Image:
    if image.shape == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]
