"""Vectors as points of a plane: what lies together, by clip and by label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vadpipe.pictures.timelines import encode

TRAINING, UNKNOWN = 2, -1
# In the order in which they are drawn: what is rare lies on top.
KINDS = {
    TRAINING: ("training", "#6b9ac4"),
    UNKNOWN: ("no label", "#8c8c8c"),
    0: ("normal", "#1e823c"),
    1: ("abnormal", "#c8281e"),
}

_SIDE, _LEGEND = 4.2, 2.1  # inches, of a panel and beside it
_TOP, _BOTTOM, _GAP, _HEAD = 0.35, 0.3, 0.15, 0.25
_NAMED = 24  # clips of the legend, and points of a panel with names, at most
_STYLE: dict[Any, Any] = {"font.size": 8, "axes.linewidth": 0.6}


class Panel(NamedTuple):
    """Points and what they are.

    Attributes:
        title: what a point is.
        places: (n, 2).
        clip: (n,), index of the clip of each.
        kind: (n,), a key of `KINDS` each.
    """

    title: str
    places: npt.NDArray[np.floating]
    clip: npt.NDArray[np.integer]
    kind: npt.NDArray[np.integer]


def draw_gallery(panels: Sequence[Panel], clips: Sequence[str], title: str, note: str) -> bytes:
    """Draw panels side by side, above coloured by clip and below by label, and return a PNG.

    Args:
        panels: at least one.
        clips: names of the clips; points of training have another mark than those of test.
        note: how the points came to their places.
    """
    width = _GAP + len(panels) * (_SIDE + _GAP) + _LEGEND
    height = _TOP + 2 * (_HEAD + _SIDE) + _BOTTOM
    colours = mpl.colormaps["turbo"](np.linspace(0.03, 0.97, len(clips)))
    kinds = [kind for kind in KINDS if any((panel.kind == kind).any() for panel in panels)]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        for column, panel in enumerate(panels):
            for row in range(2):
                left = (_GAP + column * (_SIDE + _GAP)) / width
                bottom = (_BOTTOM + (1 - row) * (_HEAD + _SIDE)) / height
                axes = figure.add_axes((left, bottom, _SIDE / width, _SIDE / height))
                axes.set(xticks=[], yticks=[], xmargin=0.08, ymargin=0.08)
                axes.set_title(panel.title, loc="left", fontsize=8, pad=3)
                for kind in kinds:
                    chosen = panel.kind == kind
                    x, y = panel.places[chosen].T
                    colour = colours[panel.clip[chosen]] if row == 0 else KINDS[kind][1]
                    axes.scatter(x, y, s=9, marker=_marker(kind), c=colour, linewidths=0.7)
                for place, index in zip(panel.places, panel.clip, strict=True) if len(panel.places) <= _NAMED else ():
                    name = clips[index].rpartition("/")[2]
                    axes.annotate(name, place, (3, 2), textcoords="offset points", fontsize=6, color="#505050")
        step = math.ceil(len(clips) / _NAMED)
        training = {int(index) for panel in panels for index in panel.clip[panel.kind == TRAINING]}
        named: list[Artist] = [
            _mark(_marker(TRAINING if index in training else 0), colours[index], clips[index])
            for index in range(0, len(clips), step)
        ]
        labelled: list[Artist] = [_mark(_marker(kind), *reversed(KINDS[kind])) for kind in kinds]
        by_clip = "by clip" if step == 1 else f"by clip, one in {step} named"
        for row, (head, entries) in enumerate(((by_clip, named), ("by label", labelled))):
            top = 1 - (_TOP + _HEAD + row * (_HEAD + _SIDE)) / height
            figure.legend(
                handles=entries,
                title=head,
                loc="upper left",
                bbox_to_anchor=(1 - _LEGEND / width, top),
                frameon=False,
                alignment="left",
                borderpad=0,
                fontsize=7,
            )
        figure.text(_GAP / width, 1 - 0.1 / height, title, fontsize=10, va="top")
        figure.text(_GAP / width, 0.1 / height, note)
        return encode(figure, colours=256)


def _marker(kind: int) -> str:
    return "x" if kind == TRAINING else "o"


def _mark(marker: str, colour: Any, name: str) -> Line2D:
    return Line2D([], [], linestyle="none", marker=marker, color=colour, markersize=4, label=name)
