"""`vadpipe repro`: what is wanted, in which order it runs, what fails, and how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from tests.conftest import REPO, heed_ctrl_c, tiny_params, write_params
from tests.test_summary import write_run
from vadpipe import params, paths, progress
from vadpipe.errors import UserError
from vadpipe.repro import _environment, repro
from vadpipe.repro.graph import pending, run_in_order, stage_graph, wanted
from vadpipe.repro.reasons import headline, reason
from vadpipe.repro.watch import Watch

DOT = """strict digraph  {
"train@a";
"ingest";
"flow";
"score@a";
"alone";
"ingest" -> "flow";
"ingest" -> "train@a";
"flow" -> "score@a";
"train@a" -> "score@a";
}"""


def test_pending_is_what_changed_and_what_hangs_on_it() -> None:
    graph = stage_graph(DOT)
    assert graph["score@a"] == {"flow", "train@a"}
    assert pending(graph, {"ingest"}) == {"ingest", "flow", "train@a", "score@a"}
    assert pending(graph, {"flow", "alone"}) == {"flow", "alone", "score@a"}
    assert pending(graph, set()) == set()


def test_stages_run_side_by_side_and_after_what_they_need() -> None:
    graph = stage_graph(DOT)
    together = threading.Barrier(2, timeout=20)
    done: list[str] = []

    def run(stage: str) -> int:
        assert graph[stage] <= set(done)
        if stage in {"flow", "train@a"}:
            together.wait()  # passes only if both run at the same time
        done.append(stage)
        return 0

    assert run_in_order(graph, set(graph), run, 2) == []
    assert sorted(done) == sorted(graph)


def test_the_longest_chain_comes_first() -> None:
    # Of `a` nothing hangs, of `z` a chain of three, of `b` a chain of two.
    graph = stage_graph(
        'digraph {"a"; "z" -> "y"; "y" -> "x"; "x" -> "w"; "b" -> "c"; "c" -> "d"; }'.replace("; ", "\n")
    )
    done: list[str] = []

    def run(stage: str) -> int:
        done.append(stage)
        return 0

    assert run_in_order(graph, set(graph), run, 1) == []
    assert done == ["z", "b", "y", "c", "x", "a", "d", "w"]
    assert run_in_order(graph, {"a", "c", "d"}, lambda stage: done.append(stage) or 0, 1) == []
    assert done[-3:] == ["c", "a", "d"]


def test_what_does_not_hang_on_a_failure_runs() -> None:
    graph = stage_graph(DOT)
    ran: list[str] = []

    def run(stage: str) -> int:
        ran.append(stage)
        return stage == "flow"

    assert run_in_order(graph, set(graph), run, 2) == ["flow"]
    assert sorted(ran) == ["alone", "flow", "ingest", "train@a"]


PIPELINE = """strict digraph  {
"ingest@a" -> "flow@a";
"ingest@a" -> "features@a_net";
"ingest@b" -> "train@b_bright";
"raw/a.dvc" -> "ingest@a";
"features@a_net" -> "train@a_knn";
"flow@a" -> "train@a_flow";
"train@a_knn" -> "evaluate@a_knn";
"train@a_flow" -> "evaluate@a_flow";
"train@b_bright" -> "evaluate@b_bright";
"evaluate@a_knn" -> "summarize";
"evaluate@a_flow" -> "summarize";
"evaluate@b_bright" -> "summarize";
}"""


def two_sets() -> params.Params:
    """Parameters with the data sets a and b, and runs of both."""
    tree = tiny_params()
    ingest = tree["ingest"]["tiny"]
    net = tree["features"]["tiny_net"]
    empty: dict[str, dict] = {"train": {}, "score": {}, "evaluate": {}}
    tree |= {"inpaint": {}, "pool_mask": {}, "ingest": {"a": ingest, "b": dict(ingest)}}
    tree |= {"flow": {"a": tree["flow"]["tiny"]}, "features": {"a_net": {**net, "uses": "data/clips/a"}}}
    tree["runs"] = {
        "a_knn": {"dataset": "a", "method": "knn", "uses": "data/features/a_net", **empty},
        "a_flow": {"dataset": "a", "method": "flow_magnitude", "uses": "data/flow/a", **empty},
        "b_bright": {"dataset": "b", "method": "brightness", "uses": "data/clips/b", **empty},
    }
    write_params(tree)
    return params.load()


def test_names_stand_for_what_is_made_and_what_that_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    loaded, graph = two_sets(), stage_graph(PIPELINE)
    runs_of_a = {f"{step}@a_{method}" for step in ("train", "evaluate") for method in ("knn", "flow")}
    assert wanted(loaded, graph, ["a"]) == {"raw/a.dvc", "ingest@a", "flow@a", "features@a_net", *runs_of_a}
    assert wanted(loaded, graph, ["b_bright"]) == {"ingest@b", "train@b_bright", "evaluate@b_bright"}
    knn = {"raw/a.dvc", "ingest@a", "features@a_net", "train@a_knn"}
    assert wanted(loaded, graph, ["train@a_knn"]) == knn
    assert wanted(loaded, graph, ["features", "b"]) == {
        "raw/a.dvc",
        "ingest@a",
        "features@a_net",
        *wanted(loaded, graph, ["b_bright"]),
    }
    assert wanted(loaded, graph, []) == wanted(loaded, graph, ["summarize"]) == set(graph)
    with pytest.raises(UserError, match="'a_kn' is no data set, run or stage; did you mean 'a_knn'"):
        wanted(loaded, graph, ["b", "a_kn"])


RUNNING = "Running stage 'train@a':\n> python -m stages.train a\n"
TRACE = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    f()\n'
ENDED = "ERROR: failed to reproduce 'train@a': failed to run: python -m stages.train a, exited with"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{RUNNING}warning\nerror: x is wrong; mend it\n{ENDED} 2\n", "x is wrong; mend it"),
        (f"{RUNNING}error: a: wrong\n       b: missing\n{ENDED} 2\n", "a: wrong; b: missing"),
        (f"{RUNNING}{TRACE}ValueError: two\nlines\n{ENDED} 1\n", "ValueError: two"),
        (f"{RUNNING}{TRACE}KeyError: 1\n\nDuring handling:\n\n{TRACE}OSError: 2\n{ENDED} 1\n", "OSError: 2"),
        (f"{RUNNING}some word\n{ENDED} 3\n", "some word"),
        (f"ne of many lines\nthe last word\n{ENDED} 3\n", "the last word"),
        (f"{RUNNING}{ENDED} 3\n", "it ended with exit code 3 and said nothing"),
        (f"{RUNNING}{ENDED} -9\n", "ended by signal 9, often out of memory"),
        (f"{RUNNING}Killed\n{ENDED} 137\n", "ended by signal 9, often out of memory"),
        (f"{RUNNING}{ENDED} -11\n", "ended by signal 11"),
        (
            f"ERROR: failed to reproduce 'ingest@a': [Errno 2] No such file or directory: '{os.getcwd()}/data/raw/a'\n",
            "data/raw/a is not here; add the data or run `dvc pull`",
        ),
        (
            "ERROR: failed to reproduce 'data/raw/a.dvc': missing data 'source': data/raw/a\n",
            "data/raw/a is not here; add the data or run `dvc pull`",
        ),
        (
            f"{RUNNING}all is well\nERROR: failed to reproduce 'train@a': output 'x' does not exist\n",
            "output 'x' does not exist",
        ),
    ],
)
def test_of_what_was_printed_the_reason_is_kept(text: str, expected: str) -> None:
    assert reason(text, 255) == expected


def test_dvc_itself_may_be_killed() -> None:
    assert reason("", -9) == "DVC was ended by signal 9, often out of memory"
    assert reason("", 1) == "DVC failed without a word"


def test_the_headline_is_the_last_line_of_the_stage() -> None:
    after = "Updating lock file 'dvc.lock'\n\nTo track the changes with git, run:\n\n\tgit add dvc.lock\n"
    assert (
        headline(f"{RUNNING}seed 0\na: AUC 0.9 -> models/a\n{after}Use `dvc push` to send your updates\n")
        == "a: AUC 0.9 -> models/a"
    )
    assert headline(f"{RUNNING}{after}") == ""
    assert (
        headline("Stage 'train@a' is cached - skipping run, checking out outputs\n") == "taken from the cache of runs"
    )
    assert headline("Stage 'train@a' didn't change, skipping\nData and pipelines are up to date.\n") == "nothing new"


def test_a_bar_leaves_a_line_that_tells_how_far_a_stage_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "train@mine.json"
    assert progress.read(path) is None
    monkeypatch.setenv(progress.VARIABLE, str(path))
    with progress.bar(10, "frames", "train seed 3", done=2) as bar:
        list(progress.advancing([[1, 2], [3]], bar))
        bar.refresh()
        report = progress.read(path)
    assert report is not None
    assert (report.desc, report.done, report.total, report.unit) == ("train seed 3", 5, 10, "frames")
    assert report.rate
    assert report.rate > 0
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (progress.Report("flow", 4000, 10000, "frames", 81.23), "4,000 of 10,000 frames, 81.2 frames/s, 0:01:14 left"),
        (progress.Report("flow", 0, 90000, "frames", 2.5), "0 of 90,000 frames, 2.5 frames/s, 10:00:00 left"),
        (progress.Report("ingest mine", 5, None, "frames", 1234.4), "5 frames, 1,234 frames/s"),
        (progress.Report("train seed 3", 1, 30, "epochs", 0.5), "seed 3, 1 of 30 epochs, 0:00:58 left"),
        (progress.Report("train", 1, 30, "epochs", None), "1 of 30 epochs"),
    ],
)
def test_frames_are_told_with_their_rate_and_the_time_left(report: progress.Report, expected: str) -> None:
    stage = "train@mine" if "train" in report.desc else f"{report.desc.split()[0]}@mine"
    assert report.told(stage) == expected


# A stage that does what `do/STAGE@KEY` says, and of a run leaves the metrics that lie ready in `ready`.
FAKE = """
import os, shutil, subprocess, sys, time
from pathlib import Path
from vadpipe import paths, progress
stage, key = os.environ["DVC_STAGE"], sys.argv[2]
order = Path("do", stage)
match order.read_text().split() if order.exists() else []:
    case ["refuse"]:
        paths.failure(stage).parent.mkdir(parents=True, exist_ok=True)
        paths.failure(stage).write_text(f"{key} holds NaN; mend it\\n")
        sys.exit(f"error: {key} holds NaN; mend it")
    case ["crash"]:
        raise ValueError("what is this?")
    case ["kill"]:
        # A worker is left, which holds what its parent printed to.
        Path("workers", stage).write_text(str(subprocess.Popen(["sleep", "600"]).pid))
        os.kill(os.getpid(), 9)
    case ["wait"]:
        worker = subprocess.Popen(["sleep", "600"])
        with progress.bar(9000, "frames", "fake") as bar:
            time.sleep(1.1)
            bar.update(100)
            Path("workers", stage).write_text(f"{os.getpid()} {worker.pid}")
            time.sleep(600)
