"""Reader `pool`: photographs of swimming pools, swimmers annotated as in Pascal VOC.

ROOT/train/images/*.jpg         with swimmers, which stage `inpaint` removes
ROOT/train/annotations/*.xml    an annotation an image, of the image's name
ROOT/train_empty/images/*.jpg   known to be empty; no annotations
ROOT/test/images, ROOT/test/annotations, ROOT/test_empty/images    the same

A folder becomes a clip, `swimmers` or `empty`, whose images have no order; where its images have several sizes,
one clip a size, such as `swimmers_1080x1920`. An image without an annotation is kept without label and boxes: it
can be scored, but stage `inpaint` refuses it.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vadpipe.datasets.base import RawClip, RawDataset, check_clips, entries, image_files
from vadpipe.errors import UserError
from vadpipe.store import images
from vadpipe.store.clips import Frame
from vadpipe.store.image_files import header_size

_SPLITS = {
    "train": ("train", "swimmers"),
    "train_empty": ("train", "empty"),
    "test": ("test", "swimmers"),
    "test_empty": ("test", "empty"),
}
_TEXTS = {".txt", ".md"}

Box = dict[str, int]
Boxes = dict[Path, list[Box]]


def scan(root: Path) -> RawDataset:
    """Find the images of a pool data set and check its annotations.

    Raises:
        UserError: a file is stray, an annotation is damaged or fits no image, or two images share a name.
    """
    for path in entries(root):
        if path.name not in _SPLITS and path.suffix.lower() not in _TEXTS:
            raise UserError(f"{path} does not belong to the layout of `pool` ({', '.join(_SPLITS)}); move it elsewhere")
    clips: list[RawClip] = []
    oddities: list[str] = []
    for folder, (split, name) in _SPLITS.items():
        if not (root / folder).is_dir():
            continue
        files = _images(root / folder)
        boxes = {file: [] for file in files} if name == "empty" else _annotations(root / folder, files)
        if len(boxes) < len(files):
            oddities.append(f"{folder}: {len(files) - len(boxes)} of {len(files)} images have no annotation")
        sizes: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            sizes["{}x{}".format(*_size(file))].append(file)
        for size, same in sizes.items():
            clip = name if len(sizes) == 1 else f"{name}_{size}"
            clips.append(RawClip(split, clip, partial(_frames, same, boxes)))
    return RawDataset(check_clips(root, clips), oddities, ordered=False)


def _images(folder: Path) -> list[Path]:
    for path in entries(folder):
        if path.name not in {"images", "annotations"} and path.suffix.lower() not in _TEXTS:
            raise UserError(f"{path} does not belong to the layout of `pool` (images, annotations); move it elsewhere")
    if folder.name.endswith("_empty") and (folder / "annotations").exists():
        raise UserError(
            f"{folder / 'annotations'}: images known to be empty have none; remove it, or use another split"
        )
    files = image_files(folder / "images")
    by_name: dict[str, Path] = {}
    for file in files:
        other = by_name.setdefault(file.stem, file)
        if other != file:
            raise UserError(f"{other} and {file} have one name, so an annotation could mean either; rename one")
    return files


def _annotations(folder: Path, files: list[Path]) -> Boxes:
    """Return the boxes of the images that have an annotation."""
    if not (folder / "annotations").is_dir():
        return {}
    by_name = {file.stem: file for file in files}
    found: Boxes = {}
    for path in entries(folder / "annotations"):
        if path.suffix.lower() != ".xml":
            raise UserError(f"{path} is no annotation (.xml); move it out of the folder")
        if path.stem not in by_name:
            raise UserError(f"{path}: there is no image of this name in {folder / 'images'}; add it or remove the file")
        image = by_name[path.stem]
        found[image] = read_annotation(path, image, _size(image))
    return found


def _size(file: Path) -> images.Size:
    try:
        return header_size(file)
    except ValueError as error:
        raise UserError(f"{file}: {error}; replace the file or remove it") from None


def _frames(files: list[Path], boxes: Boxes) -> Iterator[Frame]:
    for file in files:
        found = boxes.get(file)
        yield Frame(str(file), file, label=None if found is None else int(bool(found)), boxes=found)


def read_annotation(path: Path, image: Path, size: images.Size) -> list[Box]:
    """Return the boxes of a Pascal VOC file (Everingham et al., IJCV 2010), pixels from 0, x_max and y_max exclusive.

    In the file pixels count from 1 and both ends are inside the box. Of an `object` only its own `bndbox` is
    read, not those of its parts; the order of the children does not matter.

    Raises:
        UserError: no XML, of another image size, or a box that is incomplete, inverted or outside the image.
    """
    try:
        root = ET.parse(path).getroot()
    except ET.ParseError as error:
        raise UserError(f"{path} is no valid XML ({error}); write the annotation anew") from None
    if root.tag != "annotation":
        raise UserError(f"{path}: the root is <{root.tag}>, but Pascal VOC has <annotation>; write the annotation anew")
    stated = root.find("size")
    if stated is not None:
        height, width = (_number(path, stated, tag) for tag in ("height", "width"))
        if (height, width) != size[:2]:
            raise UserError(
                f"{path} is for an image of {height}x{width} pixels (height x width), but {image} has "
                f"{size.height}x{size.width}; annotate the image as it is"
            )
    return [_box(path, index, element, size) for index, element in enumerate(root.findall("object"))]


def _box(path: Path, index: int, element: ET.Element, size: images.Size) -> Box:
    where = f"object {index + 1} ({element.findtext('name', 'no name')})"
    box = element.find("bndbox")
    if box is None:
        raise UserError(f"{path}: {where} has no <bndbox>; draw its box or remove it")
    x_min, y_min, x_max, y_max = (_number(path, box, tag) for tag in ("xmin", "ymin", "xmax", "ymax"))
    if x_max < x_min or y_max < y_min:
        raise UserError(
            f"{path}: the box of {where} is inverted ({x_min}, {y_min}) to ({x_max}, {y_max}); swap its ends"
        )
    if x_min < 1 or y_min < 1 or x_max > size.width or y_max > size.height:
        raise UserError(
            f"{path}: the box of {where}, ({x_min}, {y_min}) to ({x_max}, {y_max}), leaves the image, whose pixels go "
            f"from (1, 1) to ({size.width}, {size.height}); correct it"
        )
    return {"track": index, "x_min": x_min - 1, "y_min": y_min - 1, "x_max": x_max, "y_max": y_max}


def _number(path: Path, element: ET.Element, tag: str) -> int:
    text = element.findtext(tag)
    try:
        return int(float(text or ""))
    except (ValueError, OverflowError):
        raise UserError(f"{path}: <{tag}> of <{element.tag}> is {text!r}, no number; correct it") from None
