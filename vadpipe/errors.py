"""Errors that a user can mend, and the one place that tells them from those of the program."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType

# What the operating system says when an output cannot be written, and the way out.
_CANNOT_WRITE = {
    errno.ENOSPC: "no space is left on the device; free some, or move the folder to a larger disk",
    errno.EDQUOT: "the disk quota is used up; free some space, or move the folder to another disk",
    errno.EFBIG: "the file grew past the size limit that is set here; raise the limit or free space",
    errno.EROFS: "the folder is on a read-only file system; choose a writable one",
    errno.EACCES: "the folder cannot be written; change its permissions or choose another one",
    errno.EPERM: "the folder cannot be written; change its permissions or choose another one",
    errno.ENOTDIR: "a file lies where a folder is wanted; move it away",
    errno.EEXIST: "something else lies in its way; move it away",
    errno.EISDIR: "a folder lies where the file is wanted; move it away",
    errno.ELOOP: "its links lead in a circle; mend them",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
    errno.EMFILE: "too many files are open; raise the limit (`ulimit -n`)",
    errno.EIO: "the disk reports an error; check it",
}
_CANNOT_READ = {
    errno.ENOENT: "it is not here; run `dvc repro` or `dvc pull`, or add the file",
    errno.EACCES: "it may not be read; change its permissions",
    errno.EPERM: "it may not be read; change its permissions",
    errno.EISDIR: "it is a folder, but a file is wanted; put the file there",
    errno.ENOTDIR: "a part of the path is a file; correct the path",
    errno.ELOOP: "its links lead in a circle; mend or remove them",
    errno.EIO: "the disk reports an error; check it, and replace the file",
    errno.EMFILE: "too many files are open; raise the limit (`ulimit -n`)",
    errno.ENAMETOOLONG: "its name is too long for this file system; shorten it",
}
# Libraries wrap the error of the system in an error of their own, and the number stands in its text only.
_WRAPPED = re.compile(r"\b(?:os error|errno:?) (\d+)|\[[Ee]rrno (\d+)\]")
# NumPy writes less than it was asked to and says so without a number: the disk is full or a limit is reached.
_SHORT_WRITE = re.compile(r"requested and \d+ written|PytorchStreamWriter failed|unexpected pos \d+ vs \d+")


# What NumPy, PyTorch and its oneDNN, OpenCV, Arrow, C++ and the system say.
_NO_MEMORY = re.compile(
    r"out of memory|(can't|cannot|unable to) allocate|insufficient memory|bad_alloc|"
    r"could not (create|execute) a primitive|failed to map segment",
    re.IGNORECASE,
)
_NO_THREAD = "can't start new thread"
_INTERRUPTED = "interrupted"


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
    except UserError:
        raise
    except Exception as error:
        code = _code(error)
        if code not in _CANNOT_WRITE or _elsewhere(error, path):
            raise
        raise UserError(f"cannot write {path}: {_CANNOT_WRITE[code]}") from error


def _elsewhere(error: BaseException, path: Path) -> bool:
    """Say whether an error is of a file that is not written: neither `path` nor anything beside or below it."""
    if _of_space(error):
        return False
    named = _named(error)
    if named is None:
        return False
    folder, file = path.parent.absolute(), Path(named).absolute()
    return not (file.is_relative_to(folder) or folder.is_relative_to(file))


def _of_space(error: BaseException) -> bool:
    """Say whether an error is one that only writing can meet."""
    return _code(error) in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def _code(error: BaseException) -> int | None:
    """Return the number of the operating system's error inside an error, None if there is none."""
    if copied := _copied(error):
        return _number(copied[-1])
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    return errno.ENOSPC if _SHORT_WRITE.search(text) else _number(text)


def _named(error: BaseException) -> str | None:
    """Return the file that an error of the operating system names."""
    if copied := _copied(error):
        return next((name for name in copied[:-1] if repr(name) in copied[-1]), None)
    named = getattr(error, "filename", None)
    return os.fsdecode(named) if isinstance(named, str | bytes | os.PathLike) else None


def _copied(error: BaseException) -> list[str]:
    """Return the source, the target and what was said of the first file that `shutil.copytree` could not copy."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return [str(part) for part in error.args[0][0]]
    return []


def _number(text: str) -> int | None:
    found = _WRAPPED.search(text)
    return int(found[1] or found[2]) if found else None


def no_memory(error: BaseException) -> bool:
    """Say whether an error, of whatever library, is that memory ran out; then the file at hand is not to blame."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def _first(error: BaseException) -> BaseException:
    """Return the error that came first: trouble with ending a pool of threads hides that none could be started."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def explain(error: BaseException) -> str | None:
    """Return the sentence for an error that a user can mend, None for one of the program.

    Every stage and command ends here, so that a kind of error is told in one way.
    """
    if isinstance(error, UserError):
        return str(error)
    first = _first(error)
    if no_memory(error) or no_memory(first):
        return f"there is not enough memory ({_line(first)}); lower `batch` or the size of what is read, or free some"
    if _NO_THREAD in str(first):
        return (
            "no further thread can be started here; use fewer cores (VADPIPE_CORES=1), or raise the limit (`ulimit -u`)"
        )
    code, named = _code(error), _named(error)
    if _of_space(error):
        return f"cannot write {named or 'a file'}: {_CANNOT_WRITE[code or errno.ENOSPC]}"
    if named is not None and code in _CANNOT_READ:
        return f"{named} cannot be read: {_CANNOT_READ[code]}"
    return None


def _line(error: BaseException) -> str:
    """Return what an error says on one line, short."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Tell of Ctrl-C in a line, of all else as Python does; a `sys.excepthook`."""
    if issubclass(kind, KeyboardInterrupt):
        print(_INTERRUPTED, file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


@contextmanager
def exit_code_2() -> Iterator[None]:
    """End with one line instead of a traceback: exit code 2 for a user's mistake, 130 for Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        print(_INTERRUPTED, file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output (`| head`) has seen enough; Python would complain when it flushes the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(2)
