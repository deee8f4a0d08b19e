"""A synthetic race pool, photographed from the stands: swimmers are the anomaly, the empty pool is normal.

Water, ropes, floor and hall are cast in perspective for one of several cameras; test views are other pools than
those of training. The drawing is in the other modules of this package; here is what is written where.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from pydantic import Field

from vadpipe.parallel import ordered_map
from vadpipe.params import Section
from vadpipe.scenes.arrays import Bools, Bytes
from vadpipe.scenes.pool_demo import seen_views, unseen_views
from vadpipe.scenes.pool_demo.cast import Box
from vadpipe.scenes.pool_demo.scene import take

SPLITS = ("train", "train_empty", "test", "test_empty")
_QUALITY = 92  # of the JPEG files


class Params(Section):
    """Seed, images with swimmers and of the empty pool in both splits, and their size in pixels."""

    seed: int = Field(ge=0)
    train: int = Field(ge=1)
    train_empty: int = Field(ge=0)
    test: int = Field(ge=0)
    test_empty: int = Field(ge=0)
    height: int = Field(ge=90)
    width: int = Field(ge=160)


@dataclass(frozen=True)
class Photograph:
    """A picture and what it shows.

    Attributes:
        name: of the file, without suffix; it begins with the view.
        image: red, green, blue (H, W, 3).
        boxes: x_min, y_min, x_max, y_max in pixels from 0, max exclusive, around what is seen of each swimmer.
        layers: masks (H, W) of "pool", "swimmers", "ropes", "glitter" and "splash".
    """

    name: str
    image: Bytes
    boxes: list[Box]
    layers: dict[str, Bools]


def draw(params: Params, split: str, index: int) -> Photograph:
    """Draw one photograph, which depends on nothing but seed, split, index and size."""
    views = unseen_views.VIEWS if split.startswith("test") else seen_views.VIEWS
    view = views[index % len(views)]
    rng = np.random.default_rng((params.seed, SPLITS.index(split), index))
    taken = take(view, params.seed, rng, (params.height, params.width), split.endswith("_empty"))
    return Photograph(f"{view.name}_{index:03d}", taken.image, taken.boxes, taken.layers)


def write(params: Params, folder: Path) -> None:
    """Write images and annotations into an existing empty `folder`."""
    counts = {split: int(getattr(params, split)) for split in SPLITS}
    jobs = [(split, index) for split, count in counts.items() for index in range(count)]
    for split, count in counts.items():
        if count:
            (folder / split / "images").mkdir(parents=True)
            if not split.endswith("_empty"):
                (folder / split / "annotations").mkdir()

    def work(job: tuple[str, int]) -> None:
        photograph = draw(params, *job)
        _save(photograph, folder / job[0])

    for _ in ordered_map(work, jobs):
        pass


def _save(photograph: Photograph, folder: Path) -> None:
    """Write one image, and its annotation where the folder has room for it.

    Raises:
        OSError: the disk is full.
    """
    file = folder / "images" / f"{photograph.name}.jpg"
    pixels = np.ascontiguousarray(photograph.image[..., ::-1])
    # Not `imwrite`, which does not say why it could not write.
    file.write_bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes())
    if (folder / "annotations").is_dir():
        tree = ElementTree.ElementTree(_annotation(photograph, file.name))
        ElementTree.indent(tree)
        tree.write(folder / "annotations" / f"{photograph.name}.xml", encoding="utf-8")


def _annotation(photograph: Photograph, file: str) -> ElementTree.Element:
    """Return the Pascal VOC annotation, whose pixels count from 1 and whose max is inclusive."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = file
    size = ElementTree.SubElement(root, "size")
    for name, pixels in zip(("height", "width", "depth"), photograph.image.shape, strict=True):
        ElementTree.SubElement(size, name).text = str(pixels)
    for x_min, y_min, x_max, y_max in photograph.boxes:
        thing = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(thing, "name").text = "swimmer"
        box = ElementTree.SubElement(thing, "bndbox")
        for name, edge in (("xmin", x_min + 1), ("ymin", y_min + 1), ("xmax", x_max), ("ymax", y_max)):
            ElementTree.SubElement(box, name).text = str(edge)
    return root
