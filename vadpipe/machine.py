"""What this machine has: memory and disk, told before work begins that needs more."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from pathlib import Path

from vadpipe.errors import UserError

# What a container may use of the memory: bytes, or `max`.
_LIMIT = Path("/sys/fs/cgroup/memory.max")
# Parameters of `mallopt` (malloc.h of glibc), and bytes up to which freed memory is kept.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 2**30


def memory() -> int:
    """Return how many bytes of memory this process may use at most."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _LIMIT.read_text().strip()
    except OSError:
        return there
    return min(there, int(limit)) if limit.isdecimal() else there


def keep_freed_memory() -> None:
    """Let memory that was freed stay with this process, for what it asks for next.

    By default glibc hands blocks of megabytes back to the system and asks for them anew; a network, whose layers ask
    for the same blocks in every batch, then spends a third of its time in page faults (docs/performance.md).
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)


def check_disk(out: Path, size: float, way_out: str, cached: bool = True) -> None:
    """Say how much disk an output takes, and refuse one that does not fit.

    Args:
        size: bytes of the output.
        cached: whether DVC keeps it in its cache, which takes as much again where a file system cannot share blocks.

    Raises:
        UserError: there is less space than that.
    """
    place = next(parent for parent in out.absolute().parents if parent.exists())
    free = shutil.disk_usage(place).free
    if size > free:
        raise UserError(f"{out} will take {gigabytes(size)}, but {gigabytes(free)} are free there; {way_out}")
    again = ", and as much again in DVC's cache" if cached else ""
    print(f"{out} will take {gigabytes(size)}{again}; {gigabytes(free)} are free", flush=True)


def gigabytes(size: float) -> str:
    """Return bytes for people: `1.2 GB`, `35 MB`."""
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB"
