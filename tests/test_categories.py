"""A run on a data set with categories: a model each, one table, and figures that are means over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from stages import evaluate, features, ingest, score, summarize, train
from tests.conftest import ingest_params, tiny_params, write_params
from vadpipe import starter
from vadpipe.datasets.idx import write_idx
from vadpipe.errors import UserError
from vadpipe.evaluation.intervals import Figure, clip_weights, mean_figure
from vadpipe.evaluation.problems import read_available
from vadpipe.evaluation.summary import by_category, read_result, remarks
from vadpipe.evaluation.table import markdown, terminal
from vadpipe.params import load
from vadpipe.store.scores import categories, read_scores

CLASSES = ("class0", "class1", "class2")


def classes(root: Path) -> None:
    """Write noisy images of three classes, each brighter than the one before."""
    root.mkdir(parents=True)
    chance = np.random.default_rng(3)
    for prefix, count in (("train", 36), ("t10k", 24)):
        labels = (np.arange(count) % 3).astype(np.uint8)
        images = (
            60 + 45 * labels[:, None, None] + chance.normal(0, 30, (count, 8, 8)) + chance.normal(0, 20, (count, 1, 1))
        )
        write_idx(root / f"{prefix}-images-idx3-ubyte.gz", images.clip(0, 255).astype(np.uint8))
        write_idx(root / f"{prefix}-labels-idx1-ubyte.gz", labels)


def small_params(method: str, uses: str, **overrides: Any) -> dict[str, Any]:
    tree = tiny_params()
    tree["ingest"] = {"three": ingest_params(reader="one_class")}
    for section in ("inpaint", "pool_mask", "composite", "flow"):
        tree[section] = {}
    net = tree["features"]["tiny_net"]
    tree["features"] = {"three_net": {**net, "uses": "data/clips/three"}}
    tree["runs"] = {"one": starter.run("three", method, uses) | overrides}
    return tree


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    classes(tmp_path / "data/raw/three")
    write_params(small_params("brightness", "data/clips/three"))
    ingest.main("three")
    return tmp_path


def run() -> dict[str, Any]:
    for stage in (train, score, evaluate):
        stage.main("one")
    return read_result("one")


def test_figures_are_means_over_the_categories(three: Path) -> None:
    result = run()
    assert sorted(path.name for path in Path("models/one").iterdir()) == list(CLASSES)
    assert categories(Path("data/scores/one")) == list(CLASSES)
    areas = []
    for category in CLASSES:
        table = read_scores(Path("data/scores/one") / category)
        assert len(table.frames) == 24
        values = table.frames[table.components[0]]
        areas.append(roc_auc_score(table.frames["clip"] != category, values))
        each = by_category(result)[category]["components"][result["component"]]["raw"]["micro_auc"]
        assert each["mean"] == pytest.approx(areas[-1], abs=1e-6)
        assert each["bootstrap95"][0] <= each["mean"] <= each["bootstrap95"][1]
    whole = result["components"][result["component"]]["raw"]["micro_auc"]
    assert whole["mean"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert whole["categories"] == 3
    low, high = whole["bootstrap95"]
    widths = [
        np.diff(each["components"][result["component"]]["raw"]["micro_auc"]["bootstrap95"])[0]
        for each in result["categories"].values()
    ]
    # The mean of three that are drawn apart is surer than each.
    assert 0 < high - low < max(widths)
    assert (result["frames"], result["abnormal_frames"]) == (72, 48)


def test_tables_and_pictures_have_every_category(three: Path) -> None:
    run()
    summarize.main()
    for category in CLASSES:
        assert (Path("plots/one/pictures") / category / "top_frames.png").stat().st_size > 1000
    frames = pd.read_csv("plots/one/timeline.csv")
    assert frames["position"].tolist() == list(range(72))
    assert frames["category"].value_counts().to_dict() == dict.fromkeys(CLASSES, 24)
    results, problems = read_available(load(), ["one"])
    short, long = terminal(results, problems), terminal(results, problems, categories=True)
    assert "class1" not in short
    assert [line.split()[0] for line in long.splitlines()[2:6]] == ["one", *CLASSES]
    page = markdown(results)
    assert "3 categories, a model each; 72 test images in all, 48 abnormal (66.7%)." in page
    assert "### image AUROC, by category" in page
    curve = pd.read_csv("metrics/roc/one.csv")
    area = np.trapezoid(curve["tpr"], curve["fpr"])
    assert area == pytest.approx(
        json.loads(Path("metrics/summary.json").read_text())["one"]["raw"]["micro_auc"], abs=0.01
    )


def test_some_categories_are_enough(three: Path) -> None:
    write_params(small_params("brightness", "data/clips/three", train={"categories": ["class[02]"]}))
    found = run()
    assert list(found["categories"]) == ["class0", "class2"]
    whole = {**found, "run": "all", "categories": {**found["categories"], "class1": found["categories"]["class0"]}}
    told = "one has 2 of 3 categories: its mean is not to be compared with those of all."
    assert remarks([found, whole]) == [told]
    assert remarks([found]) == []


@pytest.mark.parametrize(
    ("pattern", "message"), [("class9", "has no category 'class9'.*it has: class0"), ("Class1", "class1")]
)
def test_an_unknown_class_is_named(three: Path, pattern: str, message: str) -> None:
    write_params(small_params("brightness", "data/clips/three", train={"categories": [pattern]}))
    with pytest.raises(UserError, match=rf"runs\.one\.train\.categories.*{message}"):
        train.main("one")


def test_features_are_stored_once_and_searched_by_category(three: Path) -> None:
    write_params(small_params("knn", "data/features/three_net", evaluate={"gallery": True}))
    features.main("three_net")
    assert len(list(Path("data/features/three_net/test").glob("*.parquet"))) == 3
    assert list(run()["categories"]) == list(CLASSES)
    sheets = [Path("plots/one/pictures") / category / "features.png" for category in CLASSES]
    assert len({sheet.read_bytes() for sheet in sheets}) == 3
    write_params(small_params("knn", "data/features/three_net"))
    evaluate.main("one")
    assert not any(sheet.exists() for sheet in sheets)


def test_an_interrupted_training_goes_on_with_the_next_category(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vadpipe.methods.brightness import Brightness

    fit, fitted = Brightness.fit, []

    def interrupted(self: Any, store: Any, how: Any) -> None:
        fitted.append(store.category)
        if len(fitted) == 2:
            raise KeyboardInterrupt
        fit(self, store, how)

    monkeypatch.setattr(Brightness, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.main("one")
    train.main("one")
    assert fitted == ["class0", "class1", "class1", "class2"]


def test_a_mean_leaves_out_where_a_figure_is_undefined() -> None:
    figures = [
        Figure([0.4, 0.6], np.array([0.4, 0.5, 0.6])),
        Figure([np.nan, np.nan], np.full(3, np.nan)),
        Figure([0.8, 0.9], np.array([0.7, 0.9, 0.8])),
    ]
    mean = mean_figure(figures)
    assert mean.told() == {
        "mean": 0.675,
        "sd": pytest.approx(0.106066),
        "ci95": [-0.277965, 1.627965],
        "per_seed": [0.6, 0.75],
        "bootstrap95": [0.5575, 0.7],
        "bootstrap_skipped": 0,
        "categories": 2,
    }
    assert mean_figure([figures[1]]).told()["mean"] is None
    alone = Figure([0.5, 0.5], np.empty(0))
    assert mean_figure([figures[0], alone]).told()["bootstrap95"] is None


def test_each_category_is_drawn_by_itself() -> None:
    assert (clip_weights(9, 20) == clip_weights(9, 20, None)).all()
    assert (clip_weights(9, 20, "a") == clip_weights(9, 20, "a")).all()
    assert (clip_weights(9, 20, "a") != clip_weights(9, 20, "b")).any()


def test_what_one_category_lacks_is_a_mean_over_the_others() -> None:
    from vadpipe.evaluation.run import _mean

    trees = [
        {"coverage": None, "rbdc": None, "images": 4, "component": "error"},
        {"coverage": 0.5, "rbdc": Figure([0.25]), "images": 6, "component": "error"},
    ]
    for order in (trees, trees[::-1]):
        found = _mean(order)
        assert (found["coverage"], found["images"], found["component"]) == (0.5, 10, "error")
        assert found["rbdc"].told()["mean"] == 0.25
    assert _mean([{"rbdc": None}, {"rbdc": None}]) == {"rbdc": None}
