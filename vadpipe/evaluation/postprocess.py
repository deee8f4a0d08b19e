"""What papers do to scores before they measure them; clip by clip, never across a clip's border."""

from __future__ import annotations

import numpy as np

from vadpipe.evaluation.arrays import Floats, Ints

# What every table shows side by side; the first is the headline.
KINDS = ("raw", "smoothed", "per_clip_minmax")


def apply(kind: str, scores: Floats, lengths: Ints, sigmas: Floats) -> Floats:
    """Post-process scores (S, N), S seeds of N frames.

    Args:
        kind: one of `KINDS`.
        lengths: (C,), frames of the clips; they add up to N.
        sigmas: (C,), of the Gaussian, in frames; NaN = the frames are loose images, no clip: there, all but
            `raw` is NaN.
    """
    if kind == "raw":
        return scores
    out = []
    for clip, sigma in zip(np.split(scores, np.cumsum(lengths)[:-1], axis=1), sigmas, strict=True):
        if np.isnan(sigma):
            out.append(np.full_like(clip, np.nan))
        else:
            out.append(np.stack([gaussian(row, sigma) if kind == "smoothed" else minmax(row) for row in clip]))
    return np.concatenate(out, axis=1)


def gaussian(scores: Floats, sigma: float) -> Floats:
    """Smooth one clip, (T,), by a centred Gaussian of `sigma` frames, cut at 4 sigma.

    Weights are renormalised at the borders and over uncovered frames (NaN), which stay NaN: zeros outside
    the clip would pull its ends down.
    """
    out = np.full(len(scores), np.nan)
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    covered = ~np.isnan(scores)
    inside = slice(radius, radius + len(scores))
    total = np.convolve(np.where(covered, scores, 0.0), kernel)[inside]
    weight = np.convolve(covered.astype(np.float64), kernel)[inside]
    # Scores have float32 precision: without the cast, rounding would break ties among equal frames.
    out[covered] = (total[covered] / weight[covered]).astype(np.float32)
    return out


def minmax(scores: Floats) -> Floats:
    """Map one clip, (T,), to [0, 1]; a constant clip to zeros.

    It looks at the whole test clip, cannot run online, and takes for granted that a clip has both classes
    (Liu et al., CVPR 2018, and after them): a column for comparison, never the headline.
    """
    if np.isnan(scores).all():
        return scores
    low, high = np.nanmin(scores), np.nanmax(scores)
    mapped: Floats = (scores - low) / (high - low if high > low else 1.0)
    return mapped
