"""Reader `ubnormal`: UBnormal in its official layout (Acsintoae et al., CVPR 2022).

ROOT/Scene1/normal_scene_1_scenario_1.mp4, abnormal_scene_1_scenario_2_fog.mp4, ...
ROOT/Scene1/NAME_annotations/NAME_0000_gt.png ...    id maps: a pixel is the number of its object, 0 = nothing
ROOT/Scene1/NAME_annotations/NAME_tracks.txt         of abnormal videos: object, first frame, last frame; from 0, both
                                                     ends included; NAME_new_tracks.txt counts where it is there
ROOT/scripts/normal_training_video_names.txt, normal_test_video_names.txt, abnormal_test_video_names.txt

Trained on are the normal training videos alone, and tested on the test videos: the set as one of normal training data.
The abnormal training videos and the validation videos are left out. Without id maps, clips have labels by frame and
neither masks nor boxes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.datasets.base import RawDataset, check_clips
from vadpipe.datasets.files import TEXT_SUFFIXES, entries
from vadpipe.datasets.labels import NORMAL, Box, Intervals, Known
from vadpipe.datasets.sources import Source, raw_clip, source
from vadpipe.errors import UserError
from vadpipe.files import read_bytes, read_text, there
from vadpipe.store.frames import Frame
from vadpipe.store.image_files import read_planes
from vadpipe.store.video import VIDEO_SUFFIXES

_SCENE = re.compile(r"Scene\d+")
_LISTS = {"train": ("normal_training",), "test": ("normal_test", "abnormal_test")}


class Row(NamedTuple):
    """A line of a track file: an object is abnormal from one frame to another, from 0, both included."""

    object: int
    first: int
    last: int


def scan(root: Path) -> RawDataset:
    """Find the videos that the split lists name, and their labels.

    Raises:
        UserError: a part of the layout is missing or not as it should be.
    """
    found = videos(root)
    clips, lacking = [], 0
    for split, kinds in _LISTS.items():
        for kind in kinds:
            for name in listed(root, kind, found):
                clip = source(found[name])
                known = Known(NORMAL) if split == "train" else _known(clip, kind)
                lacking += isinstance(known, Objects) and not known.maps
                clips.append(raw_clip(split, clip, known))
    oddities = [f"{lacking} abnormal test videos have no id maps: labels by frame alone"] if lacking else []
    return RawDataset(check_clips(root, clips), oddities)


def videos(root: Path) -> dict[str, Path]:
    """Return the videos of all scenes by name.

    Raises:
        UserError: there are none, or something else lies there.
    """
    found: dict[str, Path] = {}
    for scene in entries(root):
        if scene.is_dir() and _SCENE.fullmatch(scene.name):
            found |= {path.stem: path for path in entries(scene) if path.suffix.lower() in VIDEO_SUFFIXES}
        elif scene.name != "scripts" and scene.suffix.lower() not in TEXT_SUFFIXES:
            raise UserError(f"{scene} does not belong to the layout of UBnormal (Scene1, ..., scripts); move it away")
    if not found:
        raise UserError(f"{root} holds no videos in Scene1, Scene2, ...; give the folder that holds the scenes")
    return found


def listed(root: Path, kind: str, known: dict[str, Path]) -> list[str]:
    """Return the names in a split list, such as `abnormal_training`, all of which are there.

    Args:
        known: the videos by name.

    Raises:
        UserError: there is no such list, or a video of it is not there.
    """
    path = root / "scripts" / f"{kind}_video_names.txt"
    if not there(path):
        raise UserError(f"{path} is not there; the lists come with UBnormal's scripts, not with its videos; add it")
    names = read_text(path).split()
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of its {len(names)} videos are not there, {missing[0]} first; "
            "add them, or take them off the list"
        )
    return names


def annotation_folder(video: Path) -> Path:
    """Return the folder of a video's annotations."""
    return video.with_name(f"{video.stem}_annotations")


def tracks(video: Path) -> list[Row]:
    """Return the rows of the track file of an abnormal video.

    Raises:
        UserError: there is none, or a row is not three numbers in order.
    """
    folder = annotation_folder(video)
    places = [folder / f"{video.stem}_{name}.txt" for name in ("new_tracks", "tracks")]
    path = next(filter(there, places), places[-1])
    data = read_bytes(path)
    if data.startswith(b"\x93NUMPY"):
        raise UserError(f"{path} is an array of NumPy under another name; give the track file of UBnormal itself")
    rows = []
    for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(part) for part in line.split(",")]
            row = Row(*map(int, values))
        except (ValueError, TypeError, OverflowError):
            raise UserError(f"{path}, line {number}: cannot read '{line}'; wanted is object,first,last") from None
        if list(row) != values or row.object < 1 or not 0 <= row.first <= row.last:
            raise UserError(f"{path}, line {number}: {line} is no object from 1 with frames in order, from 0")
        rows.append(row)
    if not rows:
        raise UserError(f"{path} names no object; copy it again")
    return rows


