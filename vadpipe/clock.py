"""When in a clip, for people."""

from __future__ import annotations

import math


def clock(seconds: float) -> str:
    """Return a time in a clip as h:mm:ss.s, `0:01:05.3`; nothing for NaN, of frames that have no place in time."""
    if math.isnan(seconds):
        return ""
    tenths = round(seconds * 10)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
