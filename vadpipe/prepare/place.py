"""Raw data into the repository and out of it: copied, linked, or tracked by DVC."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from vadpipe.datasets.files import ignored
from vadpipe.errors import UserError, writing
from vadpipe.files import read_text, there
from vadpipe.store.atomic import locked, replacing, write_text

How = Literal["copy", "link", "dvc"]


def place(source: Path, target: Path, how: How) -> None:
    """Bring a data set to `data/raw/NAME`.

    Args:
        how: `copy` the files, `link` to the folder where it is, or copy and `dvc add`, so that
            `dvc push` takes the data along.

    Raises:
        UserError: something is there already, the disk is full or read-only, or DVC refuses; then nothing is there.
    """
    if there(target):
        raise UserError(f"{target} is there already; remove it or choose another name")
    with replacing(target) as beside:
        if how == "link":
            beside.symlink_to(source.resolve(), target_is_directory=True)
        else:
            shutil.copytree(source, beside, ignore=lambda _, names: [name for name in names if ignored(name)])
    try:
        if how == "link":
            # The folders of data sets are ignored on every branch, a link is no folder to git.
            ignore(target)
        elif how == "dvc":
            dvc("add", str(target))
    except BaseException:
        remove(target)
        raise


def dvc(*arguments: str) -> str:
    """Run a command of DVC and return what it printed.

    Raises:
        UserError: DVC refuses; its own words are given.
    """
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:500]
        raise UserError(f"`dvc {' '.join(arguments)}` failed: {said}")
    return done.stdout


def ignore(target: Path) -> None:
    """Keep an entry of a folder out of git, by the `.gitignore` beside it."""
    _edit_ignored(target, lambda lines: [*lines, f"/{target.name}"] if f"/{target.name}" not in lines else lines)


def remove(target: Path) -> None:
    """Remove an output or raw data, what DVC tracks it by, and its line in the `.gitignore` beside it.

    A link is removed, not what it leads to.
    """
    with writing(target):
        if target.is_symlink() or target.is_file():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)
        target.with_name(f"{target.name}.dvc").unlink(missing_ok=True)
    _edit_ignored(target, lambda lines: [line for line in lines if line != f"/{target.name}"])


def _edit_ignored(target: Path, edit: Callable[[list[str]], list[str]]) -> None:
    path = target.parent / ".gitignore"
    if not target.parent.is_dir():
        return
    with writing(path), locked(path.with_name(".gitignore.edit"), wait_s=10):
        lines = read_text(path).splitlines() if there(path) else []
        edited = edit(lines)
        if edited and edited != lines:
            write_text(path, "".join(f"{line}\n" for line in edited))
        elif not edited:
            path.unlink(missing_ok=True)
