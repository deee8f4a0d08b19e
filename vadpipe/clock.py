"""Times for people."""

from __future__ import annotations

import math


def clock(seconds: float) -> str:
    """Return a time in a clip as h:mm:ss.s, `0:01:05.3`; nothing for NaN, of frames that have no place in time."""
    if math.isnan(seconds):
        return ""
    tenths = round(seconds * 10)
    return f"{duration(tenths // 10)}.{tenths % 10}"


def duration(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
