"""Outputs are written beside their place, by one process at a time, and moved there when they are whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vadpipe.errors import UserError, writing

_POLL_S = 0.05


@contextmanager
def replacing(path: Path, folder: bool = False) -> Iterator[Path]:
    """Give a path beside `path` to write to, and move it to `path` at the end.

    `path` is at every moment whole, the old or the new, or was never there. The path beside has a name that no
    other process uses, and a lock keeps others away; what a killed one left beside is removed. With `folder`, the
    given path is a new empty folder.

    Raises:
        UserError: another process writes `path`, the disk is full or read-only, or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with writing(path), locked(path):
        for left in path.parent.glob(f".{path.name}.*.partial"):
            _remove(left)
        if folder:
            beside.mkdir()
        try:
            yield beside
            _move(beside, path)
        except BaseException:
            _remove(beside)
            raise


@contextmanager
def locked(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Keep other processes from writing `path`, by a lock file beside it that says who holds it.

    The system frees the lock of a process that has ended, however it ended.

    Args:
        wait_s: how long to wait for another process, seconds.

    Raises:
        UserError: another process holds the lock, or no lock file can be written.
    """
    lock = path.with_name(f".{path.name}.lock")
    deadline = time.monotonic() + wait_s
    with writing(path):
        lock.parent.mkdir(parents=True, exist_ok=True)
        while (file := _try_lock(lock)) is None:
            if time.monotonic() >= deadline:
                raise UserError(f"{path} is being written by {_holder(lock)}; wait until it has ended, or end it")
            time.sleep(_POLL_S)
    try:
        with writing(path):
            os.ftruncate(file, 0)
            since = time.strftime("%H:%M:%S")
            os.write(file, f"process {os.getpid()} on {socket.gethostname()} since {since}".encode())
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(file)


def _try_lock(lock: Path) -> int | None:
    """Return the open lock file, None if another process holds it."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before us removes the file when it is done; then what we have locked is not what others see.
            if _is_at(file, lock):
                return file
        except BlockingIOError:
            os.close(file)
            return None
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _holder(lock: Path) -> str:
    try:
        return lock.read_text() or "another process"
    except FileNotFoundError:
        return "another process"


def _move(beside: Path, path: Path) -> None:
    """Move to `path` in one step; a folder, which no file system replaces, after the old one was moved aside."""
    if path.is_dir() and not path.is_symlink():
        aside = path.with_name(f".{path.name}.{os.getpid()}.old.partial")
        os.replace(path, aside)
        os.replace(beside, path)
        _remove(aside)
    else:
        os.replace(beside, path)


def write_text(path: Path, text: str) -> None:
    """Write a text file in one move."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON file in one move, indented and with a final newline so that it reads well in a diff."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
