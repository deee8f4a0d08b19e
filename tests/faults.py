"""A finished workspace, faults to put into it, and stages and commands that run in processes of their own.

A process is forked from one in which everything is imported, so that it has real limits, signals and an exit code and
yet begins at once.
"""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.conftest import REPO, folder_dataset, ingest_params, pool_dataset, tiny_params, write_params
from vadpipe import __main__ as command
from vadpipe import stage, starter

# Longer than anything here takes on a busy machine.
LIMIT_S = 60.0

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "tests.faults",
        "vadpipe.collection",
        "vadpipe.demands",
        *(f"stages.{path.stem}" for path in sorted((REPO / "stages").glob("[a-z]*.py"))),
        *(
            f"vadpipe.{room}.{path.stem}"
            for room in ("methods", "datasets")
            for path in sorted((REPO / "vadpipe" / room).glob("[a-z]*.py"))
        ),
        *(f"vadpipe.scenes.{name}" for name in ("campus", "pool_demo", "products", "sprites")),
        "matplotlib.backends.backend_agg",
        "faiss",
    ]
)

# Stages that only the sweep has, a data set of two categories among them.
SWEPT = [
    "features@tiny_maps",
    "generate@products",
    "ingest@products",
    "features@products_net",
    *(
        f"{step}@{run}"
        for run in (
            "tiny_oc_svm",
            "tiny_padim",
            "tiny_patchcore",
            "tiny_spade",
            "tiny_reverse_distillation",
            "tiny_deep_svdd",
            "tiny_panda",
            "products_knn",
        )
        for step in ("train", "score", "evaluate")
    ),
]
# Stages in their order, such that every kind of file is written and read.
STAGES = [
    "generate@campus",
    "generate@pool_demo",
    "generate@sprites",
    "ingest@tiny",
    "ingest@tinypool",
    "inpaint@tinypool",
    "pool_mask@tinypool",
    "composite@tiny",
    "flow@tiny",
    "features@tiny_net",
    "features@tinypool_cells",
    *(
        f"{step}@tiny_{method}"
        for method in ("brightness", "coherent_motion", "knn", "feature_lstm", "conv_ae", "dfr", "pasted")
        for step in ("train", "score", "evaluate")
    ),
    *SWEPT,
    "summarize",
]
COMMANDS = {
    "check": ("check",),
    "results": ("results",),
    "methods list": ("methods", "list"),
    "data list": ("data", "list"),
    "data check": ("data", "check", "tiny"),
    "data check pool": ("data", "check", "tinypool"),
    "data add copy": ("data", "add", "gate", "incoming", "--reader", "folder", "--fps", "10", "--place", "copy"),
    "data add link": ("data", "add", "gate", "incoming", "--reader", "folder", "--fps", "10", "--place", "link"),
    "data remove": ("data", "remove", "tiny", "--yes"),
    "runs list": ("runs", "list"),
    "runs add": ("runs", "add", "more", "--dataset", "tiny", "--method", "knn", "--uses", "data/features/tiny_net"),
}


@dataclass(frozen=True)
class Ended:
    """How a stage or command ended; `code` is None if it had to be killed."""

    code: int | None
    out: str
    err: str


@dataclass(frozen=True)
class Limits:
    """What is done to a process before it begins."""

    file: int | None = None  # bytes that a file may have
    user: bool = False  # a user whom permissions bind, even if the tests run as root


def _enter(folder: Path, pipes: Sequence[Path], limits: Limits) -> None:
    os.chdir(folder)
    for number, pipe in enumerate(pipes, 1):
        os.dup2(os.open(pipe, os.O_WRONLY), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # As in a process that was started by a shell.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method("fork", force=True)
    if limits.user:
        _drop_rights()
    if limits.file is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file, limits.file))