out = Path(sys.argv[3])
out.parent.mkdir(parents=True, exist_ok=True)
if sys.argv[1] == "evaluate":
    Path("metrics/roc").mkdir(parents=True, exist_ok=True)
    shutil.copy(f"ready/{key}/roc.csv", f"metrics/roc/{key}.csv")
    shutil.copy(f"ready/{key}/metrics.json", out)
    print(f"{key}: raw micro AUC 0.900")
else:
    out.write_text(key)
print(f"{key} -> {out}")
"""


def stage(name: str, foreach: str, deps: list[str], out: str, **more: object) -> dict[str, object]:
    script = f"python fake.py {name} ${{key}} {out}"
    return {name: {"foreach": f"${{{foreach}}}", "do": {"cmd": script, "deps": deps, "outs": [out], **more}}}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DVC repository of 11 quick stages: data sets a (runs a_flow, a_knn) and b (run b_bright)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    loaded = two_sets()
    for folder in ("do", "workers", "data/raw/a", "data/raw/b"):
        Path(folder).mkdir(parents=True)
    Path("fake.py").write_text(FAKE)
    for name, run in loaded.runs.items():
        write_run(name, run.dataset, run.method, [0.9])
        Path("ready", name).mkdir(parents=True)
        paths.run_metrics(name).rename(f"ready/{name}/metrics.json")
        paths.roc(name).rename(f"ready/{name}/roc.csv")
    uses = ["${item.uses}"]
    stages = {
        **stage("ingest", "ingest", ["data/raw/${key}"], "data/clips/${key}"),
        **stage("flow", "flow", ["data/clips/${key}"], "data/flow/${key}"),
        **stage("features", "features", uses, "data/features/${key}"),
        **stage("train", "runs", uses, "models/${key}", params=["methods.${item.method}"]),
        **stage("evaluate", "runs", ["models/${key}"], "metrics/runs/${key}.json"),
        "summarize": {
            "cmd": f"python {REPO}/stages/summarize.py",
            "deps": ["metrics/runs"],
            "outs": ["metrics/summary.md"],
            "metrics": [{"metrics/summary.json": {"cache": False}}],
        },
    }
    stages["evaluate"]["do"]["outs"] = [{"metrics/runs/${key}.json": {"cache": False}}]
    with Path("dvc.yaml").open("w") as file:
        YAML().dump({"stages": stages}, file)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], check=True)
    return tmp_path


def order(stage: str, what: str) -> None:
    Path("do", stage).write_text(what)


def gone(pid: str) -> bool:
    """Return whether a process has ended; nobody may have asked for its exit code yet."""
    try:
        return psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.slow
def test_a_run_that_fails_takes_nothing_from_the_others(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order("train@a_knn", "refuse")
    order("flow@a", "kill")
    assert repro([], 2) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "11 stages to run, 2 at a time"
    assert "train@a_knn failed after" in out
    # A run's headline comes when it is there, and the table at the end.
    assert out.index("b_bright -> metrics/runs/b_bright.json") < out.index("raw micro  smoothed")
    rows = out[out.index("\na\n") :].splitlines()
    assert "a_knn   train@a_knn failed: a_knn holds NaN; mend it" in rows
    assert "a_flow  flow@a failed: ended by signal 9, often out of memory" in rows
    assert any(row.startswith("b_bright      0.900") for row in rows)
    assert "flow@a, train@a_knn failed, 4 that hang on it did not run" in err
    # What the killed stage left behind did not hold anything up, and is gone.
    assert gone(Path("workers/flow@a").read_text())
    assert paths.failure("flow@a").read_text() == "ended by signal 9, often out of memory\n"
    page = paths.SUMMARY_TABLE.read_text()
    assert "- a_knn: train@a_knn failed: a_knn holds NaN; mend it" in page
    assert "| b_bright | brightness |" in page
    summary = json.loads(paths.SUMMARY.read_text())
    assert summary["a_flow"] == {"failed": "flow@a failed: ended by signal 9, often out of memory"}
    assert summary["b_bright"]["raw"]["micro_auc"] == 0.9

    # Mended, the data set is all that is left to do, and the summary has all runs.
    order("train@a_knn", "")
    order("flow@a", "")
    assert repro(["a"], 2) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "6 stages to run for a, 2 at a time"
    assert "[6 of 6] summarize" in out
    assert err == ""
    assert "failed" not in paths.SUMMARY_TABLE.read_text()
    assert list(json.loads(paths.SUMMARY.read_text())) == ["a_knn", "a_flow", "b_bright"]
    assert not list(Path(".vadpipe/failed").iterdir())
    assert repro([], 1) == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["nothing to run", "Data and pipelines are up to date."]


@pytest.mark.slow
def test_a_data_set_runs_alone_and_missing_data_are_named(fake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert repro(["b"], 1) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0] == "3 stages to run for b, 1 at a time"
    assert "a_knn" not in out
    # The summary is not DVC's, since runs are missing, and says so.
    assert "2 of 3 runs are not here yet: a_knn, a_flow; run `vadpipe repro`" in paths.SUMMARY_TABLE.read_text()
    assert list(json.loads(paths.SUMMARY.read_text())) == ["b_bright"]
    Path("data/raw/a").rmdir()
    assert repro(["a_knn"], 2) == 1
    out = capsys.readouterr().out
    assert "ingest@a failed after" in out
    assert "s: data/raw/a is not here; add the data or run `dvc pull` (" in out
    assert "a_knn  ingest@a failed: data/raw/a is not here; add the data or run `dvc pull`" in out
    with pytest.raises(UserError, match="did you mean 'b_bright'"):
        repro(["b_brigt"], 2)


RUN = """
import sys
import vadpipe.repro.watch as watch
from vadpipe.repro import _environment, repro
from vadpipe.repro.processes import ending_in_one_line
watch.ELSEWHERE_S = 0.5
with ending_in_one_line():
    sys.exit(repro(["ingest"], 2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_in_one_line(fake: Path, number: signal.Signals) -> None:
    marks = [Path("workers", f"ingest@{name}") for name in "ab"]
    for mark in marks:
        order(mark.name, "wait")
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", RUN], stdout=pipe, stderr=pipe, text=True, preexec_fn=heed_ctrl_c)
    deadline = time.monotonic() + 120
    while not all(mark.exists() for mark in marks) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.5)  # for a look at the progress
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == "interrupted; what is done is kept, `vadpipe repro` goes on\n"
    assert "100 of 9,000 frames" in out
    assert "left" in out
    assert "failed" not in out
    assert all(gone(pid) for mark in marks for pid in mark.read_text().split())
    assert not list(Path(".vadpipe/failed").iterdir())


def test_the_fresh_line_gives_way_to_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    with Watch(2) as watch:
        watch.started("flow@a")
        path = paths.progress("flow@a")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"desc": "flow", "done": 10, "total": 20, "unit": "frames", "rate": 5.0}))
        watch.say("hello")
        watch.succeeded("flow@a", "12 clips")
    clear = "\r\x1b[K"
    assert screen.getvalue().split(clear) == [
        "",
        "hello\nflow@a 0:00:00, 10 of 20 frames, 5 frames/s, 0:00:02 left",
        "[1 of 2] flow@a, 0 s: 12 clips\n",
        "",
    ]


def test_the_cores_are_shared_and_threads_that_wait_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vadpipe.repro.cores", lambda: 5)
    environment = _environment(2)
    assert (environment["VADPIPE_CORES"], environment["OMP_NUM_THREADS"]) == ("2", "2")
    assert environment["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.undo()
    monkeypatch.setenv("VADPIPE_CORES", "1")
    assert _environment(1)["OMP_NUM_THREADS"] == "1"
