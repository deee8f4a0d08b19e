"""Files as users have them: read whole or refused in one sentence; nothing that could hang is opened."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vadpipe.errors import UserError

# What may lie where a file is wanted.
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_REASONS = {
    errno.EACCES: "it may not be read; change its permissions, or those of its folder",
    errno.EPERM: "it may not be read; change its permissions, or those of its folder",
    errno.ELOOP: "its links lead in a circle; mend or remove them",
    errno.ENOTDIR: "a part of the path is a file; correct the path",
    errno.EIO: "the disk reports an error; copy the file from where it came",
}
_LARGEST = 2 * 10**9  # bytes of a file that is read whole; the largest picture that is read has 1.6


def there(path: Path) -> bool:
    """Say whether anything lies at `path`; a link that leads nowhere does, and is not absent."""
    return os.path.lexists(path)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Refuse what is not a file that can be read to its end, and say in a sentence why reading failed.

    A named pipe or a device in the place of a file would be waited for without end.

    Raises:
        UserError: nothing is there, the link leads nowhere or in a circle, it is a folder, pipe, device or socket, or
            it may not be read.
    """
    found = kind(path)
    if found != stat.S_IFREG:
        raise UserError(f"{path} is {KINDS.get(found, 'no file')}, but a file is wanted here; put the file there")
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read: {_REASONS.get(error.errno or 0, f'{error}; replace it')}") from None


def check_folder(path: Path) -> None:
    """Refuse what is not a folder that may be listed.

    Raises:
        UserError: nothing is there, the link leads nowhere or in a circle, or it is something else.
    """
    found = kind(path)
    if found != stat.S_IFDIR:
        raise UserError(f"{path} is {KINDS.get(found, 'a file')}, but a folder is wanted here")
    if not os.access(path, os.R_OK | os.X_OK):
        raise UserError(f"{path} cannot be read: {_REASONS[errno.EACCES]}")


def kind(path: Path) -> int:
    """Return what lies at a path, links followed, as `stat.S_IFMT` does.

    Raises:
        UserError: nothing is there, or the link leads nowhere or in a circle.
    """
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except OSError as error:
        raise UserError(_why(path, error)) from None


def _why(path: Path, error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return f"{path} is a link that leads back to itself; remove it"
    if path.is_symlink():
        return (
            f"{path} is a link to {path.readlink()}, which cannot be reached ({error.strerror}); "
            "restore that, or remove the link"
        )
    if error.errno == errno.ENOENT:
        return f"{path} is not there; add it, or remove what refers to it"
    return f"{path} cannot be read: {_REASONS.get(error.errno or 0, f'{error.strerror}; replace it')}"


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        UserError: as `reading`, or it has more than 2 GB.
    """
    with reading(path):
        size = path.stat().st_size
        if size > _LARGEST:
            raise UserError(f"{path} has {size / 10**9:.1f} GB, more than it can need; replace it")
        return path.read_bytes()


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file; a byte order mark is dropped.

    Raises:
        UserError: as `read_bytes`, or it is no UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None


def read_json(path: Path, way_out: str) -> dict[str, Any]:
    """Return the values of a JSON file that the pipeline wrote.

    Args:
        way_out: what to do about a damaged one.

    Raises:
        UserError: it is missing, cut off, or not an object.
    """
    try:
        values = json.loads(read_bytes(path).decode())
    except ValueError as error:
        raise UserError(f"{path} is no whole JSON ({error}); {way_out}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds {type(values).__name__} where keys and values are wanted; {way_out}")
    return values
