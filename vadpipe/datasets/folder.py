"""Reader `folder`: your own videos or folders of frames.

ROOT/train/CLIP.mp4 | CLIP.avi | ... or ROOT/train/CLIP/*.jpg | *.png | ...      normal clips
ROOT/test/...                                                                    clips to score
ROOT/labels.csv      optional: `clip,first,last`: abnormal intervals of test clips, both ends included; a row
                     `clip,,` says that the clip is normal throughout. A test clip without a row is unlabelled,
                     as all are without the file.
ROOT/masks/CLIP.npy  optional: uint8 (T, H, W), above 0 = abnormal; or ROOT/masks/CLIP/*.png, one a frame, paired
                     with the frames by the numbers in their names, or as they lie where names carry none
ROOT/tracks.csv      optional: `clip,track,frame,x_min,y_min,x_max,y_max` in pixels, x_max and y_max exclusive

Several cameras, a model each, are one data set: ROOT/train/CAMERA/CLIP.mp4 or ROOT/train/CAMERA/CLIP/*.jpg, and
likewise in test. Then a clip is CAMERA/CLIP in tables, and CAMERA_CLIP in the store and among the masks.

Frames of a video count from 0. Frames of a folder have the numbers that their names carry, wherever these begin;
where names carry none, or several that vary, they count from 0 in natural order.

A clip is CLIP in tables and masks, with or without its extension. In the store its name is made of letters, digits,
`_` and `-` (`cam 1.2.mp4` becomes `cam_1_2`), which tables may use too.
"""

from __future__ import annotations

import filecmp
import unicodedata
from collections import defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path

from vadpipe.datasets import tables
from vadpipe.datasets.base import RawDataset, check_clips, safe_name
from vadpipe.datasets.files import FrameFiles, entries, image_files, layout
from vadpipe.datasets.labels import NORMAL, Box, Intervals, Known, Masks, Track, paired_masks
from vadpipe.datasets.sources import Source, raw_clip, sources
from vadpipe.errors import UserError, did_you_mean
from vadpipe.store.mask_files import open_npy_masks
from vadpipe.store.video import VIDEO_SUFFIXES

_FILES = {"labels.csv", "tracks.csv"}
_FOLDERS = {"train", "test", "masks"}
_SIDES = ("x_min", "y_min", "x_max", "y_max")
_TRACK_LIMIT = 2**31 - 1  # tracks and pixels are kept as 32 bits

Spans = dict[str, list[tuple[int, int]]]
Tracks = dict[str, dict[int, list[Track]]]


def scan(root: Path) -> RawDataset:
    """Find the clips of a folder and check its labels, masks and tracks.

    Raises:
        UserError: something is missing, stray, or does not fit together.
    """
    found = layout(root, "`folder`", _FOLDERS, _FILES)
    train, test = _clips(root / "train"), _clips(root / "test")
    for one, other in product(train[:1], test[:1]):
        if (one.camera is None) != (other.camera is None):
            raise UserError(
                f"{one.path} and {other.path}: one lies in the folder of a camera, the other does not; "
                "put the clips of both splits into folders of cameras, or none"
            )
    aliases = _aliases(test)
    spans = _spans(found["labels.csv"], aliases) if "labels.csv" in found else None
    tracks = _tracks(found["tracks.csv"], aliases) if "tracks.csv" in found else None
    masks = _masks(found["masks"], aliases) if "masks" in found else {}
    clips = [raw_clip("train", source, Known(NORMAL)) for source in train]
    for source in test:
        labels = None
        if spans is not None and source.name in spans:
            labels = Intervals(f"{found['labels.csv']}, clip {source.plain}", spans[source.name])
        boxes = None if tracks is None else tracks[source.name]
        opened = _open_masks(masks[source.name], source.files) if source.name in masks else None
        clips.append(raw_clip("test", source, Known(labels, boxes, opened, masks.get(source.name))))
    oddities = [*_renamed(train + test), *_unlabelled(test, spans), *_same(train, test), *_other_sizes(train, test)]
    return RawDataset(check_clips(root, clips), oddities)


def _clips(folder: Path) -> list[Source]:
    """Return the clips of a split, or those of each camera of it."""
    found = entries(folder)
    cameras = [path for path in found if path.is_dir() and _holds_clips(path)]
    if not cameras:
        return sources(folder)
    others = [path for path in found if path not in cameras]
    if others:
        raise UserError(
            f"{others[0]} is a clip, but {cameras[0]} is the folder of a camera, which holds clips; "
            "put all clips into folders of cameras, or none"
        )
    clips = []
    for path in cameras:
        camera = safe_name(path.name)
        clips += [replace(clip, name=safe_name(f"{camera}_{clip.name}"), camera=camera) for clip in sources(path)]
    return clips


def _holds_clips(folder: Path) -> bool:
    """Say whether a folder of a split holds clips and no frames, as that of a camera does."""
    inside = entries(folder)
    return bool(inside) and all(path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES for path in inside)


