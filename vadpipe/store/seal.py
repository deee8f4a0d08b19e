"""Checksums of a folder of files that have none of their own: models and maps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from vadpipe.errors import UserError
from vadpipe.files import read_json
from vadpipe.parallel import ordered_map
from vadpipe.store.atomic import write_json

_SEAL = "sha256.json"


def seal(folder: Path) -> None:
    """Write down the sha256 of every file of a finished folder."""
    write_json(folder / _SEAL, dict(_digests(folder)))


def check_seal(folder: Path, way_out: str) -> None:
    """Refuse a folder of which a file is missing, was added, or has other bytes than when it was sealed.

    Args:
        way_out: how the folder is made anew, such as "run `dvc repro train@ped2_knn`".

    Raises:
        UserError: the file is named.
    """
    if not (folder / _SEAL).is_file():
        raise UserError(f"{folder / _SEAL} is not here, so {folder} is not whole; {way_out}")
    sealed, there = read_json(folder / _SEAL, way_out), dict(_digests(folder))
    if not all(isinstance(digest, str) for digest in sealed.values()):
        raise UserError(f"{folder / _SEAL} holds other things than checksums; {way_out}")
    for name in sorted(sealed.keys() | there.keys()):
        if name not in there:
            raise UserError(f"{folder / name} is missing; {way_out}")
        if name not in sealed:
            raise UserError(f"{folder / name} was added after {folder} was made; remove it, or {way_out}")
        if sealed[name] != there[name]:
            raise UserError(f"{folder / name} is not what was written: its sha256 differs; {way_out}")


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / _SEAL)
    names = (file.relative_to(folder).as_posix() for file in files)
    return zip(names, ordered_map(_digest, files), strict=True)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
