"""Reader `one_class`: images of several classes, of which one at a time is normal and all others are abnormal.

ROOT/train/CLASS/*.png ... and ROOT/test/CLASS/*.png ...              a folder a class
ROOT/train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-... x 2    as of MNIST and Fashion-MNIST; also with .gz
ROOT/data_batch_1 ... , test_batch, batches.meta                       CIFAR-10 for Python; also in cifar-10-batches-py

Every class with training images is a category: a model is trained on them, and judged on the test images of all
classes.
The images of a class become a clip, whose images have no order. Classes that have only a number are `class0`, ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vadpipe.datasets import cifar
from vadpipe.datasets.base import RawClip, RawDataset, check_clips, safe_name
from vadpipe.datasets.files import check_folder, entries, image_files, natural
from vadpipe.datasets.idx import read_idx
from vadpipe.datasets.sources import refuse_sampling
from vadpipe.errors import UserError
from vadpipe.store.frames import Frame
from vadpipe.store.sampling import Sampling

_BATCHES = "cifar-10-batches-py"
_IDX = {"train": "train", "test": "t10k"}

# Images uint8 (N, H, W) or (N, H, W, 3), or their files.
Images = npt.NDArray[np.uint8] | list[Path]
# Split -> class -> its images, read when they are asked for, and how many there are.
Classes = Mapping[str, tuple[Callable[[], Images], int]]


def scan(root: Path) -> RawDataset:
    """Find the images of all classes.

    Raises:
        UserError: the layout is none of the three, a file is damaged, or a class has no images of one of the splits.
    """
    names = {path.name.removesuffix(".gz") for path in entries(root)}
    if (root / _BATCHES).is_dir():
        found = _batches(root / _BATCHES)
    elif "test_batch" in names:
        found = _batches(root)
    elif any(name.endswith("-ubyte") for name in names):
        found = _idx(root)
    elif {"train", "test"} <= names:
        found = {split: _folders(root / split) for split in ("train", "test")}
    else:
        raise UserError(
            f"{root} is no set of classes: it has neither train/CLASS and test/CLASS, nor idx files such as "
            "train-images-idx3-ubyte, nor test_batch; give the folder that holds them"
        )
    normal, tested = (sorted(found[split], key=natural) for split in ("train", "test"))
    for name in normal:
        if name not in tested:
            raise UserError(f"{root}: the class '{name}' has images to train and none to test; add some, or remove it")
    if len(tested) < 2:
        raise UserError(f"{root} has one class, '{tested[0]}'; that a class is normal takes others that are not")
    clips = []
    for split, classes in found.items():
        for name, (images, count) in classes.items():
            trains = split == "train"
            categories = (name,) if trains else tuple(normal)
            abnormal = () if trains else tuple(other for other in normal if other != name)
            frames = partial(_frames, f"{root}/{split} {name}", images)
            clips.append(RawClip(split, name, frames, expected=count, categories=categories, abnormal=abnormal))
    others = [name for name in tested if name not in normal]
    oddities = [f"classes without training images, abnormal for all others: {', '.join(others)}"] if others else []
    return RawDataset(check_clips(root, clips), oddities, ordered=False)


def _folders(folder: Path) -> Classes:
    found: dict[str, tuple[Callable[[], Images], int]] = {}
    for path in entries(folder):
        check_folder(path)
        files = image_files(path)
        name = safe_name(path.name)
        if name in found:
            raise UserError(f"{folder}: two classes are named '{name}' in letters, digits, _ and -; rename one")
        found[name] = (partial(list, files), len(files))
    return found


def _idx(root: Path) -> dict[str, Classes]:
    found: dict[str, Classes] = {}
    for split, prefix in _IDX.items():
        images_at, labels_at = (_idx_file(root, f"{prefix}-{what}-ubyte") for what in ("images-idx3", "labels-idx1"))
        images, labels = read_idx(images_at, 3), read_idx(labels_at, 1)
        if len(images) != len(labels):
            raise UserError(
                f"{images_at} holds {len(images)} images, {labels_at} {len(labels)} labels; copy both again"
            )
        found[split] = _of_numbers(images, labels, {})
    return found


def _idx_file(root: Path, name: str) -> Path:
    there = [path for path in entries(root) if path.name in (name, f"{name}.gz")]
    if not there:
        raise UserError(f"{root} has no {name} or {name}.gz; the set comes in four files, add it")
    return there[0]


def _batches(root: Path) -> dict[str, Classes]:
    names = dict(enumerate(map(safe_name, cifar.read_names(root / "batches.meta"))))
    training = [path for path in entries(root) if path.name.startswith("data_batch_")]
    if not training:
        raise UserError(f"{root} has no data_batch_1 and on, the training images; add them")
    found: dict[str, Classes] = {}
    for split, paths in (("train", training), ("test", [root / "test_batch"])):
        batches = [cifar.read_batch(path) for path in paths]
        images, classes = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        unknown = sorted(set(classes.tolist()) - names.keys())
        if unknown:
            raise UserError(f"{paths[0].parent}: batches.meta has no name of class {unknown[0]}; copy the set again")
        found[split] = _of_numbers(images, classes, names)
    return found


def _of_numbers(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], names: Mapping[int, str]) -> Classes:
    found: dict[str, tuple[Callable[[], Images], int]] = {}
    for number in np.unique(labels).tolist():
        chosen = np.flatnonzero(labels == number)
        found[names.get(number, f"class{number}")] = (cache(partial(images.__getitem__, chosen)), len(chosen))
    return found


def _frames(where: str, images: Callable[[], Images], sampling: Sampling) -> Iterator[Frame]:
    refuse_sampling(Path(where), sampling)
    for number, image in enumerate(images()):
        name = str(image) if isinstance(image, Path) else f"{where} {number:05d}"
        yield Frame(name, image, label=0)
