"""What the README promises of DVC, in a real git and DVC repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.conftest import REPO, folder_dataset, tiny_params, write_params
from vadpipe.methods import base

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
# Columns that `dvc exp show` drops in the README, so that the changed parameter and the headline are left.
COMPARED = ".*(/|smoothed|minmax|macro|average|eer)"
RUNS = ("tiny_frame_difference", "tiny_flow_magnitude", "tiny_knn")


def call(folder: Path, *command: str, check: bool = True) -> str:
    """Run a command in a repository and return what it printed."""
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        command, cwd=folder, env=environment, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout


def ran(output: str) -> set[str]:
    """Return the stages that a `dvc repro` ran."""
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics/summary.json").read_text())


def copied(folder: Path, params: dict[str, Any]) -> None:
    """Copy the repository without its data and results, and give it a params.yaml."""
    shutil.copytree(
        REPO,
        folder,
        ignore=shutil.ignore_patterns(
            ".git",
            ".venv",
            "data",
            "models",
            "metrics",
            "plots",
            "dvc.lock",
            "tmp",
            "cache",
            ".checkpoints",
            ".vadpipe",
            "*cache*",
        ),
    )
    write_params(params, folder)
    call(folder, "git", "init", "-q", "-b", "main")
    call(folder, "git", "config", "user.email", "a@b.c")
    call(folder, "git", "config", "user.name", "a")


def without_items() -> dict[str, Any]:
    """Return the small params.yaml with empty sections."""
    return tiny_params() | {
        name: {} for name in ("ingest", "archived", "inpaint", "pool_mask", "composite", "flow", "features", "runs")
    }


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a data set added as the README says, its pipeline run by `vadpipe repro -j 2`."""
    root = tmp_path_factory.mktemp("dvc")
    folder = root / "work"
    # Those that train for hours are added by hand, and those that go through all places of all frames.
    items = tiny_params()["runs"].items()
    starts = {name: base.get(run["method"]) for name, run in items if run["dataset"] == "tiny"}
    runs = {name for name, cls in starts.items() if cls.quick and cls.features != "maps"}
    copied(folder, without_items())
    raw = folder_dataset(root / "raw")
    call(folder, "vadpipe", "data", "add", "tiny", str(raw), "--reader", "folder", "--fps", "10")
    assert (folder / "data/raw/tiny.dvc").is_file()
    # Fewer runs, and a network that takes no time.
    yaml = YAML()
    tree = yaml.load(folder / "params.yaml")
    assert set(tree["runs"]) == runs
    tree["runs"] = {name: tree["runs"][name] for name in RUNS}
    tree["features"]["tiny_lite0"] |= {"backbone": "resnet18", "weights": "random", "height": 32, "width": 32}
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(tree, file)
    assert "is right" in call(folder, "vadpipe", "data", "check", "tiny")
    output = call(folder, "vadpipe", "repro", "-j", "2")
    assert "13 stages to run, 2 at a time" in output
    assert "[13 of 13] summarize" in output
    assert "Data and pipelines are up to date" in output
    call(folder, "dvc", "remote", "add", "-d", "here", str(root / "remote"))
    call(folder, "git", "add", "-A")
    call(folder, "git", "commit", "-qm", "first")
    return folder


def test_nothing_runs_twice(repository: Path) -> None:
    assert ran(call(repository, "dvc", "repro")) == set()
    # The run-cache would hide a stage that does not repeat; force one to run again.
    before = (repository / "dvc.lock").read_text()
    call(repository, "dvc", "repro", "-f", "--no-run-cache", "-s", "features@tiny_lite0", "train@tiny_knn")
    assert call(repository, "git", "diff", "--stat", "params.yaml") == ""
    assert (repository / "dvc.lock").read_text() == before
    call(repository, "dvc", "checkout", "-q")


def test_scoring_anew_neither_trains_nor_extracts(repository: Path) -> None:
    before = metrics(repository)
    output = call(repository, "dvc", "exp", "run", "-n", "three", "-S", "methods.knn.score.k=3")
    assert ran(output) == {"score@tiny_knn", "evaluate@tiny_knn", "summarize"}
    after = metrics(repository)
    assert after["tiny_flow_magnitude"] == before["tiny_flow_magnitude"]
    shown = call(repository, "dvc", "exp", "show", "--only-changed", "--drop", COMPARED)
    header = next(line for line in shown.splitlines() if "Experiment" in line)
    assert header.split() == ["Experiment", "Created", "tiny_knn.raw.micro_auc", "methods.knn.score.k"]
    assert [line.split()[-1] for line in shown.splitlines() if "[three]" in line] == ["3"]
    assert max(map(len, shown.splitlines())) < 140
    # `-S` writes the file anew; in the form that it has, one line changes.
    assert call(repository, "git", "diff", "--numstat", "params.yaml").split() == ["1", "1", "params.yaml"]
    diff = json.loads(call(repository, "dvc", "params", "diff", "--json"))
    assert (diff["params.yaml"]["methods.knn.score.k"].items()) >= {"old": 2, "new": 3}.items()


def test_metrics_and_plots_are_compared_with_head(repository: Path) -> None:
    # A threshold-like change that surely moves a figure: another side of the cells.
    output = call(repository, "dvc", "exp", "run", "-S", "methods.flow_magnitude.score.cell=24")
    assert "score@tiny_flow_magnitude" in ran(output)
    table = call(repository, "dvc", "metrics", "diff", "--md")
    assert "tiny_flow_magnitude.raw" in table
    assert "| Path" in table
    page = repository / "comparison"
    call(repository, "dvc", "plots", "diff", "HEAD", "-o", str(page))
    assert "roc_csv" in (page / "index.html").read_text()
    assert list(page.rglob("*timelines.png"))
    shutil.rmtree(page)


