"""Additions to and removals from params.yaml, every comment and line of the rest kept.

An edit reads the file, changes it and replaces it under a lock, so that of two edits at once none is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vadpipe import paths
from vadpipe.errors import UserError
from vadpipe.files import read_text
from vadpipe.params import check
from vadpipe.store.atomic import locked, write_text

Items = Mapping[str, Mapping[str, Any]]

# An edit takes milliseconds; whoever holds the lock longer hangs.
_WAIT_S = 30.0


def add_items(additions: Mapping[str, Items], path: Path = paths.PARAMS) -> None:
    """Add items to sections: `{"flow": {"ped2": {...}}}`.

    Raises:
        UserError: as `check_items`; the file is as it was.
    """
    with _editing(path) as lines:
        _insert_all(lines, additions)


def check_items(additions: Mapping[str, Items], path: Path = paths.PARAMS) -> None:
    """Check what the file would be with the items added, as `params.load` does, and leave it as it is.

    Raises:
        UserError: the result would not be right, for instance because an item of the name is there.
    """
    lines = read_text(path).splitlines(keepends=True)
    _insert_all(lines, additions)
    check("".join(lines), path)


def remove_items(removals: Mapping[str, Collection[str]], path: Path = paths.PARAMS) -> None:
    """Remove items from sections: `{"flow": ["ped2"]}`; items that are not there are none to remove.

    Raises:
        UserError: what is left would not be right, for instance because a run uses what was removed.
    """
    with _editing(path) as lines:
        for section, keys in removals.items():
            remove_keys(lines, section, keys)


def move_item(source: str, target: str, key: str, values: Mapping[str, Any], path: Path = paths.PARAMS) -> None:
    """Move an item from one section to another.

    Raises:
        UserError: what comes out would not be right.
    """
    with _editing(path) as lines:
        remove_keys(lines, source, [key])
        _insert_all(lines, {target: {key: values}})


@contextmanager
def _editing(path: Path) -> Iterator[list[str]]:
    """Give the lines of the file, and replace it by what becomes of them, if that is right."""
    with locked(path.with_name(f"{path.name}.edit"), wait_s=_WAIT_S):
        lines = read_text(path).splitlines(keepends=True)
        yield lines
        text = "".join(lines)
        check(text, path)
        write_text(path, text)


def _insert_all(lines: list[str], additions: Mapping[str, Items]) -> None:
    for section, items in additions.items():
        for key in _spans("".join(lines), section).keys() & items.keys():
            raise UserError(f"params.yaml: {section} has an item '{key}' already; choose another name")
        added = [line for key, values in items.items() for line in _block(key, values)]
        if added:
            _insert(lines, section, added)


def _insert(lines: list[str], section: str, added: list[str]) -> None:
    """Insert lines at the end of a section, above the blank lines and comments that lead to the next one."""
    start, end = _spans("".join(lines))[section]
    if end == start + 1:
        # An empty section is written `section: {}`.
        head, _, comment = lines[start].partition("#")
        lines[start] = f"{head.partition(':')[0]}:{f'  # {comment.strip()}' if comment else ''}\n"
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    lines[end:end] = added


def remove_keys(lines: list[str], section: str, keys: Collection[str]) -> None:
    """Remove the items of a section of a YAML file, given by its lines, with the blank lines that follow them."""
    start, _ = _spans("".join(lines))[section]
    items = _spans("".join(lines), section)
    for key in sorted(items.keys() & set(keys), key=lambda key: items[key], reverse=True):
        first, end = items[key]
        del lines[first:end]
    if items and items.keys() <= set(keys):
        head, _, comment = lines[start].partition("#")
        lines[start] = f"{head.rstrip()} {{}}{f' # {comment.strip()}' if comment else ''}\n"


def _spans(text: str, section: str | None = None) -> dict[str, tuple[int, int]]:
    """Return first line and the line behind the last of each top-level key, or of each key of a section.

    Blank lines and comments above a key belong to it, not to what stands before.
    """
    tree = YAML().load(text)
    lines = text.splitlines()
    found = tree if section is None else tree[section]
    if not found:
        return {}
    limit = len(lines) if section is None else _spans(text)[section][1]
    starts = [found.lc.key(key)[0] for key in found]
    spans = {}
    for key, start, following in zip(found, starts, [*starts[1:], limit], strict=True):
        end = following
        while end > start + 1 and (not lines[end - 1].strip() or lines[end - 1].lstrip().startswith("#")):
            end -= 1
        spans[key] = (start, end)
    return spans


def _block(key: str, values: Mapping[str, Any]) -> list[str]:
    """Return an item as lines in the form that `dvc exp run -S` writes, which so leaves them as they are."""
    yaml = YAML()
    yaml.width = 10_000
    text = StringIO()
    yaml.dump({key: dict(values)}, text)
    return [f"  {line}\n" for line in text.getvalue().splitlines()]
