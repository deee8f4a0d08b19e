"""Commands that run, each with all that it starts, and their end: nothing is left behind and nothing is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType

import psutil

from vadpipe.errors import writing

# How long a command may take to end when it is asked to, seconds.
GRACE_S = 5.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal that asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and a lost terminal into one line and the exit code 128 + number of the signal."""

    def end(number: int, _: FrameType | None) -> None:
        # What follows takes a few seconds and must not be cut short.
        for one in _SIGNALS:
            signal.signal(one, signal.SIG_IGN)
        raise Ended(number)

    # What is ignored stays so: SIGHUP under nohup, SIGINT of what a script put into the background.
    before = {one: signal.getsignal(one) for one in _SIGNALS if signal.getsignal(one) != signal.SIG_IGN}
    for one in before:
        signal.signal(one, end)
    try:
        yield
    except Ended as ended:
        with suppress(OSError):  # a lost terminal takes no more lines
            print("interrupted; what is done is kept, `vadpipe repro` goes on", file=sys.stderr, flush=True)
        sys.exit(128 + ended.number)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


class Processes:
    """Runs commands, in threads of the caller; when its block is left early, all that runs is ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[subprocess.Popen[bytes], Path] = {}
        self.ended = False

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._end_all()

    def run(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """Run a command, its output in a file, and return its exit code, negative for a signal.

        A file, since a pipe would be waited for as long as anything that the command started holds it.
        The command leads a process group of its own, of which nothing is left afterwards.
        """
        with writing(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            file = log.open("wb")
        with file, self._lock:
            if self.ended:
                return -signal.SIGTERM
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running[process] = log
        try:
            return process.wait()
        finally:
            _kill_group(process)
            with self._lock:
                del self._running[process]

    def _end_all(self) -> None:
        """End what runs: what DVC started first, so that DVC itself, which may be writing dvc.lock, ends in order."""
        with self._lock:
            self.ended = True
            running = dict(self._running)
        asked: set[psutil.Process] = set()
        deadline = time.monotonic() + GRACE_S
        while (alive := [one for one in running if one.poll() is None]) and time.monotonic() < deadline:
            for process in alive:
                if not running[process].stat().st_size:
                    process.terminate()  # it said nothing and so has not begun
                for one in set(_below(process)) - asked:
                    asked.add(one)
                    with suppress(psutil.NoSuchProcess):
                        one.terminate()
            time.sleep(0.05)
        for process in running:
            below = _below(process)
            _kill_group(process)
            for one in below:
                with suppress(psutil.NoSuchProcess):
                    one.kill()


def _below(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return what a command started, and what that started."""
    try:
        return list(psutil.Process(process.pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
