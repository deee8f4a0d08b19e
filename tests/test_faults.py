"""All stages and commands with a full disk, an input that cannot be read or is damaged, and ended from outside.

Each ends well with equal outputs, or in one line with exit code 2, and leaves nothing that is not whole.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import faults
from tests.conftest import REPO, heed_ctrl_c
from tests.faults import COMMANDS, FAULTS, PARAMS_FAULTS, STAGES, SWEPT, Finished, Limits, Running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits, capabilities and /proc of Linux")

EVERYTHING = [*STAGES, *COMMANDS]
USUAL_STAGES = [address for address in STAGES if address not in SWEPT]
# Every kind of store, model and picture is in these; the others run in the sweep, an hour and more on two cores
# (`pytest -m sweep --dist load tests/test_faults.py`).
LEFT_OUT = ("_dfr", "_pasted", "_feature_lstm", "_coherent_motion", "evaluate@tiny_brightness", "evaluate@tiny_knn")
FEW = [what for what in EVERYTHING if not what.endswith(LEFT_OUT) and what not in SWEPT]
# Those that write something.
WRITING = [*STAGES, "data add copy", "data add link", "data remove", "runs add"]
# Largest size of a file, bytes.
SIZES = (0, 20_000)
MORE_SIZES = (100, 1000, 5000, 60_000, 200_000)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Finished:
    swept = any(item.get_closest_marker("sweep") for item in request.session.items)
    return faults.finish(tmp_path_factory.mktemp("faults") / "workspace", STAGES if swept else USUAL_STAGES)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Where a copy of the workspace goes."""
    yield tmp_path / "copy"
    if (tmp_path / "copy").exists():
        faults.remove(tmp_path / "copy")


def few(names: list[str]) -> list[object]:
    return [name if name in FEW else pytest.param(name, marks=pytest.mark.sweep) for name in names]


def trial(
    finished: Finished, place: Path, what: str, size: int | None = None, fault: str = "", file: Path | None = None
) -> list[str]:
    """Run a stage or command with a largest size of files or a fault; return what is wrong with how it ended."""
    finished.ready(place, what)
    if file is not None:
        (PARAMS_FAULTS if file == Path("params.yaml") else FAULTS)[fault](place / file)
    ended = faults.run(what, place, Limits(size, user=fault == "forbidden"))
    found = finished.problems(what, place, ended, file)
    last = (ended.err.strip().splitlines() or [""])[-1]
    # Of a frame that is gone, its clip tells.
    about = [] if file is None else [file.stem, file.parent.name] if fault == "removed" else [file.stem]
    if about and ended.code == 2 and not any(name in last for name in about):
        found.append(f"the file is not named: {last}")
    faults.remove(place)
    return [f"{what}, {file or ''} {fault}{'' if size is None else size}: {one}" for one in found]


@pytest.mark.parametrize("what", few(WRITING))
def test_files_that_may_not_grow(finished: Finished, place: Path, what: str) -> None:
    """A real limit of the kernel."""
    assert [found for size in SIZES for found in trial(finished, place, what, size)] == []


@pytest.mark.sweep
@pytest.mark.parametrize("what", EVERYTHING)
def test_files_that_may_not_grow_much(finished: Finished, place: Path, what: str) -> None:
    assert [found for size in MORE_SIZES for found in trial(finished, place, what, size)] == []


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a file system of its own takes the rights to mount one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path, room: int) -> None:
    """Leave this many bytes, in whole pages."""
    stat = os.statvfs(disk)
    (disk / "filler").write_bytes(bytes(max(0, stat.f_bavail * stat.f_bsize - room)))


def on_a_disk_with(room: int, finished: Finished, disk: Path, what: str) -> list[str]:
    """Run a stage or command with so many bytes left; return what is wrong with how it ended."""
    place = finished.ready(disk / "copy", what, links=False)
    fill(disk, room)
    found = finished.problems(what, place, faults.run(what, place))
    (disk / "filler").unlink()
    for path in disk.iterdir():
        faults.remove(path) if path.is_dir() else path.unlink()
    return found


@pytest.mark.parametrize("what", few(WRITING))
def test_a_full_disk(finished: Finished, disk: Path, what: str) -> None:
    """Other than with a limit, files can be made, and fail where they are flushed."""
    assert on_a_disk_with(24_576, finished, disk, what) == []


@pytest.mark.sweep
@pytest.mark.parametrize("room", [0, 4096, 65_536])
@pytest.mark.parametrize("what", EVERYTHING)
def test_a_disk_with_little_room(finished: Finished, disk: Path, what: str, room: int) -> None:
    assert on_a_disk_with(room, finished, disk, what) == []


