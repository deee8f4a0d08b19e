"""The one line that matters in what DVC and a stage printed."""

from __future__ import annotations

import os
import re

# DVC prints the command of a stage, then what the stage prints, then lines of its own.
_STAGE = re.compile(r"^Running stage '.+':\n> .*\n(?P<said>[\s\S]*)", re.MULTILINE)
_DVC = re.compile(
    r"^(Updating lock file|Generating lock file|To track the changes|Use `dvc push`|ERROR:)", re.MULTILINE
)


def headline(text: str) -> str:
    """Return the last line that a stage printed, or why it did not run."""
    if "is cached - skipping run" in text:
        return "taken from the cache of runs"
    if "didn't change, skipping" in text:
        return "nothing new"
    return (_said(text).splitlines() or [""])[-1]


def reason(text: str, code: int) -> str:
    """Return why a stage failed, in one line.

    Args:
        text: what `dvc repro` and the stage printed.
        code: exit code of `dvc repro`, negative for a signal.
    """
    if code < 0:
        return f"DVC was {_signal(-code)}"
    errors = re.findall(r"^ERROR: (?:failed to reproduce '.+?': )?(.+)$", text, re.MULTILINE)
    error = errors[-1] if errors else (text.strip().splitlines() or ["DVC failed without a word"])[-1]
    if ended := re.search(r"failed to run: .*, exited with (-?\d+)$", error):
        # A shell says 128 + n of what a signal n ended.
        number = int(ended[1])
        if number < 0 or number > 128:
            return _signal(-number if number < 0 else number - 128)
        return _error(_said(text)) or f"it ended with exit code {number} and said nothing"
    if missing := re.search(r"No such file or directory: '(.+)'|missing data 'source': (.+)", error):
        return f"{os.path.relpath(missing[1] or missing[2])} is not here; add the data or run `dvc pull`"
    return error


def _said(text: str) -> str:
    """Return what the stage itself printed, of which the beginning may be cut off."""
    found = _STAGE.search(text)
    return _DVC.split(found["said"] if found else text)[0].strip()


def _error(said: str) -> str:
    """Return the error in what a stage printed: a sentence for the user, the end of a traceback, or the last line."""
    if mended := re.findall(r"^error: (.+(?:\n {2,}.+)*)", said, re.MULTILINE):
        return "; ".join(line.strip() for line in mended[-1].splitlines())
    trace = said.rpartition("Traceback (most recent call last):\n")
    if trace[1]:
        return next((line for line in trace[2].splitlines() if not line.startswith(" ")), "")
    return (said.splitlines() or [""])[-1]


def _signal(number: int) -> str:
    return f"ended by signal {number}" + (", often out of memory" if number == 9 else "")
