"""RBDC and TBDC: how many abnormal regions and tracks the boxes of a run find, over false alarms a frame.

Ramachandra and Jones, "Street Scene", WACV 2020. A region is a true box in a frame, a track all regions of one object
in a clip. Of two curves over the threshold, the share of regions (RBDC) and of tracks (TBDC) that are found, the area
is taken between no and one false alarm a frame. Details that the paper leaves open are those of the implementation
that its author confirmed (Georgescu et al., TPAMI 2021): every box is a threshold of its own, one box may find several
regions, and a box on regions that are found already counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vadpipe.evaluation.arrays import Bools, Floats, Ints, rows_at_once
from vadpipe.evaluation.boxes import Box, overlaps

OVERLAP = 0.1  # intersection over union from which a box finds a region (beta)
SHARE = 0.1  # share of its regions from which a track is found (alpha)


@dataclass(frozen=True)
class Steps:
    """What the boxes of all frames find, one after the other, highest score first.

    Attributes:
        unit: (D,), index of what the box's frame is resampled with.
        regions: (D,), how many regions the box is the first to find.
        tracks: (D,), how many tracks are found with it.
        false: (D,), whether it overlaps no region of its frame enough.
        totals: (U, 3), regions, tracks and frames of each unit.
    """

    unit: Ints
    regions: Ints
    tracks: Ints
    false: Bools
    totals: Ints


def collect(
    found: Sequence[Sequence[Box]], truths: Sequence[Floats], tracks: Sequence[Ints], unit: Ints, units: int
) -> Steps:
    """Go through the boxes of all frames.

    Args:
        found: the boxes of each of F frames.
        truths: (M, 4) of each frame: x_min, y_min, x_max, y_max, both max exclusive.
        tracks: (M,) of each frame: the track of each region, unique over all clips.
        unit: (F,), index below `units` of what a frame is resampled with; all frames of a track have one.
    """
    gained = list(_gains(found, truths))
    frame = np.repeat(np.arange(len(found)), [len(boxes) for boxes in found])
    score = np.array([score for score, _, _ in gained], np.float64)
    order = np.argsort(-score, kind="stable")
    of_track = [tracks[frame[index]][gained[index][1]] for index in order]
    totals = np.zeros((units, 3), np.int64)
    np.add.at(totals[:, 0], unit, [len(true) for true in truths])
    np.add.at(totals[:, 2], unit, 1)
    lengths = _lengths(tracks)
    for first in {int(one): where for where, ids in enumerate(tracks) for one in ids}.values():
        totals[unit[first], 1] += 1
    return Steps(
        unit=unit[frame[order]],
        regions=np.array([len(ids) for ids in of_track], np.int64),
        tracks=_found_tracks(of_track, lengths),
        false=np.array([gained[index][2] for index in order], np.bool_),
        totals=totals,
    )


def _gains(found: Sequence[Sequence[Box]], truths: Sequence[Floats]) -> Iterator[tuple[float, Ints, bool]]:
    """Yield of each box, frame after frame, its score, the regions that it is the first to find, and if it is false."""
    for boxes, true in zip(found, truths, strict=True):
        if not len(boxes):
            continue
        each = np.array(boxes, np.float64)
        over = overlaps(each, true) >= OVERLAP
        open_ = np.ones(len(true), np.bool_)
        first: dict[int, Ints] = {}
        for index in np.argsort(-each[:, 4], kind="stable"):
            first[int(index)] = np.flatnonzero(over[index] & open_)
            open_ &= ~over[index]
        for index in range(len(each)):
            yield float(each[index, 4]), first[index], not over[index].any()


def _lengths(tracks: Sequence[Ints]) -> dict[int, int]:
    """Return how many regions each track has."""
    ids, counts = np.unique(np.concatenate([*tracks, np.empty(0, np.int64)]).astype(np.int64), return_counts=True)
    return dict(zip(ids.tolist(), counts.tolist(), strict=True))


def _found_tracks(of_track: Sequence[Ints], lengths: dict[int, int]) -> Ints:
    """Return how many tracks reach their share with each box."""
    reached = np.zeros(len(of_track), np.int64)
    seen = dict.fromkeys(lengths, 0)
    done = set()
    for index, ids in enumerate(of_track):
        for track in map(int, ids):
            seen[track] += 1
            if track not in done and seen[track] / lengths[track] >= SHARE:
                done.add(track)
                reached[index] += 1
    return reached


def areas(steps: Steps, weights: Ints) -> Floats:
    """Return RBDC and TBDC where unit u counts `weights[b, u]` times, (2, B); NaN without regions.

    Both curves start at 0, 0, and go on level from their last point up to one false alarm a frame.
    """
    out = np.zeros((2, len(weights)))
    for rows in rows_at_once(weights, len(steps.unit)):
        part = weights[rows]
        drawn = part[:, steps.unit]
        regions, tracks, frames = (part @ steps.totals).T[:, :, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            alarms = (drawn * steps.false).cumsum(axis=1) / frames
            for row, gained, total in ((0, steps.regions, regions), (1, steps.tracks, tracks)):
                out[row, rows] = _area(alarms, (drawn * gained).cumsum(axis=1) / total)
            out[:, rows][:, regions[:, 0] == 0] = np.nan
    return out


def _area(alarms: Floats, found: Floats) -> Floats:
    """Return the area under curves (B, D) between 0 and 1 false alarm a frame, (B,)."""
    kept = alarms <= 1
    last = np.where(kept, found, 0).max(axis=1, initial=0)[:, None]
    zero, one = np.zeros_like(last), np.ones_like(last)
    x = np.hstack([zero, np.where(kept, alarms, 1), one])
    y = np.hstack([zero, np.where(kept, found, last), last])
    area: Floats = (np.diff(x, axis=1) * (y[:, 1:] + y[:, :-1]) / 2).sum(axis=1)
    return area


def linked(boxes: Sequence[Floats]) -> list[Ints]:
    """Return tracks for regions that have none, (M,) of each frame of a clip.

    A region goes on the track of the region in the frame before that it overlaps most, each of which it shares with
    no other; the pair with the most overlap comes first.
    """
    tracks: list[Ints] = []
    number = 0
    before, ids = np.zeros((0, 4)), np.zeros(0, np.int64)
    for regions in boxes:
        now = np.full(len(regions), -1, np.int64)
        ratios = overlaps(regions, before)
        for flat in np.argsort(-ratios, axis=None, kind="stable"):
            here, there = np.unravel_index(flat, ratios.shape)
            if ratios[here, there] > 0 and now[here] < 0 and ids[there] not in now:
                now[here] = ids[there]
        new = np.flatnonzero(now < 0)
        now[new] = number + np.arange(len(new))
        number += len(new)
        tracks.append(now)
        before, ids = regions, now
    return tracks
