"""Training images without swimmers: annotated boxes are filled from what surrounds them, on all cores.

Telea, "An Image Inpainting Technique Based on the Fast Marching Method", Journal of Graphics Tools 2004;
Bertalmio, Bertozzi, Sapiro, "Navier-Stokes, Fluid Dynamics, and Image and Video Inpainting", CVPR 2001.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from vadpipe import progress
from vadpipe.errors import UserError
from vadpipe.parallel import ordered_map
from vadpipe.params import Inpaint
from vadpipe.pictures.pools import before_and_after
from vadpipe.store import images, open_clips, open_store
from vadpipe.store.atomic import replacing
from vadpipe.store.base import clip_file, write_manifests
from vadpipe.store.clips import Clip
from vadpipe.store.prepared import INPAINTED, Bools, Prepared, PreparedClip, write_clip

_METHODS = {"telea": cv2.INPAINT_TELEA, "navier_stokes": cv2.INPAINT_NS}
# Beyond the radius OpenCV looks at the neighbours of the pixels that it takes colours from.
_REACH = 4
_SHOWN = 4


class Rect(NamedTuple):
    """A rectangle in pixels; x_max and y_max are exclusive."""

    x_min: int
    y_min: int
    x_max: int
    y_max: int

    def grown(self, by: int, height: int, width: int) -> Rect:
        """Return the rectangle with `by` more pixels on each side, cut to an image."""
        return Rect(
            max(self.x_min - by, 0), max(self.y_min - by, 0), min(self.x_max + by, width), min(self.y_max + by, height)
        )

    def touches(self, other: Rect) -> bool:
        """Return whether two rectangles share a pixel."""
        across = self.x_min < other.x_max and other.x_min < self.x_max
        return across and self.y_min < other.y_max and other.y_min < self.y_max

    def around(self, other: Rect) -> Rect:
        """Return the smallest rectangle that holds both."""
        low = (min(pair) for pair in zip(self[:2], other[:2], strict=True))
        return Rect(*low, *(max(pair) for pair in zip(self[2:], other[2:], strict=True)))

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns of an image."""
        return slice(self.y_min, self.y_max), slice(self.x_min, self.x_max)


Task = tuple[Clip, str, list[Rect], bytes]


def write_inpainted(params: Inpaint, source: Path, truth: Path, out: Path, workers: int | None = None) -> None:
    """Write the images of a clip store, the boxes of training images filled, and `preview.png`.

    Test images and images without boxes keep their bytes.

    Args:
        truth: the label store of the same data set, which holds the boxes.

    Raises:
        UserError: `source` is no clip store, a training image has no annotation or is all box, or the disk is full.
    """
    clips = open_clips(source)
    annotated = {clip.name: clip.column("boxes") for clip in open_store(truth, "labels").clips("train")}
    boxes = {clip.path: training_boxes(clip, annotated.get(clip.name, [])) for clip in clips}
    count, filled = sum(clip.length for clip in clips), sum(map(len, chain(*boxes.values())))
    start = time.perf_counter()
    with replacing(out, folder=True) as folder:
        with progress.bar(count, "images", "inpaint") as bar:
            done = inpainted(_tasks(clips, boxes), params, workers)
            for clip, prepared in groupby(done, key=itemgetter(0)):
                shown = progress.counted(map(itemgetter(1), prepared), bar)
                write_clip(clip_file(folder, clip.split, clip.name), INPAINTED, clip, shown, **params.model_dump())
        write_manifests(folder)
        seconds = time.perf_counter() - start
        (folder / "preview.png").write_bytes(images.encode_png(_preview(clips, boxes, folder, params)))
    print(
        f"inpainted {filled} boxes, {count} images in all, {count / seconds:.1f} images/s -> {out} "
        f"(look at {out}/preview.png)"
    )


