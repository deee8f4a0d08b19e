"""The times of a video's frames, from the stamps that they carry."""

from __future__ import annotations

from fractions import Fraction

_RESTART = 1.0  # seconds backwards from which on the stamps count as starting again (files that were joined)
_ROUNDED = 0.002  # seconds that rounding to milliseconds changes a duration by
_DIFFERS = 0.01  # relative difference of frame rates that is told
_ASSUMED = 25.0  # frames a second where neither stamps nor header say anything


class Stamps:
    """Turns presentation stamps into seconds from the first shown frame, and remembers what is odd about them."""

    def __init__(self, tick: Fraction, declared: float | None) -> None:
        """Begin a clip whose stamps count `tick` seconds and whose header speaks of `declared` frames a second."""
        self.count = 0
        self.time = 0.0  # of the last frame
        self._tick = tick
        self._declared = declared
        self._origin: int | None = None  # a stamp, and the seconds that it stands for
        self._base = 0.0
        self._known = -self.period  # seconds of the last stamp
        self._since = 0  # frames since then
        self._missing = self._stuck = self._restarts = 0
        self._shortest, self._longest = float("inf"), 0.0

    @property
    def period(self) -> float:
        """Seconds a frame as the header says."""
        return 1 / (self._declared or _ASSUMED)

    @property
    def ahead(self) -> float:
        """Seconds at which the next frame is to be expected."""
        return self.time + self.period if self.count else 0.0

    def next(self, stamp: int | None) -> float:
        """Return the seconds of the next frame, never before those of the last one."""
        time = self._seconds(stamp)
        if self.count:
            time = self._forward(time, stamp)
            if time > self.time:
                self._shortest = min(self._shortest, time - self.time)
            self._longest = max(self._longest, time - self.time)
        self.time = time
        self.count += 1
        return time

    def _seconds(self, stamp: int | None) -> float:
        if stamp is None:
            self._missing += 1
            self._since += 1
            return self._known + self._since * self.period
        if self._origin is None:
            self._origin, self._base = stamp, self.ahead
        self._since = 0
        self._known = self._base + float((stamp - self._origin) * self._tick)
        return self._known

    def _forward(self, time: float, stamp: int | None) -> float:
        if time < self.time - _RESTART:
            self._restarts += 1
            self._origin, self._base = stamp, self.ahead
            self._known = self._base
            return self._known
        if time <= self.time:
            self._stuck += 1
        return max(time, self.time)

    def fps(self) -> float | None:
        """Return the average frame rate: what the header says, unless the stamps say otherwise."""
        if self.time == 0:
            return self._declared
        measured = (self.count - 1) / self.time
        rounding = _ROUNDED / self.time  # of the measured rate, relative
        if self._declared and not self.variable() and abs(measured / self._declared - 1) < _DIFFERS + rounding:
            return self._declared
        return measured

    def variable(self) -> bool:
        """Say whether durations differ by more than the rounding of stamps explains.

        Stamps are rounded to ticks, and often were to milliseconds in a file that this one was made from: durations
        then differ by two ticks or 2 ms at most. Where a frame takes one tick, as in AVI, two are a lost frame.
        """
        if self.count < 3:
            return False
        rounding = min(max(2 * float(self._tick), _ROUNDED), self.time / (self.count - 1) / 2)
        return self._longest - self._shortest > rounding

    def notes(self, resampled: bool) -> list[str]:
        """Return what is odd about the stamps of the frames so far, in plain words."""
        notes = []
        if self._missing == self.count > 0:
            notes.append(f"it carries no time stamps; {1 / self.period:g} frames a second are assumed, `fps` overrides")
        elif self._missing:
            notes.append(f"{self._missing} frames carry no time stamp; the frame rate fills them in")
        if self._restarts:
            notes.append(f"its time stamps start again {self._restarts} times; the times here go on")
        if self._stuck:
            notes.append(f"the time stamps of {self._stuck} frames do not go forward; they keep the time before")
        if self.variable():
            notes.append(
                f"variable frame rate, {1 / self._longest:.3g} to {1 / self._shortest:.3g} frames a second, "
                f"{self.fps():.4g} on average" + ("" if resampled else "; give `rate` to resample")
            )
        elif self._declared and self.fps() != self._declared:
            notes.append(f"the header says {self._declared:.4g} frames a second, the time stamps {self.fps():.4g}")
        return notes
