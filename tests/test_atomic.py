"""Outputs are whole at every moment and have one writer at a time, shown with real processes, killed ones too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import REPO
from vadpipe.errors import UserError
from vadpipe.store.atomic import locked, replacing, write_text

START = "import sys, time\nfrom pathlib import Path\nfrom vadpipe.store.atomic import locked, replacing, write_text\n"
# Tells that it holds the output and waits for the file `go`, with half of it written.
HOLD = """
out, folder = Path(sys.argv[1]), sys.argv[2] == "folder"
with replacing(out, folder=folder) as beside:
    (beside / "a" if folder else beside).write_text("first")
    Path("held").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    with (beside / "a" if folder else beside).open("a") as file:
        file.write(", whole")
"""
READ = """
out, looks, bad = Path(sys.argv[1]), 0, []
Path("held").touch()
while not Path("go").exists():
    try:
        lines = out.read_text().split()
        if len(lines) != 2000 or len(set(lines)) > 1:
            bad.append(f"{len(lines)} lines")
    except FileNotFoundError:
        bad.append("missing")
    looks += 1
print(looks, *bad)
"""
COUNT = """
for index in range(20):
    with locked(Path("counter"), wait_s=20):
        lines = Path("lines").read_text()
        time.sleep(0.001)
        write_text(Path("lines"), f"{lines}{sys.argv[1]} {index}\\n")
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process in the current folder."""
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-c", START + code, *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE)


@contextmanager
def running(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process, wait until it says that it holds what it writes, and end it whatever happens."""
    process = start(code, *arguments)
    try:
        deadline = time.monotonic() + 60
        while not Path("held").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert Path("held").exists()
        yield process
    finally:
        process.kill()
        process.wait()


def names() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"held", "go"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_reader_never_finds_a_file_missing_or_half() -> None:
    write_text(Path("out"), "0\n" * 2000)
    with running(READ, "out") as reader:
        for index in range(1, 201):
            write_text(Path("out"), f"{index}\n" * 2000)
        Path("go").touch()
        looks, *bad = reader.communicate(timeout=60)[0].split()
    assert bad == []
    assert int(looks) > 20


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_second_writer_is_refused_and_the_first_ends_whole(kind: str) -> None:
    out = Path("out")
    with running(HOLD, "out", kind) as first:
        before = names()
        message = rf"out is being written by process {first.pid} on .* since \d\d:\d\d:\d\d; wait"
        with pytest.raises(UserError, match=message), replacing(out, folder=kind == "folder") as beside:
            beside.touch()
        # Nothing of the first one's was touched, and nothing is left of the second.
        assert names() == before
        assert not out.exists()
        Path("go").touch()
        assert first.wait(60) == 0
    assert (out / "a" if kind == "folder" else out).read_text() == "first, whole"
    assert names() == {"out"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_taken_over(kind: str) -> None:
    out = Path("out")
    with running(HOLD, "out", kind) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert names() == {".out.lock", f".out.{first.pid}.partial"}
    with replacing(out, folder=kind == "folder") as beside:
        (beside / "b" if kind == "folder" else beside).write_text("second")
    assert names() == {"out"}
    if kind == "folder":
        assert [path.name for path in out.iterdir()] == ["b"]
    else:
        assert out.read_text() == "second"


def test_a_writer_that_is_killed_keeps_the_old_output() -> None:
    write_text(Path("out"), "old")
    with running(HOLD, "out", "file") as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert Path("out").read_text() == "old"


def test_one_may_wait_for_another() -> None:
    with running(HOLD, "out", "file") as first:
        began = time.monotonic()
        with pytest.raises(UserError, match=f"process {first.pid} "), locked(Path("out"), wait_s=0.3):
            pass
        assert time.monotonic() - began >= 0.3
        threading.Timer(0.3, Path("go").touch).start()
        with locked(Path("out"), wait_s=60):
            assert Path("out").read_text() == "first, whole"
    assert names() == {"out"}


def test_the_lock_of_one_output_is_not_that_of_another() -> None:
    with running(HOLD, "out", "file"):
        write_text(Path("other"), "free")
    assert Path("other").read_text() == "free"


def test_eight_processes_that_wait_lose_nothing() -> None:
    write_text(Path("lines"), "")
    processes = [start(COUNT, str(index)) for index in range(8)]
    assert [process.wait(120) for process in processes] == [0] * 8
    lines = Path("lines").read_text().splitlines()
    assert sorted(lines) == sorted(f"{process} {index}" for process in range(8) for index in range(20))
    assert names() == {"lines"}


def test_a_lock_makes_the_folder_that_it_lies_in() -> None:
    with locked(Path("a/b/c")):
        assert Path("a/b/.c.lock").read_text().startswith(f"process {os.getpid()} ")
    assert list(Path("a/b").iterdir()) == []


def test_a_lock_that_cannot_be_written_is_told() -> None:
    # Not even root may write below /sys.
    Path("sealed").symlink_to("/sys/kernel")
    with pytest.raises(UserError, match="cannot write sealed/out"), locked(Path("sealed/out")):
        pass
    Path("file").touch()
    with pytest.raises(UserError, match="cannot write file/out"), locked(Path("file/out")):
        pass


def test_a_lock_that_its_holder_removed_meanwhile_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks the holder removed the lock file, and a third one has made, used and removed another."""
    import fcntl

    flock, tries = fcntl.flock, []

    def late(file: int, how: int) -> None:
        tries.append(file)
        if len(tries) <= 2:
            Path(".out.lock").unlink()
        if len(tries) == 2:
            Path(".out.lock").touch()
        flock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(Path("out")):
        assert Path(".out.lock").read_text().startswith("process")
    assert len(tries) == 3
    assert names() == set()


def test_an_output_that_fails_leaves_no_lock() -> None:
    with pytest.raises(ZeroDivisionError), replacing(Path("out")) as beside:
        beside.write_text(str(1 / 0))
    assert names() == set()


def test_a_folder_takes_the_place_of_a_folder() -> None:
    for name in ("a", "b"):
        with replacing(Path("out"), folder=True) as beside:
            (beside / name).touch()
    assert [path.name for path in Path("out").iterdir()] == ["b"]
    assert names() == {"out"}
