"""Images panel by panel: the input and its truth, what a model drew of it, its map, and the boxes that came out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from vadpipe.pictures.heat import Scale
from vadpipe.store.images import Image

_LIMIT = 400_000  # bytes of the PNG: a folder of pictures stays light
_GAP, _CAPTION, _WIDTH = 4, 18, 320  # pixels
_HIT, _ALARM, _MISSED, _INK = (40, 200, 60), (235, 40, 30), (255, 210, 0), (0, 0, 0)
_UNKNOWN = (0, 190, 235)

# Colours of the map from dark to bright: few, since they share the palette of the sheet with the photographs.
_SHADES = np.linspace(0, 255, 32).astype(np.uint8)[:, None]
_HEAT: Image = cv2.applyColorMap(_SHADES, cv2.COLORMAP_INFERNO)[:, 0, ::-1].astype(np.uint8)

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Strip:
    """A row of panels.

    Attributes:
        title: what the row shows.
        image: uint8 (H, W, 3) RGB.
        drawn: what the model drew, such as its reconstruction, uint8 (h, w, 3) RGB of any size; or None.
        heat: float32 (h, w), NaN = not looked at.
        mask: what is abnormal, bool (H, W); None = only boxes say.
        truths: true boxes, (M, 4): x_min, y_min, x_max, y_max in pixels of the image.
        missed: (M,), which of them no box finds.
        boxes: boxes and their scores, (K, 5).
        hits: (K,), which of them find a true box; None = the truth is not known.
    """

    title: str
    image: Image
    drawn: Image | None
    heat: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_] | None
    truths: npt.NDArray[np.float64]
    missed: npt.NDArray[np.bool_]
    boxes: npt.NDArray[np.float64]
    hits: npt.NDArray[np.bool_] | None


def draw_strips(strips: Sequence[Strip], scale: Scale) -> bytes:
    """Draw strips one below the other and return a PNG below 400 kB."""
    width = _WIDTH
    while len(png := _png(_sheet(strips, scale, width))) > _LIMIT and width > 60:
        width = int(width * 0.9)
    return png


def _sheet(strips: Sequence[Strip], scale: Scale, width: int) -> Image:
    """Arrange the strips below the names of their panels; uint8 (H, W, 3)."""
    drawn = any(strip.drawn is not None for strip in strips)
    heads = [
        "input, truth",
        *(["drawn by the model"] if drawn else []),
        f"map, {scale.ends}",
        "boxes above threshold",
    ]
    across = len(heads) * (width + _GAP) + _GAP
    rows = [_line([(_GAP + index * (width + _GAP), head, _INK) for index, head in enumerate(heads)], across)]
    judged = any(strip.hits is not None for strip in strips)
    legend = [("found", _HIT), ("false alarm", _ALARM), ("missed", _MISSED)] if judged else []
    if any(strip.hits is None for strip in strips):
        legend.append(("reported, truth not known", _UNKNOWN))
    for strip in strips:
        panels = _panels(strip, scale, width, drawn)
        row = np.full((panels[0].shape[0] + _GAP, across, 3), 255, np.uint8)
        for index, panel in enumerate(panels):
            start = _GAP + index * (width + _GAP)
            row[: len(panel), start : start + width] = panel
        rows += [_line([(_GAP, strip.title, _INK)], across), row]
    rows.append(_line([(_GAP + index * 90, word, colour) for index, (word, colour) in enumerate(legend)], across))
    rows.append(_line([(_GAP, f"map: {scale.meaning}", _INK)], across))
    return np.vstack(rows)


def _panels(strip: Strip, scale: Scale, width: int, drawn: bool) -> list[Image]:
    height = round(strip.image.shape[0] * width / strip.image.shape[1])
    factor = width / strip.image.shape[1]
    small = _resized(strip.image, width, height)
    first, last = small.copy(), small.copy()
    if strip.mask is not None:
        first[_edge(strip.mask, width, height)] = _HIT
    for box in strip.truths if strip.mask is None else ():
        _outline(first, box * factor, _HIT)
    for box in strip.truths[strip.missed]:
        _outline(last, box * factor, _MISSED)
    hits = [None] * len(strip.boxes) if strip.hits is None else list(strip.hits)
    for box, hit in zip(strip.boxes, hits, strict=True):
        colour = _UNKNOWN if hit is None else _HIT if hit else _ALARM
        _outline(last, box * factor, colour)
        _score(last, f"{box[4]:.1f}", box * factor, colour)
    panels = [first, _heat(strip.heat, scale, width, height), last]
    if drawn:
        panels.insert(1, np.full_like(small, 128) if strip.drawn is None else _resized(strip.drawn, width, height))
    return panels


def _heat(heat: npt.NDArray[np.float32], scale: Scale, width: int, height: int) -> Image:
    resized = cv2.resize(scale.shares(heat), (width, height), interpolation=cv2.INTER_LINEAR)
    coloured: Image = _HEAT[np.round(resized * (len(_HEAT) - 1)).astype(np.intp)]
    return coloured


def _resized(image: Image, width: int, height: int) -> Image:
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def _edge(mask: npt.NDArray[np.bool_], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of a panel around what a mask marks, (height, width), so that they do not hide it."""
    shrinks = width * height < mask.size
    way = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST_EXACT
    # What a pixel of the panel holds a little of is marked: a thread would be lost.
    marked = (cv2.resize(mask.astype(np.float32), (width, height), interpolation=way) > 0).astype(np.uint8)
    return np.asarray(cv2.dilate(marked, np.ones((3, 3), np.uint8)) > marked)


def _outline(panel: Image, box: npt.NDArray[np.float64], colour: Colour) -> None:
    # One more pixel all around, so that the line does not hide what it shows.
    x_min, y_min, x_max, y_max = (int(side) for side in np.round(box[:4]))
    cv2.rectangle(panel, (x_min - 1, y_min - 1), (x_max, y_max), colour, 1)


def _score(panel: Image, text: str, box: npt.NDArray[np.float64], colour: Colour) -> None:
    """Write a score on a dark plate above its box, or inside it at the upper border."""
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    x, bottom = max(int(box[0]), 0), max(int(box[1]), height + 3)
    cv2.rectangle(panel, (x, bottom - height - 3), (x + width + 3, bottom), _INK, -1)
    _write(panel, text, (x + 2, bottom - 2), colour)


def _line(texts: Sequence[tuple[int, str, Colour]], width: int) -> Image:
    line = np.full((_CAPTION, width, 3), 255, np.uint8)
    for x, text, colour in texts:
        _write(line, text, (x, _CAPTION - 5), colour)
    return line


def _write(panel: Image, text: str, place: tuple[int, int], colour: Colour) -> None:
    cv2.putText(panel, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)


def _png(sheet: Image) -> bytes:
    """Encode with a palette: a third of the bytes. Colours that mean something get a place in it, however rare."""
    fixed = np.concatenate([_HEAT.ravel(), [*_HIT, *_ALARM, *_MISSED, *_UNKNOWN, *_INK, 255, 255, 255]]).tolist()
    picture = PIL.Image.fromarray(sheet)
    free = 256 - len(fixed) // 3
    palette = PIL.Image.new("P", (1, 1))
    palette.putpalette((picture.quantize(free).getpalette() or [])[: 3 * free] + fixed)
    png = BytesIO()
    picture.quantize(palette=palette, dither=PIL.Image.Dither.NONE).save(png, "png", optimize=True)
    return png.getvalue()
