"""Additions to params.yaml, every comment and line of the rest kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from vadpipe import paths
from vadpipe.params import load
from vadpipe.store.atomic import write_text

Items = Mapping[str, Mapping[str, Any]]


def add_items(additions: Mapping[str, Items], path: Path = paths.PARAMS) -> None:
    """Add items to sections: `{"flow": {"ped2": {...}}}`.

    Raises:
        UserError: as `with_items`; the file is as it was.
    """
    write_text(path, with_items(additions, path))


def with_items(additions: Mapping[str, Items], path: Path = paths.PARAMS) -> str:
    """Return the text of the file with the items added, checked as `params.load` does.

    Raises:
        UserError: the result would not be right, for instance because an item of the name is there.
    """
    lines = path.read_text().splitlines(keepends=True)
    for section, items in additions.items():
        lines = _insert(lines, section, [_line(key, values) for key, values in items.items()])
    text = "".join(lines)
    tried = path.with_name(f".{path.name}.tried")
    try:
        tried.write_text(text)
        load(tried)
    finally:
        tried.unlink(missing_ok=True)
    return text


def _insert(lines: list[str], section: str, added: list[str]) -> list[str]:
    """Insert lines at the end of a section, above the blank lines and comments that lead to the next one."""
    start = next(index for index, line in enumerate(lines) if re.match(rf"{section}\s*:", line))
    # An empty section may be written `section: {}`.
    lines[start] = re.sub(r":\s*\{\s*\}", ":", lines[start], count=1)
    end = start + 1
    while end < len(lines) and not re.match(r"\S", lines[end]):
        end += 1
    while end > start + 1 and not lines[end - 1].strip():
        end -= 1
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += "\n"
    return [*lines[:end], *added, *lines[end:]]


def _line(key: str, values: Mapping[str, Any]) -> str:
    """Return an item as one indented line in flow style."""
    yaml = YAML()
    yaml.default_flow_style = True
    yaml.width = 10_000
    text = StringIO()
    yaml.dump(dict(values), text)
    return f"  {key}: {text.getvalue().strip()}\n"
