"""Objects cut out of the abnormal training videos of a source, by its tracks and id maps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe import progress
from vadpipe.datasets.ubnormal import Row, annotation_folder, id_maps, listed, read_id_map, tracks, videos
from vadpipe.errors import UserError
from vadpipe.parallel import ordered_map
from vadpipe.store.images import Image
from vadpipe.store.video import Video

# What is pasted is a few hundredths of a frame: more rows than this only take memory.
_TALLEST = 360  # pixels of a cut object
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cutout:
    """An object in one frame of its source.

    Attributes:
        pixels: uint8 (h, w, 4), RGB and alpha, encoded as PNG; smaller than the box where that is very tall.
        box: x_min, y_min, x_max, y_max in the source, pixels, exclusive.
        area: pixels of the source that it covers.
        whole: whether no edge of the frame cuts it.
    """

    pixels: bytes
    box: tuple[int, int, int, int]
    area: int
    whole: bool

    @property
    def foot(self) -> tuple[float, float]:
        """Return the middle of its lower edge, x and y."""
        return (self.box[0] + self.box[2]) / 2, float(self.box[3])

    @property
    def height(self) -> int:
        """Return its height, pixels of the source."""
        return self.box[3] - self.box[1]


@dataclass(frozen=True)
class Sequence:
    """A row of a track file: an object from one frame of a video to another.

    Attributes:
        source: name of the video.
        track: number of the object in it.
        first: frame of the first cutout.
        cutouts: of the frames from there on; None where the object is hidden.
        size: height and width of the video's frames.
        fps: frames a second; None = unknown.
    """

    source: str
    track: int
    first: int
    cutouts: list[Cutout | None]
    size: tuple[int, int]
    fps: float | None


def cut_source(source: Path) -> list[Sequence]:
    """Return the sequences of all abnormal training videos, in the order of the list and of the rows.

    Raises:
        UserError: a part of the layout is missing or broken, each named.
    """
    there = videos(source)
    names = listed(source, "abnormal_training", there)
    if not names:
        raise UserError(f"{source}/scripts/abnormal_training_video_names.txt names no video; add some to cut from")
    with progress.bar(len(names), "videos", "cut") as bar:
        # Many small steps a frame: threads would wait for each other.
        found = ordered_map(cut_video, [there[name] for name in names], processes=True)
        return [sequence for one in progress.counted(found, bar) for sequence in one]


def cut_video(path: Path) -> list[Sequence]:
    """Return the sequences of a video.

    Raises:
        UserError: there are no id maps or other than frames, the tracks go beyond them, or an object is never shown.
    """
    rows, maps, folder = tracks(path), id_maps(path), annotation_folder(path)
    if not maps:
        raise UserError(f"{folder} holds no id maps, by which objects are cut out; add {path.stem}_0000_gt.png and on")
    # A thread a video: the cores are shared by videos, not by threads of one.
    video = Video(path, workers=1)
    found: dict[Row, list[Cutout | None]] = {row: [] for row in rows}
    count = 0
    for frame in video.frames():
        count += 1
        active = [row for row in rows if row.first <= frame.index <= row.last]
        if active and frame.index < len(maps):
            image = _of_8_bit(frame.pixels, path)
            ids = read_id_map(maps[frame.index], *image.shape[:2])
            for row in active:
                found[row].append(cutout(image, ids, row.object))
    if count != len(maps):
        raise UserError(f"{folder} holds {len(maps)} id maps, the video {path.name} {count} frames; copy both again")
    for row in rows:
        if row.last >= count:
            raise UserError(
                f"{folder}: object {row.object} is abnormal up to frame {row.last}, counted from 0, but "
                f"{path.name} has {count} frames; copy both again"
            )
        if not any(found[row]):
            raise UserError(
                f"{folder}: the track file names object {row.object} in frames {row.first} to {row.last}, but no id "
                "map shows it; copy both again"
            )
    make = partial(Sequence, size=(video.height, video.width), fps=video.fps)
    return [make(path.stem, row.object, row.first, found[row]) for row in rows]


def cutout(image: Image, ids: Ids, number: int) -> Cutout | None:
    """Cut the object `number` out of an image, uint8 (H, W, 3), by its id map (H, W); None where it is hidden."""
    shown = ids == number
    if not shown.any():
        return None
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    part = shown[top:bottom, left:right]
    # Behind the edge stands the nearest colour of the object, or its soft edge would bring the background along.
    pixels = np.dstack([_spread(image[top:bottom, left:right], part), part.astype(np.uint8) * np.uint8(255)])
    if bottom - top > _TALLEST:
        width = max(1, round((right - left) * _TALLEST / (bottom - top)))
        pixels = cv2.resize(pixels, (width, _TALLEST), interpolation=cv2.INTER_AREA).astype(np.uint8)
    encoded = cv2.imencode(".png", pixels)[1].tobytes()
    whole = top > 0 and left > 0 and bottom < ids.shape[0] and right < ids.shape[1]
    return Cutout(encoded, (left, top, right, bottom), int(shown.sum()), whole)


def decoded(one: Cutout) -> npt.NDArray[np.uint8]:
    """Return the pixels of a cutout, uint8 (h, w, 4), RGB and alpha."""
    return cv2.imdecode(np.frombuffer(one.pixels, np.uint8), cv2.IMREAD_UNCHANGED)  # type: ignore[return-value]


def _spread(image: Image, part: npt.NDArray[np.bool_]) -> Image:
    """Return the image (h, w, 3) with the nearest colour of the object where it does not stand."""
    _, nearest = cv2.distanceTransformWithLabels(
        (~part).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    colours[nearest[part]] = image[part]
    spread: Image = colours[nearest]
    return spread


def _of_8_bit(pixels: npt.NDArray[np.integer], path: Path) -> Image:
    if pixels.dtype != np.uint8:
        raise UserError(f"{path} has 16 bit a pixel; a source of anomalies has 8, encode it anew")
    return pixels.astype(np.uint8, copy=False)
