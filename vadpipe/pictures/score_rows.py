"""The scores of loose images, a row a folder of them: their order means nothing, so that no line joins them."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vadpipe.pictures.galleries import KINDS, UNKNOWN
from vadpipe.pictures.timelines import encode

# Inches.
_WIDTH, _ROW = 7.5, 0.3
_LEFT, _RIGHT, _TOP, _BOTTOM = 1.7, 0.15, 0.5, 0.75
_SPREAD = 0.7  # of the dots of a row, share of its height
_STYLE: dict[Any, Any] = {"font.size": 8, "axes.linewidth": 0.6}


def draw_score_rows(timeline: pd.DataFrame, title: str) -> bytes:
    """Draw a dot an image at its score, a row a clip, coloured by label, and return a PNG.

    Args:
        timeline: columns clip, score (NaN = not scored), label (NA = unknown).
    """
    clips = list(dict.fromkeys(timeline["clip"]))
    rows = timeline["clip"].map({clip: row for row, clip in enumerate(clips)}).to_numpy()
    kinds = timeline["label"].fillna(UNKNOWN).to_numpy(np.int64)
    scores = timeline["score"].to_numpy(np.float64)
    # The golden ratio spreads any number of dots evenly, and the same ones always alike.
    places = rows + _SPREAD * (np.arange(len(rows)) * 0.6180339887 % 1 - 0.5)
    height = _TOP + _ROW * len(clips) + _BOTTOM
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        axes = figure.add_axes(
            (_LEFT / _WIDTH, _BOTTOM / height, 1 - (_LEFT + _RIGHT) / _WIDTH, _ROW * len(clips) / height)
        )
        axes.set(xlabel="score", ylim=(len(clips) - 0.5, -0.5), yticks=range(len(clips)), yticklabels=clips)
        axes.tick_params(labelsize=7, length=2)
        axes.grid(axis="y", linewidth=0.3)
        for kind, (name, colour) in KINDS.items():
            if (chosen := kinds == kind).any():
                axes.scatter(scores[chosen], places[chosen], s=5, c=colour, linewidths=0, label=name)
        figure.text(0.1 / _WIDTH, 1 - 0.1 / height, title, fontsize=10, va="top")
        figure.legend(loc="lower left", ncols=3, frameon=False, markerscale=2.5)
        return encode(figure, colours=64)
