"""Which frames are taken: against a twin in exact fractions, and over hours."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from vadpipe.store.sampling import Sampling


def regular(fps: Fraction | int, count: int) -> list[tuple[float, int]]:
    """Frames with their numbers, at the times of a constant rate."""
    return [(float(index / Fraction(fps)), index) for index in range(count)]


def taken(sampling: Sampling, timed: list[tuple[float, int]]) -> list[int]:
    return [item for _, item in sampling.take(timed)]


def test_all_frames_by_default() -> None:
    frames = regular(25, 7)
    assert list(Sampling().take(frames)) == frames


def test_every_counts_from_the_first_frame_at_or_after_start() -> None:
    assert taken(Sampling(every=3), regular(10, 10)) == [0, 3, 6, 9]
    assert taken(Sampling(every=3, start=0.15), regular(10, 10)) == [2, 5, 8]
    assert taken(Sampling(every=3, start=0.2), regular(10, 10)) == [2, 5, 8]


def test_end_is_exclusive_and_nothing_is_read_after_it() -> None:
    read = []

    def source() -> Iterator[tuple[float, int]]:
        for time, index in regular(10, 100):
            read.append(index)
            yield time, index

    assert [item for _, item in Sampling(start=0.3, end=0.6).take(source())] == [3, 4, 5]
    assert read[-1] == 6
    read.clear()
    assert [item for _, item in Sampling(rate=5, end=0.6).take(source())] == [0, 2, 4]
    assert read[-1] <= 6


def test_it_is_lazy() -> None:
    def endless() -> Iterator[tuple[float, int]]:
        index = 0
        while True:
            yield index / 25, index
            index += 1

    for sampling in (Sampling(every=4), Sampling(rate=5.0), Sampling(fps=3.0)):
        assert [item for _, item in zip(range(3), sampling.take(endless()), strict=False)]


@pytest.mark.parametrize("digits", [None, 6, 3])
@pytest.mark.parametrize(
    ("fps", "rate", "step", "seconds"),
    [
        (25, 5.0, 5, 3600),
        (30, 15.0, 2, 60),
        (30, 10.0, 3, 60),
        (Fraction(30000, 1001), 30000 / 1001, 1, 60),
        (Fraction(30000, 1001), 10000 / 1001, 3, 3600),
        (Fraction(24000, 1001), 12000 / 1001, 2, 60),
    ],
)
def test_a_divisor_of_the_rate_takes_exactly_every_nth_frame(
    fps: Fraction | int, rate: float, step: int, seconds: int, digits: int | None
) -> None:
    """Also after an hour, and where stamps are rounded to microseconds or milliseconds."""
    count = int(seconds * fps)
    frames = (
        (round(time, digits or 15), index) for time, index in ((index / float(fps), index) for index in range(count))
    )
    assert [index for _, index in Sampling(rate=rate).take(frames)] == list(range(0, count, step))


def test_instants_do_not_drift() -> None:
    frames = ((second / 2, second) for second in range(2 * 3601))
    times = [time for time, _ in Sampling(rate=30000 / 1001, start=1.0).take(frames)]
    assert len(times) == 107893  # 0 to 107892: 3600 s at 30000/1001 are 107892.1
    assert times[-1] == pytest.approx(1 + 107892 * 1001 / 30000, abs=1e-9)


def test_a_frame_stands_until_the_next_one() -> None:
    frames = [(0.0, 0), (0.1, 1), (1.0, 2), (1.05, 3), (1.1, 4)]
    # The last one stands for the median duration, 0.075 s.
    assert taken(Sampling(rate=5), frames) == [0, 1, 1, 1, 1, 2]
    assert taken(Sampling(rate=20), frames) == [0, 0, *[1] * 18, 2, 3, 4, 4]
    assert list(Sampling(rate=2, start=0.3).take(frames)) == [(0.3, 1), (0.8, 1)]


def test_a_single_frame_is_taken_once() -> None:
    assert taken(Sampling(rate=5), [(0.0, 0)]) == [0]


def test_rate_of_fewer_frames_than_it_asks_for() -> None:
    assert taken(Sampling(rate=20), regular(10, 3)) == [0, 0, 1, 1, 2, 2]


def test_fps_replaces_the_times() -> None:
    frames = [(0.0, 0), (5.0, 1), (5.1, 2)]
    assert list(Sampling(fps=10).take(frames)) == [(0.0, 0), (0.1, 1), (0.2, 2)]
    assert list(Sampling(fps=10, rate=5).take(frames)) == [(0.0, 0), (0.2, 2)]


def test_against_a_twin_in_fractions() -> None:
    """Times, rates and limits are multiples of 1/40 s, so that none is near a limit by less than the tolerance."""
    rng = np.random.default_rng(5)
    for _ in range(300):
        gaps = rng.integers(0, 12, rng.integers(2, 30))
        stamps = [Fraction(int(tick), 40) for tick in np.concatenate([[0], np.cumsum(gaps)])]
        rate = Fraction(40, int(rng.integers(1, 20)))
        start, end = Fraction(int(rng.integers(0, 60)), 40), Fraction(int(rng.integers(1, 200)), 40)
        frames = [(float(stamp), index) for index, stamp in enumerate(stamps)]
        sampling = Sampling(rate=float(rate), start=float(start), end=float(end))
        assert taken(sampling, frames) == twin_rate(stamps, rate, start, end)
        every = int(rng.integers(1, 5))
        inside = [index for index, stamp in enumerate(stamps) if start <= stamp < end]
        assert taken(Sampling(every=every, start=float(start), end=float(end)), frames) == inside[::every]


def twin_rate(stamps: list[Fraction], rate: Fraction, start: Fraction, end: Fraction) -> list[int]:
    gaps = sorted([after - before for before, after in pairwise(stamps)][-15:])
    typical = (gaps[(len(gaps) - 1) // 2] + gaps[len(gaps) // 2]) / 2
    last = min(end, stamps[-1] + typical)
    found, number = [], 0
    while (instant := start + number / rate) < last:
        found.append(max(index for index, stamp in enumerate(stamps) if stamp <= instant))
        number += 1
    return found


def test_fps_of_what_is_taken() -> None:
    assert Sampling().fps_of(25.0) == 25.0
    assert Sampling(every=5).fps_of(25.0) == 5.0
    assert Sampling(fps=10, every=5).fps_of(25.0) == 2.0
    assert Sampling(rate=4).fps_of(None) == 4
    assert Sampling(every=2).fps_of(None) is None


@pytest.mark.parametrize(
    "wrong", [{"rate": 5.0, "every": 2}, {"every": 0}, {"rate": 0.0}, {"rate": -1.0}, {"fps": 0.0}]
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="every"):
        Sampling(**wrong)  # type: ignore[arg-type]