def id_maps(video: Path) -> list[Path]:
    """Return the id maps of a video in the order of its frames; none where there are none.

    Raises:
        UserError: one is missing between the others.
    """
    folder = annotation_folder(video)
    if not there(folder):
        return []
    numbered = {}
    for path in entries(folder):
        match = re.fullmatch(rf"{re.escape(video.stem)}_(\d+)_gt\.png", path.name)
        if match:
            numbered[int(match[1])] = path
    for number in range(len(numbered)):
        if number not in numbered:
            raise UserError(f"{folder / f'{video.stem}_{number:04d}_gt.png'} is missing among the id maps; add it")
    return [numbered[number] for number in range(len(numbered))]


def read_id_map(path: Path, height: int, width: int) -> npt.NDArray[np.int64]:
    """Return the object of each pixel, (H, W), of the top left of a map, which may be larger than its frame.

    Raises:
        UserError: it is no grey image, or smaller than its frame.
    """
    try:
        colour = read_planes(read_bytes(path), {"L", "P", "1", "I", "RGB", "RGBA"}).colour
    except ValueError as error:
        raise UserError(f"{path}: {error}; copy it again") from None
    if colour.ndim == 3:
        if (colour != colour[..., :1]).any():
            raise UserError(f"{path} has colours, but the pixels of an id map are numbers of objects; copy it again")
        colour = colour[..., 0]
    if colour.shape[0] < height or colour.shape[1] < width:
        raise UserError(f"{path} has {colour.shape} pixels, fewer than its frame, ({height}, {width}); copy it again")
    return colour[:height, :width].astype(np.int64)


@dataclass
class Objects(Known):
    """What is known of an abnormal video: its rows, sorted, and the id maps, which are read as the frames come."""

    rows: Sequence[Row] = ()
    maps: Sequence[Path] = ()
    _seen: set[int] = field(default_factory=set, init=False)
    _looked: set[int] = field(default_factory=set, init=False)

    def begin(self) -> None:
        """Forget what was seen in an earlier reading of the clip."""
        super().begin()
        self._seen, self._looked = set(), set()

    def check(self, numbers: Sequence[int]) -> None:
        """Check intervals and maps against the numbers of all frames, and that some map shows each object.

        Raises:
            UserError: as of `Known`; the maps are more or fewer than the frames, or never show an object.
        """
        super().check(numbers)
        if not self.maps:
            return
        folder = self.maps[0].parent
        if len(self.maps) != len(numbers):
            raise UserError(f"{folder} holds {len(self.maps)} id maps, the clip {len(numbers)} frames; copy it again")
        for number in sorted(self._looked - self._seen):
            raise UserError(
                f"{self.where}: the object {number} is abnormal, but no id map of {folder} shows it; copy both again"
            )

    @property
    def where(self) -> str:
        """Return the file of the rows."""
        return "" if self.labels is None else self.labels.where

    def complete(self, frame: Frame, position: int, number: int) -> Frame:
        """Return a frame with its label, and mask and boxes of its abnormal objects.

        A box goes around the largest piece of an object, as the set's own script has it. Tracks are numbered by the
        rows in the order of their objects.
        """
        frame = super().complete(frame, position, number)
        if not self.maps or position >= len(self.maps) or isinstance(frame.image, Path):
            return frame
        ids = read_id_map(self.maps[position], *frame.image.shape[:2])
        mask, boxes = np.zeros(ids.shape, bool), []
        for track, row in enumerate(self.rows):
            if row.first <= number <= row.last:
                self._looked.add(row.object)
                pixels = ids == row.object
                if pixels.any():
                    self._seen.add(row.object)
                    mask |= pixels
                    boxes.append(Box(track, *largest_box(pixels))._asdict())
        return replace(frame, mask=mask, boxes=boxes)


def largest_box(pixels: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return x_min, y_min, x_max, y_max (exclusive) of the largest connected piece of pixels (H, W), not all false."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(pixels.astype(np.uint8), connectivity=8)
    x, y, width, height = stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()][:4]
    return int(x), int(y), int(x + width), int(y + height)


def _known(clip: Source, kind: str) -> Known:
    if not kind.startswith("abnormal"):
        return Known(NORMAL, {})
    rows = sorted(tracks(clip.path))
    last = max(row.last for row in rows)
    flags = np.zeros(last + 1, bool)
    for row in rows:
        flags[row.first : row.last + 1] = True
    return Objects(Intervals.of(str(annotation_folder(clip.path)), flags), None, None, None, rows, id_maps(clip.path))
