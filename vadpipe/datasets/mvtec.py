"""Reader `mvtec`: images of products in the layout of MVTec AD (Bergmann et al., CVPR 2019), one category or many.

ROOT/CATEGORY/train/good/000.png ...
ROOT/CATEGORY/test/good/000.png ...    ROOT/CATEGORY/test/DEFECT/000.png ...
ROOT/CATEGORY/ground_truth/DEFECT/000_mask.png ...    not zero = abnormal; also 000.png

ROOT may be the folder of a single category. A folder of images becomes a clip, such as `bottle_broken_large`, whose
images have no order; several categories become categories of the data set. Masks are paired by name. Where an image
with a defect has no mask, or one of another size, those of its whole category are left out, and said so: pixel figures
over the others would not be those of the set. Images of several sizes are brought to one: the median height and width
of the category's training images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median_high

from vadpipe.datasets.base import RawClip, RawDataset, check_clips, safe_name
from vadpipe.datasets.files import TEXT_SUFFIXES, entries, image_files, layout
from vadpipe.datasets.labels import image_size
from vadpipe.datasets.sources import refuse_sampling
from vadpipe.errors import UserError
from vadpipe.store.frames import Frame
from vadpipe.store.sampling import Sampling

_GOOD = "good"
_PARTS = {"train", "test", "ground_truth"}

Masks = Mapping[Path, Path]
Size = tuple[int, int]


def scan(root: Path) -> RawDataset:
    """Find the images of all categories and pair their masks.

    Raises:
        UserError: a folder is missing or stray, a mask belongs to no image, or two images share a name.
    """
    folders = _categories(root)
    clips: list[RawClip] = []
    oddities: list[str] = []
    for category, folder in folders.items():
        found, told = _category(folder, category if len(folders) > 1 else None)
        clips += found
        oddities += told
    return RawDataset(check_clips(root, clips), oddities, ordered=False)


def _categories(root: Path) -> dict[str, Path]:
    found = entries(root)
    if any(path.name in _PARTS for path in found):
        return {safe_name(root.name): root}
    folders = [path for path in found if path.is_dir()]
    for path in found:
        if not path.is_dir() and path.suffix.lower() not in TEXT_SUFFIXES:
            raise UserError(f"{path} does not belong to the layout of `mvtec`, a folder a category; move it elsewhere")
    if not folders:
        raise UserError(f"{root} holds no category: a folder with train/good and test; give the folder that holds them")
    named = {safe_name(path.name): path for path in folders}
    if len(named) < len(folders):
        raise UserError(f"{root}: two categories have one name once it is written in letters, digits, _ and -")
    return named


def _category(folder: Path, category: str | None) -> tuple[list[RawClip], list[str]]:
    """Return the clips of a category and what is odd about them; None = the only one."""
    parts = layout(folder, "`mvtec`", _PARTS, set())
    for split in ("train", "test"):
        if split not in parts or not (parts[split] / _GOOD).is_dir():
            raise UserError(f"{folder} has no {split}/{_GOOD}, the images without a defect; a category needs them")
    stray = [path for path in entries(parts["train"]) if path.name != _GOOD]
    if stray:
        raise UserError(f"{stray[0]}: training has images without a defect alone, in train/{_GOOD}; move it to test")
    kinds = {"train": {_GOOD: image_files(parts["train"] / _GOOD)}, "test": {}}
    kinds["test"] = {path.name: image_files(path) for path in entries(parts["test"])}
    sizes = {file: _size(file) for of_split in kinds.values() for files in of_split.values() for file in files}
    masks, unmasked = _masks(parts.get("ground_truth"), kinds["test"], sizes)
    size, told = _common(kinds["train"][_GOOD], sizes)
    clips = []
    for split, of_split in kinds.items():
        for kind, files in of_split.items():
            name = safe_name(kind if category is None else f"{category}_{kind}")
            frames = partial(_frames, files, masks, int(kind != _GOOD))
            own = () if category is None else (category,)
            why = unmasked if split == "test" else None
            clips.append(RawClip(split, name, frames, None, len(files), own, size=size, unmasked=why))
    return clips, [f"{folder.name}: {oddity}" for oddity in [*([unmasked] if unmasked else []), *told]]


def _size(path: Path) -> Size:
    height, width, _ = image_size(path)
    return height, width


def _common(training: Sequence[Path], sizes: Mapping[Path, Size]) -> tuple[Size | None, list[str]]:
    """Return the size that images of several sizes are brought to, and what is said of it."""
    different = set(sizes.values())
    if len(different) == 1:
        return None, []
    height, width = (median_high(sides) for sides in zip(*(sizes[file] for file in training), strict=True))
    return (height, width), [
        f"its images have {len(different)} sizes; all are brought to {height}x{width} (height x width), the median of "
        "the training images"
    ]


def _masks(
    folder: Path | None, tests: Mapping[str, Sequence[Path]], sizes: Mapping[Path, Size]
) -> tuple[Masks, str | None]:
    """Return the mask of each image that has one, or, where the set is not whole, none, and why."""
    if folder is None:
        return {}, "there is no ground_truth: no pixel figures are given"
    found: dict[Path, Path] = {}
    for kind in entries(folder):
        if kind.name not in tests:
            raise UserError(f"{kind} holds masks of images that are not there; add test/{kind.name} or remove it")
        found |= _paired(kind, tests[kind.name])
    problem = None
    for name, files in tests.items():
        for file in files:
            if file not in found:
                problem = problem or (f"{file} has no mask" if name != _GOOD else None)
            elif _size(found[file]) != sizes[file]:
                height, width = _size(found[file])
                problem = problem or (
                    f"the mask {found[file]} is {height}x{width} pixels (height x width), but its image is "
                    f"{sizes[file][0]}x{sizes[file][1]}"
                )
    return (found, None) if problem is None else ({}, f"{problem}: no pixel figures are given")


def _paired(folder: Path, files: Sequence[Path]) -> dict[Path, Path]:
    """Return the masks of a folder by their images."""
    images: dict[str, Path] = {}
    for file in files:
        if images.setdefault(file.stem, file) != file:
            raise UserError(f"{images[file.stem]} and {file} have one name, so a mask could mean either; rename one")
    found: dict[Path, Path] = {}
    for mask in image_files(folder):
        image = images.get(mask.stem.removesuffix("_mask")) or images.get(mask.stem)
        if image is None:
            raise UserError(f"{mask} is the mask of no image in {files[0].parent}; add its image or remove it")
        if image in found:
            raise UserError(f"{found[image]} and {mask} are both masks of {image}; remove one")
        found[image] = mask
    return found


def _frames(files: Sequence[Path], masks: Masks, label: int, sampling: Sampling) -> Iterator[Frame]:
    refuse_sampling(files[0].parent, sampling)
    for file in files:
        yield Frame(str(file), file, mask=masks.get(file), label=label)
