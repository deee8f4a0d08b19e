"""What runs, how far it is and for how long: a line that stays fresh on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from types import TracebackType

from vadpipe import paths, progress
from vadpipe.clock import duration

# How often to look, seconds: a terminal is redrawn, a file or pipe gets a line for each stage that moved.
TERMINAL_S, ELSEWHERE_S = 1.0, 30.0


class Watch:
    """Tells of stages on standard output for as long as its block lasts."""

    def __init__(self, stages: int) -> None:
        self.done = 0
        self._stages = stages
        self._terminal = sys.stdout.isatty()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._started: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._clear()

    def started(self, stage: str) -> None:
        """Take up a stage; on a terminal it shows in the fresh line."""
        with self._lock:
            self._started[stage] = time.monotonic()
        if not self._terminal:
            self.say(f"{stage} started")

    def succeeded(self, stage: str, headline: str) -> None:
        """Drop a stage and print what it made."""
        with self._lock:
            self.done += 1
            count = self.done
        self.say(f"[{count} of {self._stages}] {stage}, {self._drop(stage)}{headline and ': '}{headline}")

    def failed(self, stage: str, reason: str) -> None:
        """Drop a stage and print why it failed."""
        self.say(f"{stage} failed after {self._drop(stage)}: {reason}")

    def _drop(self, stage: str) -> str:
        """Return how long a stage ran."""
        with self._lock:
            took = time.monotonic() - self._started.pop(stage)
        paths.progress(stage).unlink(missing_ok=True)
        return f"{took:.0f} s" if took < 100 else duration(took)

    def say(self, line: str) -> None:
        """Print a line above the fresh one."""
        with self._lock:
            if not self._over.is_set():
                self._clear()
                print(line, flush=True)
                self._draw()

    def _look(self) -> None:
        while not self._over.wait(TERMINAL_S if self._terminal else ELSEWHERE_S):
            with self._lock:
                if self._terminal:
                    self._clear()
                    self._draw()
                else:
                    self._tell_what_moved()

    def _tell_what_moved(self) -> None:
        for stage in self._started:
            report = progress.read(paths.progress(stage))
            if report and self._told.get(stage) != (told := report.told(stage)):
                self._told[stage] = told
                print(self._running(stage), flush=True)

    def _running(self, stage: str) -> str:
        report = progress.read(paths.progress(stage))
        how_far = f", {report.told(stage)}" if report else ""
        return f"{stage} {duration(time.monotonic() - self._started[stage])}{how_far}"

    def _draw(self) -> None:
        if self._terminal and self._started and not self._over.is_set():
            line = " | ".join(map(self._running, self._started))
            print(line[: shutil.get_terminal_size().columns - 1], end="", flush=True)

    def _clear(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", flush=True)
