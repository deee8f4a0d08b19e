"""Work on all cores, in order, without reading far ahead."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from vadpipe.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

# What a container may use of the processor: microseconds of work and of time, or `max`.
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Return how many cores this process may use; `VADPIPE_CORES` (set by `vadpipe repro -j`) lowers it.

    Raises:
        UserError: `VADPIPE_CORES` is no number above zero.
    """
    wanted = os.environ.get("VADPIPE_CORES", "")
    if wanted and not (wanted.isdecimal() and int(wanted)):
        raise UserError(f"the variable VADPIPE_CORES is '{wanted}', which is no number of cores; set it to 1 or more")
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(there, _quota(), int(wanted or there)))


def _quota() -> int:
    """Return how many cores the container's quota is worth; many where there is none."""
    try:
        work, period = _QUOTA.read_text().split()
    except (OSError, ValueError):
        return 2**16
    return 2**16 if work == "max" else max(1, round(int(work) / int(period)))


def ordered_map(
    work: Callable[[T], R], items: Iterable[T], workers: int | None = None, processes: bool = False
) -> Iterator[R]:
    """Apply `work` in threads and yield the results in order.

    At most `workers + 2` items are in flight, so memory does not grow with the number of items.
    Threads suffice where OpenCV, numpy and pyarrow, which release the interpreter lock in their loops, take the time;
    work of many small steps needs `processes`, to which `work` and the items are sent. One worker needs neither.

    Raises:
        UserError: a worker process was ended from outside.
    """
    workers = workers or cores()
    if processes and workers == 1:
        yield from map(work, items)
        return
    pool = ProcessPoolExecutor(workers, initializer=_worker) if processes else ThreadPoolExecutor(workers)
    with pool:
        pending: deque[Future[R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= workers + 2:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was ended from outside, most often because memory ran out; "
                "close other programs, or use fewer cores (VADPIPE_CORES=1), and run it again"
            ) from None
        finally:
            for future in pending:
                future.cancel()


def _worker() -> None:
    """Prepare a worker process: Ctrl-C is its parent's affair, and it ends when its parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()


def end_with_parent() -> None:
    """End this process when its parent has ended: one that is killed tells nobody, and orphans hold its output."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
