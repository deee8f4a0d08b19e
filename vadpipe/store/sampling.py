"""Which frames of a clip are taken: all, every n-th, or so many a second, between a start and an end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import TypeVar

ItemT = TypeVar("ItemT")

# Containers round time stamps, at worst to milliseconds (Matroska, FLV): by its stamp a frame may come half a
# millisecond too late. Without this tolerance 30 -> 15 frames a second would take 0, 1, 4, 6, 7 and not 0, 2, 4, 6, 8.
ROUNDING = 0.000501  # seconds
_RECENT = 15  # durations of which the median is the typical one


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip are taken, and at which times.

    Attributes:
        fps: overrides the frame rate of the source: times are then index / fps.
        every: every n-th frame, counted from the first one at or after `start`.
        rate: frames a second at regular times, start + k / rate; a frame stands until the next one comes,
            so it may be taken twice or not at all.
        start: seconds.
        end: seconds, exclusive.
    """

    fps: float | None = None
    every: int = 1
    rate: float | None = None
    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and self.every != 1:
            raise ValueError("`every` and `rate` exclude each other; give one of them")
        if self.every < 1 or (self.rate is not None and self.rate <= 0) or (self.fps is not None and self.fps <= 0):
            raise ValueError("`every` is at least 1, `rate` and `fps` are above 0")

    def take(self, timed: Iterable[tuple[float, ItemT]]) -> Iterator[tuple[float, ItemT]]:
        """Yield what is taken of `timed` (seconds that never decrease, item), lazily, and read no further than `end`.

        The time is that of the item, with `rate` that at which it was taken.
        """
        if self.fps is not None:
            timed = ((index / self.fps, item) for index, (_, item) in enumerate(timed))
        return self._regular(timed, self.rate) if self.rate is not None else self._nth(timed)

    def fps_of(self, source: float | None) -> float | None:
        """Return the frame rate of what is taken from a source of `source` frames a second; None if it is unknown."""
        if self.rate is not None:
            return self.rate
        fps = self.fps or source
        return None if fps is None else fps / self.every

    def past_end(self, time: float) -> bool:
        """Say whether nothing is taken at this time or later."""
        return self.end is not None and time >= self.end - ROUNDING

    def _nth(self, timed: Iterable[tuple[float, ItemT]]) -> Iterator[tuple[float, ItemT]]:
        inside = 0
        for time, item in timed:
            if self.past_end(time):
                return
            if time < self.start - ROUNDING:
                continue
            if inside % self.every == 0:
                yield time, item
            inside += 1

    def _regular(self, timed: Iterable[tuple[float, ItemT]], rate: float) -> Iterator[tuple[float, ItemT]]:
        # Each instant is computed from its number, not from the one before: nothing adds up over hours.
        instants = (self.start + number / rate for number in count())
        instant = next(instants)
        for item, begin, until in _standing(timed, 1 / rate):
            while instant < until - ROUNDING:
                if self.past_end(instant):
                    return
                if instant >= begin - ROUNDING:
                    yield instant, item
                instant = next(instants)
            if self.past_end(instant):
                return


def _standing(timed: Iterable[tuple[float, ItemT]], alone: float) -> Iterator[tuple[ItemT, float, float]]:
    """Yield each item with the times from and until which it stands; the last one for a typical duration.

    `alone` is the duration of an item without any other.
    """
    durations: deque[float] = deque(maxlen=_RECENT)
    before: tuple[float, ItemT] | None = None
    for time, item in timed:
        if before is not None:
            durations.append(time - before[0])
            yield before[1], before[0], time
        before = time, item
    if before is not None:
        yield before[1], before[0], before[0] + (median(durations) if durations else alone)
