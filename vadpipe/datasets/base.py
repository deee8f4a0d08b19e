"""What a reader gives, and how one is found by name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import vadpipe.datasets
from vadpipe.datasets.files import natural
from vadpipe.errors import UserError, did_you_mean
from vadpipe.store.frames import Frame
from vadpipe.store.sampling import Sampling

CLIP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")
# Modules beside the readers: what readers share.
_SHARED = {"base", "cifar", "files", "idx", "labels", "matlab", "sources", "tables", "voc"}


@dataclass(frozen=True)
class RawClip:
    """A clip as it lies on disk.

    Attributes:
        split: `train` or `test`.
        frames: opens the clip and yields the frames that a sampling takes, in order.
        fps: frames a second as the file says, of a video; None where there is no word of it.
        expected: frames as the header promises or files there are; None where nothing is said. For progress alone.
        categories: those that the clip trains or tests; none where the data set has no categories.
        abnormal: those of them for which every frame of a test clip is abnormal, whatever its labels say: of a set
            of classes, each that is not the clip's own.
        size: height and width, pixels, that all frames are brought to; None where they have one size already.
        unmasked: why its masks are left out, for the notes beside figures; None where they are not.
        notes: what is odd about the clip but no error; complete once its frames were read.
    """

    split: str
    name: str
    frames: Callable[[Sampling], Iterator[Frame]]
    fps: float | None = None
    expected: int | None = None
    categories: tuple[str, ...] = ()
    abnormal: tuple[str, ...] = ()
    size: tuple[int, int] | None = None
    unmasked: str | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RawDataset:
    """What a reader found: the layout is checked, no frame is decoded yet.

    Attributes:
        oddities: things that are no error but that the user should know.
        ordered: whether the frames of a clip follow each other in time; False for loose images.

    A data set may fall into categories that want a model each: products, the classes of a set of which one is
    normal at a time, cameras. Then every clip names those that it trains or tests.
    """

    clips: list[RawClip]
    oddities: list[str] = field(default_factory=list)
    ordered: bool = True


Reader = Callable[..., RawDataset]


def names() -> list[str]:
    """Return the names of all readers."""
    return sorted(m.name for m in pkgutil.iter_modules(vadpipe.datasets.__path__) if m.name not in _SHARED)


def get(name: str) -> Reader:
    """Return a reader: the function `scan(folder)` of `vadpipe/datasets/NAME.py`.

    Raises:
        UserError: there is no such reader.
    """
    if name not in names():
        raise UserError(f"there is no reader '{name}'{did_you_mean(name, names())}")
    return cast(Reader, importlib.import_module(f"vadpipe.datasets.{name}").scan)


def scan(root: Path, reader: str, objects: list[str] | None, labels: str | None = None) -> RawDataset:
    """Return what a reader finds in a folder.

    Args:
        objects: names of annotated objects that count, None = all; readers that know no names refuse a choice.
        labels: which truth counts, None = the reader's first; readers that know one only refuse a choice.

    Raises:
        UserError: there is no such reader, or the layout, labels or masks are not as they should be.
    """
    found = get(reader)
    chosen = {"objects": objects, "labels": labels}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    for name in chosen.keys() - inspect.signature(found).parameters.keys():
        raise UserError(f"the reader {reader} knows no choice of {name}; leave out `{name}`")
    return found(root, **chosen)


def safe_name(name: str) -> str:
    """Return the name that a clip has in stores and tables: letters, digits, `_` and `-` (`cam 1.2` -> `cam_1_2`).

    Accents are taken off (`Größe` -> `Grosse`), everything else becomes `_`.

    Raises:
        UserError: nothing is left, or more than 200 characters.
    """
    if CLIP_NAME.fullmatch(name):
        return name
    letters = "".join(c for c in unicodedata.normalize("NFKD", name.replace("ß", "ss")) if not unicodedata.combining(c))
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", letters).strip("_-")
    if not CLIP_NAME.fullmatch(safe):
        raise UserError(
            f"the clip name '{name}' cannot be written in 1 to 200 letters (a to z), digits, _ and -; rename the clip"
        )
    return safe


def check_clips(root: Path, clips: list[RawClip]) -> list[RawClip]:
    """Return the clips sorted by split and name.

    Raises:
        UserError: a split is empty, two clips share a name, a name could leave the folder, or a category has no
            clips of one of the splits.
    """
    seen: set[tuple[str, str]] = set()
    for clip in clips:
        if not CLIP_NAME.fullmatch(clip.name):
            raise UserError(
                f"{root}: the clip name '{clip.name}' is refused; use letters, digits, _ and -, no dots or slashes"
            )
        if (clip.split, clip.name) in seen:
            raise UserError(
                f"{root}: two clips of {clip.split} are named '{clip.name}' (a folder and a video, or two videos); "
                "rename one"
            )
        seen.add((clip.split, clip.name))
    for split in ("train", "test"):
        if not any(clip.split == split for clip in clips):
            raise UserError(f"{root}: there are no clips for '{split}'; a data set needs clips of both splits")
    trained, tested = (_categories(clips, split) for split in ("train", "test"))
    for category in sorted(trained ^ tested):
        split = "test" if category in trained else "train"
        raise UserError(f"{root}: the category '{category}' has no clips for '{split}'; it needs clips of both splits")
    return sorted(clips, key=lambda clip: (clip.split, natural(clip.name)))


def _categories(clips: list[RawClip], split: str) -> set[str]:
    return {category for clip in clips if clip.split == split for category in clip.categories}