def _drop_rights() -> None:
    """Give up what lets root read and write everything: all capabilities of Linux."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def _stage(address: str) -> None:
    name, _, key = address.partition("@")
    sys.argv = [f"stages/{name}.py"]
    os.environ["DVC_STAGE"] = address
    main = importlib.import_module(f"stages.{name}").main
    if key:
        stage.run_stage(main)
    else:
        stage.run_single(main)


def _command(arguments: Sequence[str]) -> None:
    sys.argv = ["vadpipe", *arguments]
    command.main()


def _child(work: Callable[[], None], folder: Path, pipes: Sequence[Path], limits: Limits) -> None:
    code = 1
    try:
        _enter(folder, pipes, limits)
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        # As Python ends itself, while `multiprocessing` would wait for pools of processes that are still open.
        threading._shutdown()  # type: ignore[attr-defined]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _work(what: str) -> Callable[[], None]:
    return partial(_command, COMMANDS[what]) if what in COMMANDS else partial(_stage, what)


class Running:
    """A stage, named by its address, or one of the commands, that runs in a workspace."""

    def __init__(self, what: str, folder: Path, limits: Limits | None = None) -> None:
        # Pipes, since a limit on files would be one on what it says too.
        self.pipes = [folder.with_name(f"{folder.name}.{name}") for name in ("out", "err")]
        for pipe in self.pipes:
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe)
        self.ends = [os.open(pipe, os.O_RDONLY | os.O_NONBLOCK) for pipe in self.pipes]
        self.said = [b"", b""]
        self.process = _CONTEXT.Process(target=_child, args=(_work(what), folder, self.pipes, limits or Limits()))
        self.process.start()

    def wait(self) -> Ended:
        """Wait for its end; what hangs is killed."""
        deadline = time.monotonic() + LIMIT_S
        while self.process.is_alive() and time.monotonic() < deadline:
            self.process.join(0.02)
            self.listen()
        code = self.process.exitcode
        if code is None:
            self.process.kill()
            self.process.join()
        self.listen()
        for end in self.ends:
            os.close(end)
        return Ended(code, *(said.decode(errors="replace") for said in self.said))

    def listen(self) -> None:
        """Take in what was said since."""
        for number, end in enumerate(self.ends):
            with suppress(BlockingIOError):
                while part := os.read(end, 65536):
                    self.said[number] += part


def run(what: str, folder: Path, limits: Limits | None = None) -> Ended:
    """Run a stage or command to its end."""
    return Running(what, folder, limits).wait()


def parameters(stages: Sequence[str] = STAGES) -> dict[str, Any]:
    """Return params.yaml of a workspace with some stages."""
    params = tiny_params()
    params["generate"] = {
        "campus": {"seed": 1, "train_clips": 1, "test_clips": 6, "frames": 8, "height": 48, "width": 48, "fps": 10.0},
        "pool_demo": {
            "seed": 1,
            "train": 2,
            "train_empty": 1,
            "test": 1,
            "test_empty": 0,
            "height": 90,
            "width": 160,
        },
        "products": {"seed": 1, "train": 4, "good": 2, "defective": 1, "side": 48},
        "sprites": {"seed": 1, "views": 1, "videos": 1, "frames": 12, "height": 48, "width": 72, "fps": 10.0},
    }
    params["ingest"]["products"] = ingest_params(reader="mvtec")
    params["features"]["products_net"] = {**params["features"]["tiny_net"], "uses": "data/clips/products"}
    params["runs"]["products_knn"] = starter.run("products", "knn", "data/features/products_net", "mvtec")
    params["composite"] = {
        "tiny": {
            "source": "data/raw/sprites",
            "seed": 0,
            "share": 1.0,
            "objects": 1,
            "place": "source",
            "scale": "source",
            "sizes": [1.0, 1.0],
            "area": [0.0001, 0.9],
            "grey": False,
            "edge": 0.5,
        }
    }
    for section, step in {"generate": "generate", "ingest": "ingest", "features": "features", "runs": "train"}.items():
        params[section] = {key: item for key, item in params[section].items() if f"{step}@{key}" in stages}
    return params


def build(folder: Path, stages: Sequence[str]) -> None:
    """Make a workspace in which some stages have run."""
    folder.mkdir()
    write_params(parameters(stages), folder)
    shutil.copy(REPO / "dvc.yaml", folder)
    for code in ("stages", "vadpipe"):
        (folder / code).symlink_to(REPO / code)
    folder_dataset(folder / "data" / "raw" / "tiny")
    pool_dataset(folder / "data" / "raw" / "tinypool")
    folder_dataset(folder / "incoming")
    for address in stages:
        ended = run(address, folder)
        assert ended.code == 0, f"{address}: {ended}"


def inputs(address: str) -> list[Path]:
    """Return the data that a stage depends on by dvc.yaml."""
    return [path for path in _named(address, "deps") if path.parts[0] not in ("stages", "vadpipe")]


def outputs(address: str) -> list[Path]:
    """Return what a stage writes by dvc.yaml."""
    return [path for kind in ("outs", "metrics", "plots") for path in _named(address, kind)]


def _named(address: str, kind: str) -> Iterator[Path]:
    name, _, key = address.partition("@")
    body = YAML(typ="safe").load(REPO / "dvc.yaml")["stages"][name]
    item: Any = {}
    if "foreach" in body:
        item, body = parameters()[body["foreach"].strip("${}")][key], body["do"]
    for entry in body.get(kind, []):
        text = next(iter(entry)) if isinstance(entry, dict) else entry
        for field_, value in {"key": key, **{f"item.{name}": value for name, value in item.items()}}.items():
            text = text.replace(f"${{{field_}}}", str(value))
        yield Path(text)


Tree = dict[str, str]


def tree(folder: Path) -> Tree:
    """Return what lies in a workspace: path -> a digest of it; logs, states and code are left out."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.startswith((".vadpipe", ".checkpoints", "stages", "vadpipe")):
            continue
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = sha256(path.read_bytes()).hexdigest()
        elif not path.is_dir():
            found[name] = "something else"
    return found


