"""Work on all cores, in order, without reading far ahead."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Return how many cores this process may use; `VADPIPE_CORES` (set by `vadpipe repro -j`) lowers it."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(available, int(os.environ.get("VADPIPE_CORES") or available)))


def ordered_map(
    work: Callable[[T], R], items: Iterable[T], workers: int | None = None, processes: bool = False
) -> Iterator[R]:
    """Apply `work` in threads and yield the results in order.

    At most `workers + 2` items are in flight, so memory does not grow with the number of items.
    Threads suffice where OpenCV, numpy and pyarrow, which release the interpreter lock in their loops, take the time;
    work of many small steps needs `processes`, to which `work` and the items are sent. One worker needs neither.
    """
    workers = workers or cores()
    if processes and workers == 1:
        yield from map(work, items)
        return
    with ProcessPoolExecutor(workers) if processes else ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= workers + 2:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
