"""Work on all cores: its order, how many there are, and that no worker outlives its parent or is waited for in vain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import REPO, heed_ctrl_c, run_stage
from vadpipe import parallel
from vadpipe.errors import UserError
from vadpipe.parallel import cores, ordered_map


def test_freed_memory_is_not_asked_for_again() -> None:
    """Blocks of 40 MB, as layers of a network put out, in turn: their pages are touched for the first time once."""
    script = (
        "import resource, numpy as np\nfrom vadpipe.machine import keep_freed_memory\nkeep_freed_memory()\n"
        "for _ in range(3): np.ones(5_000_000)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "for _ in range(20): np.ones(5_000_000)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000  # of 11,000 where numpy asks for huge pages, 195,000 elsewhere


def slower_first(index: int) -> int:
    time.sleep(0.02 / (1 + index))
    return index * index


def dies_at_5(index: int) -> int:
    if index == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return index


def fails_at_5(index: int) -> int:
    if index == 5:
        raise UserError("the frame 5 is cut off; replace it")
    return index


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(processes: bool, workers: int) -> None:
    found = list(ordered_map(slower_first, range(12), workers, processes))
    assert found == [index * index for index in range(12)]


def test_a_worker_that_is_killed_is_told() -> None:
    found = []
    with pytest.raises(UserError, match=r"worker process was ended from outside.*memory.*VADPIPE_CORES=1"):
        for value in ordered_map(dies_at_5, range(100), 2, processes=True):
            found.append(value)
    assert found == list(range(len(found)))
    assert len(found) <= 5


@pytest.mark.parametrize("processes", [False, True])
def test_the_error_of_a_worker_is_that_of_the_work(processes: bool) -> None:
    with pytest.raises(UserError, match="frame 5 is cut off"):
        list(ordered_map(fails_at_5, range(100), 2, processes))


def test_items_are_not_read_far_ahead() -> None:
    taken = []

    def items() -> object:
        for index in range(100):
            taken.append(index)
            yield index

    results = ordered_map(slower_first, items(), 2)  # type: ignore[arg-type]
    next(results)
    assert len(taken) <= 5


def alive(process: int) -> bool:
    """Say whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_parent_that_is_ended_leaves_no_worker(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "work.py").write_text(
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from vadpipe.parallel import ordered_map\n"
        "def work(index):\n"
        "    Path(f'worker.{os.getpid()}').touch()\n"
        "    time.sleep(0.5)\n"
        "if __name__ == '__main__':\n"
        "    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "    list(ordered_map(work, range(10_000), 2, processes=True))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    parent = subprocess.Popen(
        [sys.executable, "work.py"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.DEVNULL,
        preexec_fn=heed_ctrl_c,
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("worker.*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.suffix[1:]) for path in tmp_path.glob("worker.*")]
    assert len(workers) == 2
    parent.send_signal(how)
    parent.wait(30)
    deadline = time.monotonic() + 3
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))


@pytest.mark.parametrize("wanted", ["abc", "0", "-1", "1.5", " "])
def test_a_wrong_number_of_cores_is_one_sentence(tiny: Path, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("VADPIPE_CORES", wanted)
    with pytest.raises(UserError, match=rf"VADPIPE_CORES is '{wanted}', which is no number of cores; set it to 1"):
        cores()
    if wanted in {"abc", "0"}:
        done = run_stage("ingest", "tiny", VADPIPE_CORES=wanted)
        assert done.returncode == 2
        assert done.stderr.splitlines() == [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.stderr.count("\n") == 1
        assert not Path("data/clips/tiny").exists()


@pytest.mark.parametrize(
    ("quota", "there"),
    [
        ("max 100000", 64),
        ("100000 100000", 1),
        ("50000 100000", 1),  # half a core is one
        ("250000 100000", 2),
        ("350000 100000", 4),
        ("6400000 100000", 64),
        ("12800000 100000", 64),  # more than the cores that are there
        ("", 64),
        ("nonsense", 64),
        (None, 64),
    ],
)
def test_the_quota_of_a_container_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, there: int
) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(f"{quota}\n")
    monkeypatch.setattr(parallel, "_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.delenv("VADPIPE_CORES", raising=False)
    assert cores() == there
    monkeypatch.setenv("VADPIPE_CORES", "1")
    assert cores() == 1
    monkeypatch.setenv("VADPIPE_CORES", "3")
    assert cores() == min(3, there)
    monkeypatch.setenv("VADPIPE_CORES", "1000")
    assert cores() == there
