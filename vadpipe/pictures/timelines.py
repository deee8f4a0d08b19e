"""The scores of all test clips over time, beside what is abnormal."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import PIL.Image
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from vadpipe.clock import duration
from vadpipe.stretches import stretches

# Inches, at 100 dots an inch or fewer. The layout is fixed: matplotlib's own takes a second to find one.
_WIDTH, _HEIGHT = 3.4, 1.4  # of a panel
_LEFT, _TOP, _BOTTOM = 0.55, 0.55, 0.6  # margins for numbers, title and legend
_TICKS = 5
_LIMIT = 400_000  # bytes of the PNG: a folder of pictures stays light
_SCORE, _SMOOTHED, _ABNORMAL = "#6b9ac4", "#0b3558", "#fbdcd2"
_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
}


def draw_timelines(timeline: pd.DataFrame, title: str) -> bytes:
    """Draw a panel a clip, all with one score axis, and return a PNG.

    Args:
        timeline: columns clip, frame, time (NaN = none), score, sd (NaN = no band), smoothed, label (NA = unknown).
    """
    clips = list(timeline.groupby("clip", sort=False))
    columns = max(2, min(6, math.ceil(math.sqrt(len(clips)) * 0.8)))
    rows = math.ceil(len(clips) / columns)
    width, height = _LEFT + columns * _WIDTH, _TOP + rows * _HEIGHT + _BOTTOM
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height))
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        limits = _limits(timeline)
        for index, (axes, (clip, frames)) in enumerate(zip(grid, clips, strict=False)):
            # Limits first: autoscaling, and axes that share it, take most of the time for many clips.
            axes.set(xlim=(-0.5, len(frames) - 0.5), ylim=limits, autoscale_on=False)
            axes.tick_params(labelsize=7, length=2, pad=1.5, labelleft=index % columns == 0)
            axes.set_title(str(clip), loc="left", fontsize=8, pad=2)
            _panel(axes, frames)
        for axes in grid[len(clips) :]:
            axes.set_axis_off()
        figure.subplots_adjust(
            left=_LEFT / width,
            right=1 - 0.1 / width,
            top=1 - _TOP / height,
            bottom=_BOTTOM / height,
            wspace=0.06,
            hspace=0.75,
        )
        figure.text(0.1 / width, 1 - 0.1 / height, title, fontsize=10, va="top")
        figure.legend(handles=_legend(timeline), loc="lower left", ncols=4, frameon=False)
        timed = timeline["time"].notna().all()
        axis = "x: frame of the clip and h:mm:ss of its source" if timed else "x: frame of the clip"
        figure.text(1 - 0.1 / width, 0.12 / height, f"{axis}, y: score", ha="right")
        return encode(figure, colours=64)


def _panel(axes: Axes, frames: pd.DataFrame) -> None:
    x, score = frames["frame"].to_numpy(), frames["score"].to_numpy()
    for start, end in stretches(frames["label"].eq(1).fillna(False).to_numpy(bool)):
        axes.axvspan(start - 0.5, end - 0.5, color=_ABNORMAL, linewidth=0)
    if frames["sd"].notna().any():
        sd = frames["sd"].to_numpy()
        axes.fill_between(x, score - sd, score + sd, color=_SCORE, alpha=0.4, linewidth=0)
    axes.plot(x, score, color=_SCORE, linewidth=0.8)
    axes.plot(x, frames["smoothed"], color=_SMOOTHED, linewidth=1.1)
    if frames["time"].notna().all():
        ticks = np.unique(np.linspace(0, len(x) - 1, _TICKS).astype(int))
        times = frames["time"].to_numpy()[ticks]
        axes.set_xticks(x[ticks], [f"{frame}\n{duration(time)}" for frame, time in zip(x[ticks], times, strict=True)])
        if len(ticks) > 1:
            # Centred ones would run into those of the next panel.
            axes.get_xticklabels()[0].set_horizontalalignment("left")
            axes.get_xticklabels()[-1].set_horizontalalignment("right")


def _limits(timeline: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of the score axis."""
    band = timeline["sd"].fillna(0.0)
    low, high = (timeline["score"] - band).min(), (timeline["score"] + band).max()
    if not np.isfinite([low, high]).all():
        return 0.0, 1.0
    margin = 0.05 * (high - low) or 0.5
    return float(low - margin), float(high + margin)


def _legend(timeline: pd.DataFrame) -> list[Artist]:
    """Return the entries for what the panels show."""
    entries: list[Artist] = [Line2D([], [], color=_SCORE, linewidth=1.2, label="score")]
    if timeline["sd"].notna().any():
        entries.append(Patch(color=_SCORE, alpha=0.4, label="± 1 sd over seeds"))
    if timeline["smoothed"].notna().any():
        entries.append(Line2D([], [], color=_SMOOTHED, linewidth=1.2, label="smoothed"))
    if timeline["label"].eq(1).any():
        entries.append(Patch(color=_ABNORMAL, label="abnormal"))
    return entries


def encode(figure: Figure, colours: int) -> bytes:
    """Return a PNG below 400 kB, if some resolution gives one, with a palette, since few colours are used."""
    for dots in (100, 75, 50):
        drawn, png = BytesIO(), BytesIO()
        figure.savefig(drawn, format="png", dpi=dots, pil_kwargs={"compress_level": 0})
        PIL.Image.open(drawn).convert("RGB").quantize(colours).save(png, "png", optimize=True)
        if png.tell() <= _LIMIT:
            break
    return png.getvalue()