def training_boxes(clip: Clip, annotated: list[list[dict[str, int]] | None]) -> list[list[Rect]]:
    """Return the boxes to fill of each image of a clip; none in test clips.

    Args:
        annotated: what is drawn in each image of a training clip, None where nobody looked.

    Raises:
        UserError: a training image has no annotation, so that nobody knows whether it is empty.
    """
    if clip.split != "train":
        return [[] for _ in range(clip.length)]
    found = []
    for name, boxes in zip(clip.column("name"), annotated, strict=True):
        if boxes is None:
            raise UserError(
                f"{name} has no annotation, so that its swimmers cannot be filled; "
                "annotate it, or move it to train_empty if it shows none"
            )
        found.append([Rect(*(box[side] for side in Rect._fields)) for box in boxes])
    return found


def inpainted(tasks: Iterator[Task], params: Inpaint, workers: int | None = None) -> Iterator[tuple[Clip, Prepared]]:
    """Yield the images of clips with their boxes filled.

    Raises:
        UserError: the boxes of an image, grown by the margin, leave nothing to fill them from.
    """

    def work(task: Task) -> tuple[Clip, Prepared]:
        clip, name, boxes, data = task
        if not boxes:
            return clip, Prepared(name, data)
        image = images.decode_as_stored(data)
        grown = [box.grown(params.margin, *image.shape[:2]) for box in boxes]
        image, filled = fill(image, grown, params)
        if filled.all():
            raise UserError(
                f"{name}: its boxes and a margin of {params.margin} pixels cover all of it, so that there is nothing "
                "to fill it from; correct the annotation, lower inpaint.margin, or remove the image"
            )
        return clip, Prepared(name, images.encode_png(image), filled)

    # Images, not pixels, are what the cores share.
    cv2.setNumThreads(1)
    yield from ordered_map(work, tasks, workers)


def fill(image: images.Image, boxes: list[Rect], params: Inpaint) -> tuple[images.Image, Bools]:
    """Return the image, uint8 (H, W, 3) or (H, W), with its boxes filled, and the filled pixels, bool (H, W).

    OpenCV works on the whole image whatever there is to fill. So each group of boxes is filled in a crop that
    holds all it is filled from; the result is that of the whole image.
    """
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    for box in boxes:
        mask[box.slices] = 1
    out = image.copy()
    # Rounded as OpenCV does, which takes at least a pixel and at most 100.
    reach = min(max(round(params.radius), 1), 100) + _REACH
    for crop in groups([box.grown(reach, height, width) for box in boxes]):
        part = cv2.inpaint(image[crop.slices], mask[crop.slices], params.radius, _METHODS[params.method])
        out[crop.slices] = part
    return out, mask > 0


def groups(boxes: list[Rect]) -> list[Rect]:
    """Return rectangles that touch each other nowhere and hold all of `boxes`."""
    apart: list[Rect] = []
    for box in boxes:
        merged = box
        while near := [other for other in apart if merged.touches(other)]:
            for other in near:
                apart.remove(other)
                merged = merged.around(other)
        apart.append(merged)
    return apart


def _tasks(clips: list[Clip], boxes: dict[Path, list[list[Rect]]]) -> Iterator[Task]:
    for clip in clips:
        data = chain.from_iterable(clip.encoded())
        for name, found, image in zip(clip.column("name"), boxes[clip.path], data, strict=True):
            yield clip, name, found, image


def _preview(clips: list[Clip], boxes: dict[Path, list[list[Rect]]], folder: Path, params: Inpaint) -> images.Image:
    with_boxes = [(clip, index) for clip in clips for index, found in enumerate(boxes[clip.path]) if found]
    # Nothing was filled: an image that stayed as it was says so.
    candidates = with_boxes or [(clips[0], 0)]
    pairs = []
    for place in np.unique(np.linspace(0, len(candidates) - 1, _SHOWN).astype(int)):
        clip, index = candidates[place]
        before = clip.frame(index)
        after = PreparedClip(folder / clip.split / f"{clip.name}.parquet").frame(index)
        filled = np.zeros(before.shape[:2], bool)
        for box in boxes[clip.path][index]:
            filled[box.grown(params.margin, *filled.shape).slices] = True
        pairs.append((before, after, filled))
    return before_and_after(pairs)