def _aliases(tests: list[Source]) -> dict[str, str]:
    """Return the name in the store by each name under which tables may know a clip."""
    # Cameras may have clips of one name, which is then none by itself.
    whole = {
        test.name: f"{test.path.parent.name}/{test.path.name}" if test.camera else test.path.name for test in tests
    }
    names = {alias: test.name for test in tests for alias in (whole[test.name], test.plain)}
    # macOS takes umlauts apart in file names, spreadsheets do not.
    names = {unicodedata.normalize("NFC", alias): name for alias, name in names.items()}
    return names | {test.name: test.name for test in tests}


def _known_clip(where: str, clip: str, aliases: dict[str, str]) -> str:
    name = aliases.get(unicodedata.normalize("NFC", clip))
    if name is None:
        raise UserError(f"{where}: there is no test clip '{clip}'{did_you_mean(clip, aliases)}")
    return name


def _spans(path: Path, aliases: dict[str, str]) -> Spans:
    """Return the intervals of each clip that has a row; none of them for a clip that is normal throughout."""
    found: Spans = defaultdict(list)
    normal: dict[str, str] = {}
    for row in tables.rows(path, ["clip", "first", "last"]):
        clip = _known_clip(row.where, row["clip"], aliases)
        if row["first"] or row["last"]:
            first, last = row.integers("first", "last")
            found[clip].append((first, last))
        else:
            normal[clip] = row.where
    for clip in found.keys() & normal.keys():
        raise UserError(
            f"{normal[clip]}: this row calls {clip} normal throughout, but another one gives it an interval"
        )
    return {**found, **{clip: [] for clip in normal}}


def _tracks(path: Path, aliases: dict[str, str]) -> Tracks:
    found: Tracks = defaultdict(lambda: defaultdict(list))
    for row in tables.rows(path, ["clip", "track", "frame", *_SIDES]):
        clip = _known_clip(row.where, row["clip"], aliases)
        (frame,), box = row.integers("frame"), Box(*row.integers("track", *_SIDES))
        if box.x_min >= box.x_max or box.y_min >= box.y_max:
            raise UserError(
                f"{row.where}: the box {list(box[1:])} is empty or inverted; x_min < x_max and y_min < y_max"
            )
        if abs(box.track) > _TRACK_LIMIT:
            raise UserError(f"{row.where}: the track {box.track} is beyond 32 bits; number the tracks from 0")
        found[clip][frame].append(Track(row.where, box))
    return found


def _masks(folder: Path, aliases: dict[str, str]) -> dict[str, Path]:
    """Return the masks of each clip that has some: a folder or an .npy file."""
    found: dict[str, Path] = {}
    for path in entries(folder):
        if not path.is_dir() and path.suffix.lower() != ".npy":
            raise UserError(f"{path} is neither CLIP.npy nor a folder of masks; move it out of the layout")
        clip = _known_clip(str(path), path.name if path.is_dir() else path.stem, aliases)
        if clip in found:
            raise UserError(f"{found[clip]} and {path} are both masks of {clip}; remove one")
        found[clip] = path
    return found


def _open_masks(path: Path, files: FrameFiles | None) -> Masks:
    if not path.is_dir():
        return open_npy_masks(path)
    return image_files(path) if files is None else paired_masks(files, path)


def _renamed(sources: list[Source]) -> list[str]:
    # That the clip of a camera is CAMERA_CLIP goes without saying.
    renamed = [
        f"'{source.plain}' is {source.name}" for source in sources if source.plain.replace("/", "_") != source.name
    ]
    return [f"names of clips in stores and tables: {', '.join(renamed)}"] if renamed else []


def _unlabelled(tests: list[Source], spans: Spans | None) -> list[str]:
    if spans is None:
        return ["there is no labels.csv: clips are scored, but no AUC can be given"]
    names = [test.plain for test in tests if test.name not in spans]
    if not names:
        return []
    what = "has no row in labels.csv, so it is" if len(names) == 1 else "have no row in labels.csv, so they are"
    return [f"{', '.join(names)} {what} unlabelled; write `{names[0]},,` if it is normal throughout"]


def _same(train: list[Source], test: list[Source]) -> list[str]:
    """Tell clips that are in both splits, by the bytes of their files (sizes are compared first)."""
    return [
        f"{one.path} and {other.path} hold the same bytes: the test judges what was learned"
        for one in train
        for other in test
        if _equal(one, other)
    ]


def _equal(one: Source, other: Source) -> bool:
    files, others = ([s.path] if s.files is None else s.files.paths for s in (one, other))
    try:
        return len(files) == len(others) and all(
            filecmp.cmp(a, b, shallow=False) for a, b in zip(files, others, strict=True)
        )
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}; change its permissions") from None


def _other_sizes(train: list[Source], test: list[Source]) -> list[str]:
    """Tell sizes, by headers, that no training clip has."""
    known = {source.size for source in train}
    other = {source.size: source.path.name for source in test if source.size not in known}
    if not other or not known:
        return []
    sizes = ", ".join(f"{height}x{width} ({name})" for (height, width), name in other.items())
    trained = ", ".join(f"{height}x{width}" for height, width in sorted(known))
    return [f"no training clip has the frame size of {sizes}; those of training are {trained} (height x width)"]
