"""dvc.yaml: the code among the deps of a stage is the code that it imports."""

from __future__ import annotations

from pathlib import Path

import grimp
import pytest
from ruamel.yaml import YAML

from tests.conftest import REPO
from vadpipe import scenes
from vadpipe.datasets import base as readers
from vadpipe.methods import base

STAGES = YAML(typ="safe").load(REPO / "dvc.yaml")["stages"]

# Read by nearly everything and seldom changed in a way that changes results: not among the deps, or every
# edit of a message would run everything again.
LEFT_OUT = {
    "vadpipe",
    *(
        f"vadpipe.{name}"
        for name in (
            "params",
            "paths",
            "errors",
            "files",
            "machine",
            "clock",
            "parallel",
            "progress",
            "stage",
            "stretches",
            "store.atomic",
        )
    ),
}
# Found by name at run time, so no import leads there: stage -> folders whose file is chosen by a parameter.
CHOSEN = {
    "generate": "vadpipe/scenes",
    "ingest": "vadpipe/datasets",
    "train": "vadpipe/methods",
    "score": "vadpipe/methods",
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("vadpipe", "stages", cache_dir=None)


def body(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def code_deps(stage: str) -> list[str]:
    return [dep for dep in body(stage)["deps"] if dep.startswith(("stages/", "vadpipe/"))]


def file_of(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py") if (REPO / path).is_dir() else f"{path}.py"


def needed(graph: grimp.ImportGraph, module: str) -> set[str]:
    """Return the files of all modules that a module imports, inside functions too."""
    modules = graph.find_upstream_modules(module) - LEFT_OUT
    # Importing a.b.c runs the __init__ of a.b; those that hold only a docstring do not matter.
    return {file_of(name) for name in modules if len((REPO / file_of(name)).read_text().splitlines()) > 1}


def covered(file: str, deps: list[str]) -> bool:
    return any(file == dep or file.startswith(f"{dep}/") for dep in deps)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_it_imports(graph: grimp.ImportGraph, stage: str) -> None:
    deps = code_deps(stage)
    assert f"stages/{stage}.py" in deps
    files = needed(graph, f"stages.{stage}")
    assert [file for file in sorted(files) if not covered(file, deps)] == []


@pytest.mark.parametrize("stage", ["train", "score"])
@pytest.mark.parametrize("method", base.names())
def test_a_run_depends_on_the_code_of_its_method(graph: grimp.ImportGraph, stage: str, method: str) -> None:
    deps = [dep.replace("${item.method}", method) for dep in code_deps(stage)]
    files = {*needed(graph, f"vadpipe.methods.{method}"), f"vadpipe/methods/{method}.py"}
    assert [file for file in sorted(files) if not covered(file, deps)] == []


@pytest.mark.parametrize("reader", readers.names())
def test_a_data_set_depends_on_the_code_of_its_reader(graph: grimp.ImportGraph, reader: str) -> None:
    deps = [dep.replace("${item.reader}", reader) for dep in code_deps("ingest")]
    files = {*needed(graph, f"vadpipe.datasets.{reader}"), f"vadpipe/datasets/{reader}.py"}
    assert [file for file in sorted(files) if not covered(file, deps)] == []


@pytest.mark.parametrize("scene", scenes.names())
def test_a_scene_depends_on_the_code_that_draws_it(graph: grimp.ImportGraph, scene: str) -> None:
    deps = [dep.replace("${key}", scene) for dep in code_deps("generate")]
    package = f"vadpipe.scenes.{scene}"
    files = {file for module in {package, *graph.find_descendants(package)} for file in needed(graph, module)}
    assert [file for file in sorted(files) if not covered(file, deps)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_no_dependency_is_idle(graph: grimp.ImportGraph, stage: str) -> None:
    """Code that a stage does not import would run it again for nothing."""
    files = needed(graph, f"stages.{stage}")
    if stage in CHOSEN:
        package = CHOSEN[stage].replace("/", ".")
        for module in graph.find_children(package):
            files |= needed(graph, module) | {file_of(module)}
    for dep in code_deps(stage):
        path = dep.split("${")[0].rstrip("/")
        assert (REPO / path).exists() or path.endswith(".py"), dep
        assert dep == f"stages/{stage}.py" or any(covered(file, [path]) for file in files), dep


def test_commands_hold_nothing_of_params_yaml() -> None:
    """A key in a command would reach the shell before anything has checked it."""
    for name in STAGES:
        assert body(name)["cmd"] == f"python -m stages.{name}"


def test_labels_and_test_clips_train_nothing_again() -> None:
    inputs = [dep for dep in body("train")["deps"] if not dep.startswith(("stages/", "vadpipe/"))]
    assert inputs == ["${item.uses}/train"]
    assert {name for name in STAGES if "data/labels" in str(body(name)["deps"])} == {"inpaint", "evaluate"}


def test_the_summary_is_the_one_metric() -> None:
    metrics = [path for name in STAGES for entry in body(name).get("metrics", []) for path in entry]
    assert metrics == ["metrics/summary.json"]
