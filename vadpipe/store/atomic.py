"""Outputs are written beside their place and moved there when they are whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vadpipe.errors import writing


@contextmanager
def replacing(path: Path, folder: bool = False) -> Iterator[Path]:
    """Give a path beside `path` to write to, and move it to `path` at the end.

    What a killed run left beside is removed at the start, what a failed one left at its end, so that
    `path` is either whole or not there. With `folder`, the given path is a new empty folder.

    Raises:
        UserError: the disk is full or read-only, or the folder cannot be written.
    """
    beside = path.with_name(f".{path.name}.partial")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(beside)
        if folder:
            beside.mkdir()
        try:
            yield beside
            _remove(path)
            os.replace(beside, path)
        except BaseException:
            _remove(beside)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file in one move."""
    with replacing(path) as beside:
        beside.write_text(text)


def write_json(path: Path, values: Mapping[str, object]) -> None:
    """Write a JSON file in one move, indented and with a final newline so that it reads well in a diff."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
