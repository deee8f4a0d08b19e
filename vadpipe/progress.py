"""Progress of work that comes one by one or in chunks: a bar on a terminal, a line in a file for `vadpipe repro`."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Sized
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from vadpipe.clock import duration

ItemT = TypeVar("ItemT")
ChunkT = TypeVar("ChunkT", bound=Sized)

# Names the file that `vadpipe repro` looks at while the stage runs.
VARIABLE = "VADPIPE_PROGRESS"


def bar(total: int | None, unit: str, desc: str, done: int = 0) -> tqdm[Any]:
    """Return a bar, a context manager with `update(n)`; silent where nobody looks.

    Args:
        total: how many there are, None if that is not known.
        unit: plural, such as `frames`.
        done: how many were done before.
    """
    path = os.environ.get(VARIABLE)
    if path:
        return _FileBar(Path(path), total=total, initial=done, unit=unit, desc=desc)
    return tqdm(total=total, initial=done, unit=f" {unit}", desc=desc, disable=None)


def counted(items: Iterable[ItemT], bar: tqdm[Any]) -> Iterator[ItemT]:
    """Yield the items and move the bar by one for each, once it is dealt with."""
    for item in items:
        yield item
        bar.update()


def advancing(chunks: Iterable[ChunkT], bar: tqdm[Any]) -> Iterator[ChunkT]:
    """Yield the chunks and move the bar by the length of each, once it is dealt with."""
    for chunk in chunks:
        yield chunk
        bar.update(len(chunk))


class _FileBar(tqdm):  # type: ignore[type-arg]
    """A bar that is one line of JSON in a file, written at most once a second."""

    # No thread of tqdm's own: with `miniters=1`, the clock is looked at with each item.
    monitor_interval = 0

    def __init__(self, path: Path, **settings: Any) -> None:
        self._path = path
        super().__init__(file=io.StringIO(), mininterval=1.0, miniters=1, **settings)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Write where the work stands."""
        now = self.format_dict
        done = now["n"] - now["initial"]
        rate = now["rate"] or (done / now["elapsed"] if done and now["elapsed"] else None)
        line = {"desc": self.desc.removesuffix(": "), "done": self.n, "total": self.total, "unit": self.unit}
        beside = self._path.with_name(f"{self._path.name}.new")
        # A full disk fails the output of the stage, which is then named, and not its progress.
        with suppress(OSError):
            beside.write_text(json.dumps({**line, "rate": rate}) + "\n")
            beside.replace(self._path)


@dataclass(frozen=True)
class Report:
    """What a bar left in its file; `rate` is a second."""

    desc: str
    done: int
    total: int | None
    unit: str
    rate: float | None

    def told(self, stage: str) -> str:
        """Say how far a stage is: `4,000 of 10,000 frames, 81 frames/s, 0:01:14 left`."""
        # `train seed 3` of train@mine is its seed 3.
        desc = " ".join(word for word in self.desc.split() if word not in stage.split("@"))
        parts = [f"{self.done:,} {self.unit}" if self.total is None else f"{self.done:,} of {self.total:,} {self.unit}"]
        if self.rate and self.unit == "frames":
            parts.append(f"{self.rate:.3g} frames/s" if self.rate < 100 else f"{self.rate:,.0f} frames/s")
        if self.rate and self.total is not None:
            parts.append(f"{duration((self.total - self.done) / self.rate)} left")
        return ", ".join(([desc] if desc else []) + parts)


def read(path: Path) -> Report | None:
    """Return what a bar last wrote, None where it wrote nothing (yet)."""
    try:
        return Report(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
