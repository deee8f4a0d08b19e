"""Errors that a user can mend, and the one place that turns them into an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

# What the operating system says when an output cannot be written, and the way out.
_CANNOT_WRITE = {
    errno.ENOSPC: "no space is left on the device; free some, or move the folder to a larger disk",
    errno.EDQUOT: "the disk quota is used up; free some space, or move the folder to another disk",
    errno.EFBIG: "the file grew past the size limit that is set here; raise the limit or free space",
    errno.EROFS: "the folder is on a read-only file system; choose a writable one",
    errno.EACCES: "the folder cannot be written; change its permissions or choose another one",
    errno.EPERM: "the folder cannot be written; change its permissions or choose another one",
}


class UserError(Exception):
    """A mistake that the user can mend: one sentence that names the file, row or key and the way out."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known name, else the known names."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known are: {', '.join(names) or '(none)'}"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the errors of a full, limited or read-only disk into a `UserError` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise UserError(f"cannot write {path}: {_CANNOT_WRITE[error.errno]}") from error


def run_stage(main: Callable[[str], None]) -> None:
    """Run `main(key)` with the key from the command line; a `UserError` ends with exit code 2."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} KEY   (the key of params.yaml that the stage works on)")
    with exit_code_2():
        main(sys.argv[1])


@contextmanager
def exit_code_2() -> Iterator[None]:
    """Print a `UserError` as one line and exit with code 2, without a traceback."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