def one_fault_a_file(what: str, finished: Finished) -> Iterator[tuple[Path, str]]:
    """Yield the files of a stage or command, each with another fault; over all stages, each fault meets each kind."""
    for number, file in enumerate(faults.files(what, finished.folder), EVERYTHING.index(what)):
        yield file, list(FAULTS)[5 * number % len(FAULTS)]


@pytest.mark.parametrize("what", few(EVERYTHING))
def test_an_input_that_is_unreadable_or_damaged(finished: Finished, place: Path, what: str) -> None:
    cases = one_fault_a_file(what, finished)
    assert [found for file, fault in cases for found in trial(finished, place, what, fault=fault, file=file)] == []


@pytest.mark.sweep
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("what", EVERYTHING)
def test_every_fault_of_every_input(finished: Finished, place: Path, what: str, fault: str) -> None:
    files = faults.files(what, finished.folder)
    assert [found for file in files for found in trial(finished, place, what, fault=fault, file=file)] == []


@pytest.mark.parametrize("fault", PARAMS_FAULTS)
@pytest.mark.parametrize("kind", ["a stage", "a command"])
def test_params_that_cannot_be_read(finished: Finished, place: Path, kind: str, fault: str) -> None:
    """Two of the stages or commands meet each fault."""
    everything = [what for what in (USUAL_STAGES if kind == "a stage" else COMMANDS) if what != "methods list"]
    for number in range(2):
        what = everything[(2 * list(PARAMS_FAULTS).index(fault) + number) % len(everything)]
        assert trial(finished, place, what, fault=fault, file=Path("params.yaml")) == []


# Stage -> what shows that it has begun.
AT_WORK = {
    "generate@campus": "data/raw/.campus.*.partial",
    "generate@pool_demo": "data/raw/.pool_demo.*.partial",
    "ingest@tiny": "data/clips/.tiny.*.partial",
    "pool_mask@tinypool": "data/pools/.tinypool.*.partial",
    "composite@tiny": "data/composites/.tiny.*.partial",
    "flow@tiny": "data/flow/.tiny.*.partial",
    "features@tiny_net": "data/features/.tiny_net.*.partial",
    "train@tiny_conv_ae": ".checkpoints/.tiny_conv_ae.lock",
    "score@tiny_conv_ae": "data/scores/.tiny_conv_ae.*.partial",
    "evaluate@tiny_conv_ae": "plots/.tiny_conv_ae.*.partial",
}


def started(finished: Finished, place: Path, what: str) -> Running:
    """Start a stage and wait until it is at work."""
    running = Running(what, finished.ready(place, what))
    deadline = time.monotonic() + faults.LIMIT_S
    while not list(place.glob(AT_WORK[what])):
        assert running.process.is_alive(), running.wait()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return running


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
@pytest.mark.parametrize("what", AT_WORK)
def test_ended_from_outside(finished: Finished, place: Path, what: str, how: signal.Signals) -> None:
    """Ctrl-C is told in a line, and neither leaves a process or something half behind."""
    running = started(finished, place, what)
    children = psutil.Process(running.process.pid).children(recursive=True)
    os.kill(running.process.pid, how)
    ended = running.wait()
    if ended.code == 0:
        pytest.skip("it was done before it could be ended")
    expected = (130, "interrupted\n") if how is signal.SIGINT else (143, "")
    assert (ended.code, ended.err) == expected
    assert psutil.wait_procs(children, timeout=5)[1] == []
    left = faults.tree(place)
    assert {name for name in left if finished.tree.get(name) != left[name]} == set()


def test_a_worker_that_is_killed_ends_the_stage(finished: Finished, place: Path) -> None:
    """As the system does when memory runs out."""
    what = "pool_mask@tinypool"
    running = started(finished, place, what)
    process = psutil.Process(running.process.pid)
    deadline = time.monotonic() + 10
    while not (workers := process.children()) and time.monotonic() < deadline:
        time.sleep(0.001)
    workers[0].kill()
    ended = running.wait()
    assert ended.code == 2, ended
    assert "error: a worker process was ended from outside" in ended.err
    assert ended.err.count("\n") == 1
    assert finished.problems(what, place, ended) == []
    assert psutil.wait_procs(workers, timeout=5)[1] == []


@pytest.mark.parametrize("program", ["stages.ingest", "vadpipe"])
def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path: Path, program: str) -> None:
    """A module that both import late presses it."""
    (tmp_path / "pydantic.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{REPO}"}
    command = [sys.executable, "-m", program, "check"]
    done = subprocess.run(
        command, cwd=REPO, env=environment, capture_output=True, text=True, check=False, preexec_fn=heed_ctrl_c
    )
    assert done.stderr == "interrupted\n"
    assert done.returncode in {-signal.SIGINT, 130}
