"""Interlaced video: found out by looking, made progressive by ffmpeg's `bwdif`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import TypeVar

import av
import av.filter
import numpy as np
from av.video.reformatter import VideoReformatter

ItemT = TypeVar("ItemT")

_MOVES = 12  # grey levels by which a pixel changes where something moves
_ENOUGH = 1e-4  # share of pixels that must move before anything can be said
_ANY_TIME_BASE = Fraction(1, 1000)  # times are carried beside the frames


def belongs_together(frames: list[av.VideoFrame]) -> bool:
    """Say whether the two fields of each frame were taken at one time, although the stream is flagged as interlaced.

    Where something moves, a line is compared with those above and below it, which are of the other field: of its own
    frame, and of the frame before. In a progressive frame its own neighbours fit much better, for both fields alike. In
    an interlaced one the earlier field is as near to the later field of the frame before, and the later one much
    farther. Without motion the answer is False: the flags are to be believed.
    """
    reformatter = VideoReformatter()
    greys = [reformatter.reformat(frame, format="gray", threads=1).to_ndarray().astype(np.int16) for frame in frames]
    own, crossed, moving = np.zeros(2), np.zeros(2), 0  # the sums are by field
    for before, now in pairwise(greys):
        moves = np.abs(now - before)[1:-1] > _MOVES
        same = np.abs(2 * now[1:-1] - now[:-2] - now[2:]) * moves
        mixed = np.abs(2 * now[1:-1] - before[:-2] - before[2:]) * moves
        moving += int(moves.sum())
        for field in (0, 1):
            own[field] += same[field::2].sum()
            crossed[field] += mixed[field::2].sum()
    if moving < _ENOUGH * sum(grey.size for grey in greys):
        return False
    farther = crossed / np.maximum(own, 1)
    return bool(farther.min() > 2 and farther.max() < 1.6 * farther.min())


def deinterlaced(frames: Iterable[tuple[ItemT, av.VideoFrame]], workers: int) -> Iterator[tuple[ItemT, av.VideoFrame]]:
    """Yield a progressive frame for each frame, with the item that came with it.

    Frames, all of one size and format, that are not flagged as interlaced pass unchanged. `workers` are threads.
    """
    graph: av.filter.Graph | None = None
    waiting: deque[ItemT] = deque()  # the filter looks one frame ahead
    for item, frame in frames:
        if graph is None:
            graph = _graph(frame, workers)
        waiting.append(item)
        graph.vpush(frame)
        yield from _pulled(graph, waiting)
    if graph is not None:
        graph.vpush(None)
        yield from _pulled(graph, waiting)


def _graph(frame: av.VideoFrame, workers: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = workers
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_ANY_TIME_BASE)
    graph.link_nodes(source, graph.add("bwdif", "mode=send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _pulled(graph: av.filter.Graph, waiting: deque[ItemT]) -> Iterator[tuple[ItemT, av.VideoFrame]]:
    while True:
        try:
            frame = graph.vpull()
        except (av.BlockingIOError, av.EOFError):  # it wants another frame, or has given the last one
            return
        yield waiting.popleft(), frame
