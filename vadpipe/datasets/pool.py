"""Reader `pool`: photographs of swimming pools, swimmers annotated as in Pascal VOC.

ROOT/train/images/*.jpg         with swimmers, which stage `inpaint` removes
ROOT/train/annotations/*.xml    an annotation an image, of the image's name
ROOT/train_empty/images/*.jpg   known to be empty; no annotations
ROOT/test/images, ROOT/test/annotations, ROOT/test_empty/images    the same

A folder becomes a clip, `swimmers` or `empty`, whose images have no order; where its images have several sizes,
one clip a size, such as `swimmers_1080x1920`. An image without an annotation is kept without label and boxes: it
can be scored, but stage `inpaint` refuses it. Boxes are in pixels of the image as a viewer shows it, turned as EXIF
says. Every object is abnormal, those marked as difficult too, unless names of objects are chosen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vadpipe.datasets.base import RawClip, RawDataset, check_clips
from vadpipe.datasets.files import entries, image_files, layout
from vadpipe.datasets.labels import image_size
from vadpipe.datasets.sources import refuse_sampling
from vadpipe.datasets.voc import Object, read_annotation
from vadpipe.errors import UserError, did_you_mean
from vadpipe.store.frames import Frame
from vadpipe.store.sampling import Sampling

_SPLITS = {
    "train": ("train", "swimmers"),
    "train_empty": ("train", "empty"),
    "test": ("test", "swimmers"),
    "test_empty": ("test", "empty"),
}

Objects = dict[Path, list[Object]]


def scan(root: Path, objects: list[str] | None = None) -> RawDataset:
    """Find the images of a pool data set and check its annotations.

    Args:
        objects: names of the objects that count; the others are as if they were not annotated. None: all count.

    Raises:
        UserError: a file is stray, an annotation is damaged or fits no image, two images share a name, or no object
            has one of the names.
    """
    clips: list[RawClip] = []
    oddities: list[str] = []
    found: Objects = {}
    for folder, path in layout(root, "`pool`", set(_SPLITS), set()).items():
        split, name = _SPLITS[folder]
        files, annotations = _images(path)
        if name == "empty":
            known: Objects = {file: [] for file in files}
        else:
            known = _annotations(annotations, files) if annotations else {}
        if len(known) < len(files):
            oddities.append(f"{folder}: {len(files) - len(known)} of {len(files)} images have no annotation")
        found |= known
        sizes: dict[str, list[Path]] = defaultdict(list)
        for file in files:
            size = image_size(file)
            sizes[f"{size.height}x{size.width}"].append(file)
        for text, same in sizes.items():
            clip = name if len(sizes) == 1 else f"{name}_{text}"
            clips.append(RawClip(split, clip, partial(_frames, same, known, objects), expected=len(same)))
    oddities += [*_names(root, found, objects), *_remarks(found)]
    return RawDataset(check_clips(root, clips), oddities, ordered=False)


def _images(folder: Path) -> tuple[list[Path], Path | None]:
    """Return the images of a folder, and where their annotations lie."""
    found = layout(folder, "`pool`", {"images", "annotations"}, set())
    annotations = found.get("annotations")
    if folder.name.endswith("_empty") and annotations:
        raise UserError(f"{annotations}: images known to be empty have none; remove it, or use another split")
    files = image_files(folder / "images")
    by_name: dict[str, Path] = {}
    for file in files:
        other = by_name.setdefault(file.stem, file)
        if other != file:
            raise UserError(f"{other} and {file} have one name, so an annotation could mean either; rename one")
    return files, annotations


def _annotations(folder: Path, files: list[Path]) -> Objects:
    """Return the objects of the images that have an annotation."""
    by_name = {file.stem: file for file in files}
    found: Objects = {}
    for path in entries(folder):
        if path.suffix.lower() != ".xml" or path.is_dir():
            raise UserError(f"{path} is no annotation (.xml); move it out of the folder")
        if path.stem not in by_name:
            raise UserError(f"{path}: there is no image of this name in {files[0].parent}; add it or remove the file")
        image = by_name[path.stem]
        found[image] = read_annotation(path, image, image_size(image))
    return found


def _names(root: Path, found: Objects, chosen: list[str] | None) -> list[str]:
    """Check the chosen names; tell which there are if there are several, or what is left out."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for file, objects in found.items():
        counts[file.parent.parent.name].update(one.name for one in objects)
    names = {name for counter in counts.values() for name in counter}
    for name in chosen or []:
        if name not in names:
            raise UserError(f"{root}: no object is named '{name}'{did_you_mean(name, names)}")
    told, what = names - set(chosen or []), " left out, since `objects` names others"
    if chosen is None:
        told, what = names if len(names) > 1 else set(), "; all count, unless `objects` names those that do"
    listed = {
        split: ", ".join(f"{name} {counter[name]}" for name in sorted(counter) if name in told)
        for split, counter in counts.items()
    }
    return [f"{split}: objects: {line}{what}" for split, line in listed.items() if line]


def _remarks(found: Objects) -> list[str]:
    objects = [one for several in found.values() for one in several]
    difficult, cut = sum(one.difficult for one in objects), sum(one.cut for one in objects)
    remarks = []
    if difficult:
        remarks.append(f"objects marked as difficult, which count as the others: {difficult}")
    if cut:
        remarks.append(f"boxes cut at the edge of their image, which they cross by one pixel, or counted from 0: {cut}")
    return remarks


def _frames(files: list[Path], known: Objects, chosen: list[str] | None, sampling: Sampling) -> Iterator[Frame]:
    refuse_sampling(files[0].parent, sampling)
    for file in files:
        objects = known.get(file)
        if objects is None:
            yield Frame(str(file), file)
        else:
            boxes = [one.box._asdict() for one in objects if chosen is None or one.name in chosen]
            yield Frame(str(file), file, label=int(bool(boxes)), boxes=boxes)
