"""The frames with the highest scores, as a contact sheet: what does the method call abnormal?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import PIL.Image

from vadpipe.clock import clock
from vadpipe.pictures.heat import Heat, Scale
from vadpipe.store.clips import Clip
from vadpipe.store.images import Image
from vadpipe.store.scores import read_map

_LIMIT = 400_000  # bytes of the PNG: a folder of pictures stays light
_COLUMNS, _GAP, _CAPTION, _LINE = 4, 4, 34, 18  # pixels
UNKNOWN = -1
_HEAT = (255, 40, 0)
_LABELS = {
    1: ("abnormal", (200, 40, 30)),
    0: ("normal", (30, 130, 60)),
    UNKNOWN: ("no label", (110, 110, 110)),
}


class Top(NamedTuple):
    """A chosen frame; its time is in seconds of the source, its label 1, 0 or -1 (unknown)."""

    clip: str
    frame: int
    time: float
    score: float
    label: int


def choose(timeline: pd.DataFrame, count: int, gaps: dict[str, int]) -> list[Top]:
    """Return the frames with the highest scores, highest first.

    Args:
        timeline: columns clip, frame, time, score (NaN = not covered), label (NA = unknown).
        gaps: clip -> frames around a chosen one from which none is chosen again.
    """
    scores = timeline["score"].to_numpy(np.float64, copy=True)
    clips, frames, times = (timeline[column].to_numpy() for column in ("clip", "frame", "time"))
    labels = timeline["label"].to_numpy(np.int8, na_value=UNKNOWN)
    chosen: list[Top] = []
    while len(chosen) < count and not np.isnan(scores).all():
        best = int(np.nanargmax(scores))
        clip, frame = clips[best], frames[best]
        chosen.append(Top(str(clip), int(frame), float(times[best]), float(scores[best]), int(labels[best])))
        scores[(clips == clip) & (abs(frames - frame) <= gaps[clip])] = np.nan
    return chosen


def heat_maps(scores: Path, seeds: Sequence[int], component: str, chosen: Sequence[Top]) -> list[Heat]:
    """Return a map for every chosen frame, float32 (h, w), mean over seeds."""
    every = [[read_map(scores, seed, top.clip, component)[top.frame] for seed in seeds] for top in chosen]
    return [np.stack(maps).astype(np.float32).mean(axis=0) for maps in every]


def draw_sheet(
    chosen: Sequence[Top], clips: Sequence[Clip], heats: Sequence[Heat] | None, scale: Scale | None
) -> bytes:
    """Draw the chosen frames with clip, frame, score and label, and return a PNG below 400 kB.

    Args:
        heats: of the chosen frames, drawn over them on one scale; None = the run has no maps.
    """
    by_name = {clip.name: clip for clip in clips}
    frames = [by_name[top.clip].frame(top.frame) for top in chosen]
    if heats and scale:
        frames = [_overlay(frame, scale.shares(heat)) for frame, heat in zip(frames, heats, strict=True)]
    width = 320
    while len(png := _png(_sheet(chosen, frames, scale, width))) > _LIMIT and width > 60:
        width = int(width * 0.9)
    return png


def _png(sheet: Image) -> bytes:
    """Encode with a palette: a third of the bytes, so that three times as many pixels fit.

    Colours by an octree are found twenty times as fast as by the median, and are told from the true ones as hardly.
    """
    png = BytesIO()
    PIL.Image.fromarray(sheet).quantize(256, PIL.Image.Quantize.FASTOCTREE).save(png, "png", optimize=True)
    return png.getvalue()


def _overlay(frame: Image, shade: Heat) -> Image:
    # One hue: a palette for the whole sheet would lose the rare colours of a colour map.
    alpha = 0.75 * cv2.resize(shade, frame.shape[1::-1], interpolation=cv2.INTER_LINEAR)[..., None]
    mixed: Image = (frame * (1 - alpha) + np.array(_HEAT) * alpha).astype(np.uint8)
    return mixed


def _sheet(chosen: Sequence[Top], frames: Sequence[Image], scale: Scale | None, width: int) -> Image:
    """Arrange the frames in rows, each over its caption, and the scale of the heat below; uint8 (H, W, 3)."""
    height = max(round(frame.shape[0] * width / frame.shape[1]) for frame in frames) if frames else width
    columns = min(_COLUMNS, max(len(frames), 1))
    rows = max(math.ceil(len(frames) / columns), 1)
    step_y, step_x = height + _CAPTION + _GAP, width + _GAP
    sheet = np.full((rows * step_y + _GAP, columns * step_x + _GAP, 3), 255, np.uint8)
    for index, (top, frame) in enumerate(zip(chosen, frames, strict=True)):
        y, x = _GAP + index // columns * step_y, _GAP + index % columns * step_x
        sheet[y : y + height + _CAPTION, x : x + width] = _tile(top, frame, height, width)
    if scale is None:
        return sheet
    line = np.full((_LINE, sheet.shape[1], 3), 255, np.uint8)
    _write(line, f"heat, {scale.ends}; {scale.meaning}", _LINE - 6, (0, 0, 0))
    return np.vstack([sheet, line])


def _tile(top: Top, frame: Image, height: int, width: int) -> Image:
    tile = np.full((height + _CAPTION, width, 3), 245, np.uint8)
    fitted = round(frame.shape[0] * width / frame.shape[1])
    tile[:fitted] = cv2.resize(frame, (width, fitted), interpolation=cv2.INTER_AREA)
    word, colour = _LABELS[top.label]
    tile[height : height + 3] = colour
    _write(tile, f"{top.clip}  frame {top.frame}  {clock(top.time)}", height + 15, (0, 0, 0))
    _write(tile, f"{top.score:.4g}  {word}", height + 29, colour)
    return tile


def _write(tile: Image, text: str, baseline: int, colour: tuple[int, int, int]) -> None:
    cv2.putText(tile, text, (4, baseline), cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
