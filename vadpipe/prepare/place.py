"""Raw data into the repository: copied, linked, or tracked by DVC."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from vadpipe.datasets.files import ignored
from vadpipe.errors import UserError, writing
from vadpipe.store.atomic import replacing

How = Literal["copy", "link", "dvc"]


def place(source: Path, target: Path, how: How) -> None:
    """Bring a data set to `data/raw/NAME`.

    Args:
        how: `copy` the files, `link` to the folder where it is, or copy and `dvc add`, so that
            `dvc push` takes the data along.

    Raises:
        UserError: something is there already, the disk is full or read-only, or DVC refuses.
    """
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} is there already; remove it or choose another name")
    with replacing(target) as beside:
        if how == "link":
            beside.symlink_to(source.resolve(), target_is_directory=True)
        else:
            shutil.copytree(source, beside, ignore=lambda _, names: [name for name in names if ignored(name)])
    if how != "dvc":
        # DVC ignores what it adds; the rest must not get into git either.
        with writing(target.parent), (target.parent / ".gitignore").open("a") as file:
            file.write(f"/{target.name}\n")
    if how == "dvc":
        added = subprocess.run([sys.executable, "-m", "dvc", "add", str(target)], check=False)
        if added.returncode:
            raise UserError(f"`dvc add {target}` failed (see above); the data lie there, untracked")
