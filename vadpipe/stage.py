"""What all stages have in common: their key, how they end, and that they ran on what they say they ran on."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vadpipe import params, paths
from vadpipe.errors import UserError, exit_code_2, explain
from vadpipe.files import read_text, there
from vadpipe.parallel import cores

_CODE = ("stages/", "vadpipe/")


def run_stage(main: Callable[[str], None]) -> None:
    """Run `main(key)`; DVC tells the key in `DVC_STAGE`, by hand it is the argument.

    Never as a part of the command: a key of params.yaml would reach the shell before it is checked.
    """
    stage = Path(sys.argv[0]).stem
    key = sys.argv[1] if len(sys.argv) == 2 else os.environ.get("DVC_STAGE", "").partition("@")[2]
    if not key or len(sys.argv) > 2:
        sys.exit(f"usage: python -m stages.{stage} KEY   (the key of params.yaml that the stage works on)")
    with exit_code_2():
        params.check_key(key, f"params.yaml: stage {stage}")
    _run(f"{stage}@{key}", partial(main, key))


def run_single(main: Callable[[], None]) -> None:
    """Run a stage that has no key."""
    _run(Path(sys.argv[0]).stem, main)


def _run(address: str, main: Callable[[], None]) -> None:
    # SIGTERM ends the stage as an exception does, so that what is half written is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failure = paths.failure(address)
    with exit_code_2():
        try:
            failure.unlink(missing_ok=True)
            cores()
            before = read_inputs(address)
            main()
            _check_unchanged(before, read_inputs(address))
        except Exception as error:
            reason = explain(error) or f"{type(error).__name__}: {error} (a defect of the program; see its traceback)"
            _note(failure, " ".join(reason.split()))
            raise


def _note(path: Path, reason: str) -> None:
    """Keep the reason for the table; on a full disk the message on the terminal must do."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(reason + "\n", encoding="utf-8")
    except OSError as error:
        print(f"the reason could not be kept in {path}: {error.strerror}", file=sys.stderr)


def read_inputs(address: str) -> dict[str, Any]:
    """Return what the stage depends on by dvc.yaml: parameters by value, code by content, data by size and time.

    DVC looks at the inputs of a stage when it has ended. What changed while it ran would be recorded beside an
    output that was made before the change, and be called up to date.
    """
    stage, _, key = address.partition("@")
    body = _definition(stage)
    if not body:
        return {}
    tree = params.read(paths.PARAMS)
    if "foreach" in body:
        section = re.sub(r"\W", "", body["foreach"])
        item = _value(tree, f"{section}.{key}")
        body = {name: [_filled(text, key, item) for text in body["do"].get(name, [])] for name in ("deps", "params")}
    found: dict[str, Any] = {f"params.yaml: {name}": _value(tree, name) for name in body.get("params", [])}
    for dep in body.get("deps", []):
        found |= _contents(Path(dep)) if dep.startswith(_CODE) else _stamps(Path(dep))
    return found


def _definition(stage: str) -> Mapping[str, Any]:
    """Return what dvc.yaml says of a stage."""
    path = Path("dvc.yaml")
    if not there(path):
        return {}
    try:
        found = _value(YAML(typ="safe").load(read_text(path)), f"stages.{stage}")
    except YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    return found if isinstance(found, Mapping) else {}


def _filled(text: str, key: str, item: object) -> str:
    """Return a line of dvc.yaml with `${key}` and `${item.NAME}` filled in."""
    values = {f"item.{name}": value for name, value in item.items()} if isinstance(item, Mapping) else {}
    return re.sub(r"\$\{(.+?)\}", lambda found: str({"key": key, **values}.get(found[1], found[0])), text)


def _value(tree: Any, name: str) -> Any:
    for part in name.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path] if there(path) else []
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in seen:
            # A link that leads back to a folder around it would be followed without end.
            folders.clear()
        elif "__pycache__" not in folder:
            seen.add((about.st_dev, about.st_ino))
            found += [Path(folder, file) for file in files if not file.startswith(".")]
    return sorted(found)


def _contents(path: Path) -> dict[str, Any]:
    return {str(file): hashlib.blake2b(file.read_bytes()).hexdigest() for file in _files(path)}


def _stamps(path: Path) -> dict[str, Any]:
    found = {}
    for file in _files(path):
        try:
            about = file.stat()
        except OSError:
            about = file.lstat()  # of a link whose end cannot be reached; who reads it says so
        found[str(file)] = (about.st_size, about.st_mtime_ns)
    return found


def _check_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    if changed:
        # Parameters first: they say which files are inputs.
        changed.sort(key=lambda name: (not name.startswith(str(paths.PARAMS)), name))
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise UserError(
            f"{changed[0]}{more} changed while the stage ran, so its output is of neither the old nor the new state; "
            "run it again"
        )
