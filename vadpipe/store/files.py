"""Files of users: only regular ones are opened, and what cannot be read is said in a sentence."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vadpipe.errors import UserError

_SPECIAL = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
MAX_BYTES = 2 * 10**9  # of a file that is read whole; the largest picture that is read has 1.6
_CANNOT_READ = {
    errno.EACCES: "you have no permission to read it; change its permissions, or those of its folder",
    errno.EPERM: "you have no permission to read it; change its permissions, or those of its folder",
    errno.ELOOP: "it is a link that leads back to itself; replace it with the file",
    errno.EIO: "the disk reports an error; copy the file from where it came",
}


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Check that `path` is a regular file, and turn the errors of reading it into a `UserError` that names it.

    A named pipe or a device in the place of a file would be waited for without end.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind != stat.S_IFREG:
            raise UserError(f"{path} is {_SPECIAL.get(kind, 'no regular file')}, but a file is needed; replace it")
        yield
    except FileNotFoundError:
        why = "is a link to a file that is not there; mend the link" if path.is_symlink() else "is not there; add it"
        raise UserError(f"{path} {why}, or remove what refers to it") from None
    except OSError as error:
        reason = _CANNOT_READ.get(error.errno or 0, f"{error.strerror or error}; replace the file")
        raise UserError(f"{path} cannot be read: {reason}") from None


def read_file(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        UserError: it is no regular file, cannot be read, or has more than 2 GB.
    """
    with reading(path):
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(f"{path} has {size / 10**9:.1f} GB, more than an image or a mask can need; replace it")
        return path.read_bytes()