def test_a_run_is_added_on_the_command_line(repository: Path) -> None:
    run = "{dataset: tiny, method: knn, uses: data/features/tiny_lite0, train: {}, score: {k: 1}, evaluate: {}}"
    output = call(repository, "dvc", "exp", "run", "-S", f"+runs.mine={run}")
    assert {"train@mine", "score@mine", "evaluate@mine", "summarize"} <= ran(output)
    assert not {stage for stage in ran(output) if stage.startswith(("ingest", "flow", "features"))}
    assert "mine" in metrics(repository)


def test_push_and_pull_into_a_fresh_clone(repository: Path) -> None:
    call(repository, "git", "checkout", "-q", "-f", "main")
    call(repository, "dvc", "checkout", "-q", "--force")
    call(repository, "dvc", "push", "-q")
    clone = repository.parent / "clone"
    call(repository.parent, "git", "clone", "-q", str(repository), str(clone))
    call(clone, "dvc", "pull", "-q")
    output = call(clone, "dvc", "repro")
    assert ran(output) == set()
    assert "up to date" in output
    assert metrics(clone) == metrics(repository)


def test_footage_stays_out_of_git_where_nothing_of_it_is_known(repository: Path) -> None:
    """As on a branch from before the data set was added, whose .gitignore files do not name it."""
    for file in repository.glob("data/*/.gitignore"):
        file.unlink()
    shown = call(repository, "git", "status", "--porcelain", "--untracked-files=all")
    assert not [line for line in shown.splitlines() if line.startswith("??") and "data/" in line]
    assert (repository / "plots/tiny_knn/pictures/top_frames.png").is_file()
    assert not [line for line in shown.splitlines() if "pictures" in line]
    assert not call(repository, "git", "ls-files", "plots/tiny_knn/pictures")


def test_a_wrong_params_file_stops_before_anything_runs(repository: Path) -> None:
    params = repository / "params.yaml"
    text = params.read_text()
    params.write_text(text.replace("smoothing_s", "smothing_s", 1))
    output = call(repository, "vadpipe", "repro", check=False)
    params.write_text(text)
    assert "unknown key 'smothing_s'; did you mean 'smoothing_s'" in output
    assert "Running stage" not in output
    assert "Traceback" not in output


def test_a_corrected_label_trains_and_scores_nothing_again(repository: Path) -> None:
    labels = repository / "data/raw/tiny/labels.csv"
    text = labels.read_text()
    before = metrics(repository)
    labels.unlink()  # a link into the cache of DVC, perhaps
    labels.write_text(text.replace("b2,6,32", "b2,6,30"))
    assert labels.read_text() != text
    stages = {stage for stage in ran(call(repository, "dvc", "repro")) if not stage.startswith("data/raw")}
    assert stages == {"ingest@tiny", *(f"evaluate@{run}" for run in RUNS), "summarize"}
    assert metrics(repository) != before


def test_a_new_test_clip_trains_nothing_again(repository: Path) -> None:
    raw = repository / "data/raw/tiny"
    shutil.copytree(raw / "test/b3", raw / "test/b4")
    stages = ran(call(repository, "dvc", "repro"))
    assert {f"score@{run}" for run in RUNS} < stages
    assert {"ingest@tiny", "flow@tiny", "features@tiny_lite0"} < stages
    assert not {stage for stage in stages if stage.startswith("train")}


def test_archived_footage_is_gone_and_everything_after_it_runs(repository: Path) -> None:
    said = call(repository, "vadpipe", "data", "archive", "tiny")
    assert "removed: data/raw/tiny" in said
    assert not (repository / "data/raw/tiny").exists()
    assert "archived" in call(repository, "vadpipe", "data", "list")
    assert "is right" in call(repository, "vadpipe", "check")
    assert not ran(call(repository, "vadpipe", "repro", "tiny"))
    assert not ran(call(repository, "dvc", "repro"))
    call(repository, "git", "add", "-A")
    call(repository, "git", "commit", "-qm", "archived")
    changed = call(repository, "dvc", "exp", "run", "-S", "flow.tiny.preset=ultrafast", "-S", "methods.knn.score.k=4")
    assert {"flow@tiny", "train@tiny_flow_magnitude", "score@tiny_knn", "summarize"} <= ran(changed)


EVIL = ("x; touch PWNED #", "y'; touch PWNED; '", '$(touch PWNED)"`touch PWNED`')


@pytest.mark.parametrize("key", EVIL)
@pytest.mark.parametrize("section", ["generate", "ingest", "runs"])
def test_a_key_of_params_yaml_reaches_no_shell(tmp_path: Path, section: str, key: str) -> None:
    """Plain `dvc repro`, which checks nothing before it starts a stage."""
    params = without_items()
    items = {
        "generate": {"seed": 1},
        "ingest": {"reader": "folder", "fps": 10.0, "quality": None},
        "runs": {**tiny_params()["runs"]["tiny_brightness"], "uses": f"data/clips/{key}"},
    }
    params[section] = {key: items[section]}
    folder = tmp_path / "work"
    copied(folder, params)
    # All that the stage depends on is there, so that it is started.
    for place in ("data/raw", "data/clips", "vadpipe/scenes"):
        folder_dataset(folder / place / key)
    output = call(folder, "dvc", "repro", check=False)
    assert not list(tmp_path.rglob("PWNED*"))
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    stage = {"runs": "train"}.get(section, section)
    assert len(errors) == 1, output
    assert errors[0].startswith(f"error: params.yaml: stage {stage}: the key ")
    assert re.search(rf"ERROR: failed to reproduce ['\"]{stage}@", output)
    assert "Traceback" not in output