def _put(path: Path, data: bytes) -> None:
    """Write a file anew, so that a copy that shares it keeps it as it was."""
    path.unlink()
    path.write_bytes(data)


def _as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def _as_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(share * (len(data) - 1))] ^= 0x10
    _put(path, bytes(data))


def _forbid(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    path.chmod(0)


# What may lie where a file was. `forbidden` binds those who run with `Limits(user=True)`.
FAULTS: dict[str, Callable[[Path], None]] = {
    "folder": _as_folder,
    "dangling link": lambda path: _as_link(path, "nowhere"),
    "looping link": lambda path: _as_link(path, path.name),
    "pipe": _as_pipe,
    "forbidden": _forbid,
    "removed": Path.unlink,
    "empty": lambda path: _put(path, b""),
    "half": lambda path: _put(path, path.read_bytes()[: path.stat().st_size // 2]),
    "flip at the start": lambda path: _flip(path, 0.0),
    "flip in the middle": lambda path: _flip(path, 0.5),
    "flip near the end": lambda path: _flip(path, 0.97),
    "other JSON": lambda path: _put(path, b'{"other": {"keys": [1]}}\n'),
    "JSON list": lambda path: _put(path, b"[1, 2]\n"),
    "no JSON": lambda path: _put(path, b"\xff\xfe\0\0 no text {"),
}


# Faults of params.yaml, each of which all who read it refuse.
PARAMS_FAULTS: dict[str, Callable[[Path], None]] = {
    **{
        name: FAULTS[name] for name in ("folder", "dangling link", "looping link", "pipe", "forbidden", "empty", "half")
    },
    "removed": Path.unlink,
    "binary": lambda path: _put(path, bytes(range(256))),
    "UTF-16": lambda path: _put(path, path.read_text().encode("utf-16")),
    "bomb": lambda path: _put(path, _bomb(path.read_text())),
    "brackets": lambda path: _put(path, path.read_bytes() + b"more: " + b"[" * 100_000),
    "megabytes": lambda path: _put(path, path.read_bytes() + b"# nothing\n" * 400_000),
    "giant number": lambda path: _put(path, path.read_bytes().replace(b"seed: 1", b"seed: " + b"9" * 10_000)),
}


def _bomb(text: str) -> bytes:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return (text + "\n".join(lines) + "\n").encode()


# The data that a command reads.
_READ_BY = {
    "data check": "data/raw/tiny",
    "data check pool": "data/raw/tinypool",
    "data add copy": "incoming",
    "results": "metrics",
    "runs list": "metrics/summary.json",
}
# Nothing of the pipeline's own wrote these, so that no checksum can tell that they were changed; metrics are in git.
_FOREIGN = ("data/raw", "incoming", "metrics", "plots")


def files(what: str, folder: Path) -> list[Path]:
    """Return the files that a stage or command reads, one of each folder and suffix."""
    roots = inputs(what) if what not in COMMANDS else [Path(_READ_BY[what])] if what in _READ_BY else []
    found: dict[tuple[Path, str], Path] = {}
    for root in roots:
        for path in sorted((folder / root).rglob("*")) if (folder / root).is_dir() else [folder / root]:
            if path.is_file():
                found.setdefault((path.parent, path.suffix), path.relative_to(folder))
    return list(found.values())


@dataclass(frozen=True)
class Finished:
    """A workspace in which stages have run; trials are made in copies of it."""

    folder: Path
    tree: Tree

    def copy(self, target: Path, links: bool = True) -> Path:
        """Copy it; with `links` its files are shared, which nothing writes to in place."""
        shutil.copytree(self.folder, target, symlinks=True, copy_function=os.link if links else shutil.copy2)
        return target

    def ready(self, target: Path, what: str, links: bool = True) -> Path:
        """Copy it for a stage, whose outputs DVC removes before it runs, or a command."""
        self.copy(target, links)
        for path in map(target.joinpath, outputs(what) if what not in COMMANDS else ()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return target

    def problems(self, what: str, folder: Path, ended: Ended, spoilt: Path | None = None) -> list[str]:
        """Return what is wrong with how a stage or command ended in a folder from `ready`.

        It may end well with the outputs that it had, or with a sentence and exit code 2; then what is there is as it
        was, and of its outputs nothing is there that is not whole.

        Args:
            spoilt: an input that was changed before.
        """
        if ended.code is None:
            return ["it hangs"]
        last = (ended.err.strip().splitlines() or [""])[-1]
        found = []
        if "Traceback" in ended.err or ended.code not in (0, 2) or (ended.code == 2) != last.startswith("error: "):
            found.append(f"exit code {ended.code}: {ended.err[-600:]}")
        left = {name: digest for name, digest in tree(folder).items() if spoilt is None or not _is_in(name, [spoilt])}
        odd = sorted(name for name, digest in left.items() if self.tree.get(name) != digest)
        gone = sorted(name for name in self.tree.keys() - left.keys() if spoilt is None or not _is_in(name, [spoilt]))
        made = [] if what in COMMANDS else outputs(what)
        if ended.code == 0 and (what in COMMANDS or (spoilt is not None and spoilt.as_posix().startswith(_FOREIGN))):
            return found
        if ended.code == 2:
            gone = [name for name in gone if not _is_in(name, made)]
        return found + [f"{word}: {names[:3]}" for word, names in (("left or changed", odd), ("gone", gone)) if names]


def _is_in(name: str, paths: Sequence[Path]) -> bool:
    return any(Path(name).is_relative_to(path) for path in paths)


def finish(folder: Path, stages: Sequence[str]) -> Finished:
    """Make a workspace in which some stages have run."""
    build(folder, stages)
    return Finished(folder, tree(folder))


def remove(folder: Path) -> None:
    """Remove a folder, whatever may not be read in it."""
    for path in folder.rglob("*"):
        if not path.is_symlink() and path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)
