"""Files as users have them: read whole or refused in one sentence; nothing that could hang is opened."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from vadpipe.errors import UserError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def there(path: Path) -> bool:
    """Say whether anything lies at `path`; a link that leads nowhere does, and is not absent."""
    return os.path.lexists(path)


def check_regular(path: Path) -> None:
    """Refuse what is not a file that can be read to its end.

    Raises:
        UserError: nothing is there, the link leads nowhere or in a circle, or it is a folder, pipe, device or socket.
    """
    kind = _mode(path)
    if kind != stat.S_IFREG:
        raise UserError(f"{path} is {_KINDS.get(kind, 'no file')}, but a file is wanted; put the file there")


def check_folder(path: Path) -> None:
    """Refuse what is not a folder.

    Raises:
        UserError: nothing is there, the link leads nowhere or in a circle, or it is something else.
    """
    kind = _mode(path)
    if kind != stat.S_IFDIR:
        raise UserError(f"{path} is {_KINDS.get(kind, 'a file')}, but a folder is wanted")


def _mode(path: Path) -> int:
    """Return what lies at a path, links followed, as `stat.S_IFMT` does."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError(
                f"{path} is a link to {os.readlink(path)}, where nothing is; mend the link or remove it"
            ) from None
        raise UserError(f"{path} is not here") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; mend or remove it") from None


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        UserError: as `check_regular`, or the file may not be read.
    """
    check_regular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; change its permissions or replace it") from None


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
