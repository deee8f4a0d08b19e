"""Pascal VOC annotations (Everingham et al., IJCV 2010) as labelImg, CVAT, Roboflow and others write them."""

from __future__ import annotations

import codecs
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vadpipe.datasets.labels import Box
from vadpipe.errors import UserError
from vadpipe.files import read_bytes
from vadpipe.store import images
from vadpipe.store.image_files import read_image

# Chinese tools declare the small set and write characters of the large one.
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030"}
_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?encoding\s*=\s*["']([A-Za-z0-9._:-]+)["']""")
_DECLARATION = re.compile(r"^\s*<\?xml.*?\?>", re.DOTALL)
NO_NAME = "(no name)"


@dataclass(frozen=True)
class Object:
    """An annotated object.

    Attributes:
        name: what it is.
        box: pixels of the image as a viewer shows it.
        difficult: whether the annotator marked it as hard to see.
        cut: whether the box was cut to the image.
    """

    name: str
    box: Box
    difficult: bool
    cut: bool


def read_annotation(path: Path, image: Path, size: images.Size) -> list[Object]:
    """Return the objects of a file.

    Pixels count from 1 and both ends are inside the box. Some tools count from 0 or write fractions: a box may reach
    one pixel beyond the image and is cut to it, and fractions are widened to whole pixels. Of an `object` only its own
    `bndbox` is read, not those of its parts; the order of the children does not matter. A size of 0, or none, is
    unknown. The track of a box is the position of its object.

    Args:
        path: the annotation.
        image: the image that it is for, of `size` as a viewer shows it (turned as EXIF says).

    Raises:
        UserError: no XML, of another image size, or a box that is incomplete, inverted or outside the image.
    """
    root = _root(path)
    if root.tag != "annotation":
        raise UserError(f"{path}: the root is <{root.tag}>, but Pascal VOC has <annotation>; write the annotation anew")
    _check_size(path, root, image, size)
    return [_object(path, index, element, size) for index, element in enumerate(root.findall("object"))]


def _root(path: Path) -> ET.Element:
    text = _text(path)
    # Entities can grow a small file to gigabytes; Pascal VOC needs none.
    if re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise UserError(f"{path} defines a document type or entities, which Pascal VOC has not; write it anew")
    try:
        return ET.fromstring(text)
    except ET.ParseError as error:
        raise UserError(f"{path} is no valid XML ({error}); write the annotation anew") from None


def _text(path: Path) -> str:
    """Return the text without its XML declaration, decoded as that says (expat knows four encodings only)."""
    data = read_bytes(path)
    declared = _DECLARED.match(data.removeprefix(codecs.BOM_UTF8))
    encoding = declared[1].decode().lower() if declared else "utf-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = data.decode(_WIDER.get(encoding, encoding))
    except LookupError:
        raise UserError(f"{path} declares the encoding '{encoding}', which is not known; save it as UTF-8") from None
    except UnicodeError:
        raise UserError(f"{path} is no text in {encoding}; save it as UTF-8, or declare its encoding") from None
    return _DECLARATION.sub("", text.removeprefix("\ufeff"), count=1)


def _check_size(path: Path, root: ET.Element, image: Path, size: images.Size) -> None:
    stated = root.find("size")
    if stated is None:
        return
    if not (stated.findtext("height") and stated.findtext("width")):
        return
    height, width = (int(value) for value in _numbers(path, stated, "height", "width"))
    if not height or not width or (height, width) == size[:2]:
        return
    turned = next((note for note in _notes(image) if "EXIF" in note), None)
    if turned and (width, height) == size[:2]:
        raise UserError(
            f"{path} is for an image of {height}x{width} pixels (height x width), but {image} is {turned}, so that it "
            f"is shown as {size.height}x{size.width}; annotate it as a viewer shows it, or remove the orientation"
        )
    raise UserError(
        f"{path} is for an image of {height}x{width} pixels (height x width), but {image} has "
        f"{size.height}x{size.width}; annotate the image as it is"
    )


def _notes(image: Path) -> frozenset[str]:
    try:
        return read_image(read_bytes(image)).notes
    except ValueError:
        return frozenset()  # what is damaged is told when the image itself is read


def _object(path: Path, index: int, element: ET.Element, size: images.Size) -> Object:
    name = (element.findtext("name") or "").strip() or NO_NAME
    where = f"object {index + 1} ({name})"
    box = element.find("bndbox")
    if box is None:
        raise UserError(f"{path}: {where} has no <bndbox>; draw its box or remove it")
    # A fraction of a pixel before the edge, as tools write that drag boxes, is the edge.
    x_min, y_min = (
        math.floor(value if value <= -1 else max(value, 0)) for value in _numbers(path, box, "xmin", "ymin")
    )
    x_max, y_max = (math.ceil(value) for value in _numbers(path, box, "xmax", "ymax"))
    if x_max < x_min or y_max < y_min:
        raise UserError(
            f"{path}: the box of {where} is inverted ({x_min}, {y_min}) to ({x_max}, {y_max}); swap its ends"
        )
    found = Box(index, x_min - 1, y_min - 1, x_max, y_max)
    within = found.within(size.height, size.width)
    if within is None:
        raise UserError(
            f"{path}: the box of {where}, ({x_min}, {y_min}) to ({x_max}, {y_max}), leaves the image, whose pixels go "
            f"from (1, 1) to ({size.width}, {size.height}); correct it"
        )
    difficult = (element.findtext("difficult") or "").strip() == "1"
    return Object(name, within, difficult, within != found)


def _numbers(path: Path, element: ET.Element, *tags: str) -> Iterator[float]:
    for tag in tags:
        text = element.findtext(tag)
        try:
            number = float(text or "")
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{path}: <{tag}> of <{element.tag}> is {text!r}, no number; correct it")
        yield number
