"""params.yaml: unknown keys, wrong types and dangling names are refused with the way out."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import REMOVED, REPO, changed_params, ingest_params, run_stage, tiny_params, write_params
from vadpipe import demands, edit, params
from vadpipe.errors import UserError

PASTED = YAML(typ="safe").load(REPO / "params.yaml")["composite"]["campus"]

BAD = {
    "unknown key": (
        changed_params(flow__tiny__presett="fast"),
        r"flow\.tiny: unknown key 'presett'; did you mean 'preset'\?",
    ),
    "missing key": (changed_params(flow__tiny__preset=REMOVED), r"flow\.tiny: the key 'preset' is missing"),
    "wrong type": (changed_params(features__tiny_net__batch="many"), r"features\.tiny_net\.batch: .*integer.*'many'"),
    "text for a number": (changed_params(ingest__tiny__fps="10"), r"ingest\.tiny\.fps"),
    "not one of": (changed_params(flow__tiny__algorithm="dis2"), r"flow\.tiny\.algorithm: .*'dis' or 'farneback'"),
    "out of range": (changed_params(ingest__tiny__quality=0), r"ingest\.tiny\.quality"),
    "unknown section": ({**tiny_params(), "evaluation": {}}, r"unknown section 'evaluation'; did you mean 'evaluate'"),
    "missing section": (changed_params(flow=REMOVED), r"section 'flow' is missing"),
    "unknown data set": (
        changed_params(runs__tiny_knn__dataset="tinny"),
        r"runs\.tiny_knn\.dataset: .*'tinny'; did you mean 'tiny'",
    ),
    "unknown method": (
        changed_params(runs__tiny_knn__method="knnn"),
        r"runs\.tiny_knn\.method: .*'knnn'; did you mean 'knn'",
    ),
    "dangling uses": (changed_params(runs__tiny_knn__uses="data/features/x"), r"runs\.tiny_knn\.uses"),
    "bad override": (
        changed_params(runs__tiny_knn__evaluate={"bootstrp": 3}),
        r"runs\.tiny_knn\.evaluate: unknown key 'bootstrp'",
    ),
    "features of nothing": (
        changed_params(features__tiny_net__uses="data/clips/tin"),
        r"features\.tiny_net\.uses: no stage writes 'data/clips/tin'; did you mean 'data/clips/tiny'",
    ),
    "pool of images that are not inpainted": (
        changed_params(pool_mask={"tiny": {"confidence": 0.3, "shrink": 0.0}}),
        "no item of `inpaint`",
    ),
    "composite of nothing": (
        changed_params(composite={"tinny": {}}),
        r"composite\.tinny: the key 'source' is missing",
    ),
    "composite of an unknown data set": (
        changed_params(composite={"tinny": PASTED}),
        r"composite\.tinny: unknown data set 'tinny'; did you mean 'tiny'",
    ),
    "limits the wrong way round": (
        changed_params(composite={"tiny": {**PASTED, "sizes": [2.0, 1.0]}}),
        r"composite\.tiny\.sizes: .*smaller bound first",
    ),
    "reserved": (
        {**tiny_params(), "runs": {"summary": tiny_params()["runs"]["tiny_knn"]}},
        r"runs\.summary: .*rename it",
    ),
    "grid of no layer": (
        changed_params(features__tiny_net__grid=[2, 2]),
        r"features\.tiny_net: .*a grid needs `layers`",
    ),
    "cells of a crop": (
        changed_params(features__tinypool_cells__preprocessing="weights"),
        r"features\.tinypool_cells: .*cuts off the edge of the frame.* with cells or maps give `preprocessing: frame`",
    ),
    "maps of a crop": (
        changed_params(features__tiny_maps__preprocessing="weights"),
        r"features\.tiny_maps: .*cuts off the edge of the frame",
    ),
    "preprocessing of nobody": (
        changed_params(features__tiny_net__preprocessing="crop"),
        r"features\.tiny_net\.preprocessing: .*'frame' or 'weights'",
    ),
    "gallery of no vectors": (
        changed_params(runs__tiny_brightness__evaluate={"gallery": True}),
        r"runs\.tiny_brightness\.evaluate\.gallery: .* 'data/clips/tiny' is something else; set it to false",
    ),
    "gallery of cells": (
        changed_params(runs__tiny_dfr__evaluate={"gallery": True}),
        r"runs\.tiny_dfr\.evaluate\.gallery: .* 'data/features/tinypool_cells' is something else",
    ),
    "grid of one": (changed_params(features__tiny_net__grid=[2]), r"features\.tiny_net\.grid"),
    "number as key": ({**tiny_params(), "flow": {5: {}}}, r"flow: the key 5 is no name"),
    "bool as key": ({**tiny_params(), "runs": {True: {}}}, r"runs: the key True is no name"),
    "dot in a key": ({**tiny_params(), "generate": {"a.b": {}}}, r"generate: the key 'a\.b' is no name"),
    "path as key": ({**tiny_params(), "generate": {"../a": {}}}, r"the key '\.\./a' is no name"),
    "capital in a key": ({**tiny_params(), "generate": {"A": {}}}, r"the key 'A' is no name"),
    "list for a section": ({**tiny_params(), "runs": ["a"]}, r"runs: expected a mapping"),
    "value for an item": (changed_params(flow__tiny=3), r"flow\.tiny: expected keys and values, got 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    tree, message = BAD[case]
    write_params(tree)
    with pytest.raises(UserError, match=message) as error:
        params.load()
    assert "params.yaml" in str(error.value)


METHOD_BAD = {
    "unknown": (changed_params(methods__knn__score__kk=3), r"methods\.knn\.score .*unknown key 'kk'; did you mean 'k'"),
    "type": (changed_params(methods__knn__score__k="two"), r"methods\.knn\.score"),
    "range": (
        changed_params(runs__tiny_knn__score={"k": 0}),
        r"runs\.tiny_knn\.score\.k: .*greater than or equal to 1",
    ),
    "kind": (
        changed_params(runs__tiny_knn__uses="data/flow/tiny"),
        r"runs\.tiny_knn\.uses: 'data/flow/tiny' is of kind 'flow', but knn needs 'features'",
    ),
    "no such method": (
        {**tiny_params(), "methods": {**tiny_params()["methods"], "knm": {"train": {}, "score": {}}}},
        "'knm'",
    ),
}


@pytest.mark.parametrize("case", METHOD_BAD)
def test_mistakes_in_methods_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    monkeypatch.chdir(tmp_path)
    tree, message = METHOD_BAD[case]
    write_params(tree)
    with pytest.raises(UserError, match=message):
        demands.check(params.load())


def test_all_mistakes_of_an_item_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(changed_params(flow__tiny__scale=3.0, flow__tiny__algo="x"))
    with pytest.raises(UserError) as error:
        params.load()
    assert "flow.tiny.scale" in str(error.value)
    assert "unknown key 'algo'" in str(error.value)


def test_uses_of_another_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tree = changed_params(ingest__other=ingest_params(reader="folder", fps=1.0))
    tree["runs"]["tiny_knn"]["dataset"] = "other"
    write_params(tree)
    with pytest.raises(UserError, match="prepared from the data set 'tiny', but the run is on 'other'"):
        params.load()


def test_no_file_and_no_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="in the root of the repository"):
        params.load()
    Path("params.yaml").write_text("a: [1\n")
    with pytest.raises(UserError, match="no valid YAML"):
        params.load()


def test_run_merges_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(changed_params(runs__tiny_knn__score={"k": 5}, runs__tiny_knn__evaluate={"bootstrap": 7}))
    run = params.load().run("tiny_knn")
    assert run.score["k"] == 5
    assert run.score["device"] == "auto"
    assert run.evaluate["bootstrap"] == 7
    with pytest.raises(UserError, match="did you mean 'tiny_knn'"):
        params.load().run("tiny_kn")


def test_stage_with_a_wrong_key_or_none(tiny: Path) -> None:
    done = run_stage("flow", "tinyy")
    assert done.returncode == 2
    assert "did you mean 'tiny'" in done.stderr
    assert run_stage("flow").returncode == 1


def test_the_repositorys_own_params_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    demands.check(params.load())
    # DVC parses the file once a stage, 0.1 ms a line, so it stays short: a key a line, as `dvc exp run -S` writes it.
    assert len(Path("params.yaml").read_text().splitlines()) < 800


def test_added_items_keep_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = (REPO / "params.yaml").read_text()
    Path("params.yaml").write_text(before.replace("\ngenerate:", "\ngenerate: # drawn", 1))
    before = Path("params.yaml").read_text()
    edit.add_items(
        {
            "ingest": {"mine": ingest_params(reader="folder", fps=25.0)},
            "flow": {"mine": {"algorithm": "dis", "preset": "fast", "scale": 0.5}},
            "runs": {
                "mine_knn": {
                    "dataset": "mine",
                    "method": "brightness",
                    "uses": "data/clips/mine",
                    "train": {},
                    "score": {},
                    "evaluate": {},
                }
            },
        }
    )
    after = Path("params.yaml").read_text()
    lines = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line[0] != " "]
    assert [line for line in lines if line[0] == "-"] == []
    assert len([line for line in lines if line[0] == "+"]) == 11 + 4 + 7
    loaded = params.load()
    assert loaded.ingest["mine"].quality is None
    assert loaded.runs["mine_knn"].uses == "data/clips/mine"


def test_an_addition_that_is_wrong_changes_nothing(tiny: Path) -> None:
    before = Path("params.yaml").read_text()
    with pytest.raises(UserError):
        edit.add_items({"flow": {"nowhere": {"algorithm": "dis", "preset": "fast", "scale": 0.5}}})
    assert Path("params.yaml").read_text() == before
    assert list(Path().glob(".params*")) == []


def test_an_empty_section_can_be_added_to(tiny: Path) -> None:
    text = Path("params.yaml").read_text()
    assert "generate: {}" in text
    edit.add_items({"generate": {"campus": {"seed": 1}}})
    assert params.load().generate == {"campus": {"seed": 1}}
