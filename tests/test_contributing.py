"""CONTRIBUTING shows a method, a reader, a metric and a stage: each works as it stands there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import vadpipe.datasets
import vadpipe.methods
from stages import ingest, score, train
from tests.conftest import REPO, run_stage, tiny_params, write_params
from vadpipe.evaluation import frame
from vadpipe.store import images, open_clips, open_store
from vadpipe.store.scores import read_scores

BLOCKS = re.findall(r"```python\n(.*?)```", (REPO / "CONTRIBUTING.md").read_text(), re.DOTALL)


@pytest.fixture
def code(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules are found beside the methods and readers of the package."""
    folder = tiny / "code"
    folder.mkdir()
    for package in (vadpipe.methods, vadpipe.datasets):
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.endswith((".plain", ".cell_difference")):
            del sys.modules[name]


def test_the_reader_and_the_method(code: Path) -> None:
    (code / "cell_difference.py").write_text(BLOCKS[0])
    (code / "plain.py").write_text(BLOCKS[1])
    for path in Path("data/raw/tiny").rglob("*.avi"):
        path.unlink()
    params = tiny_params()
    params["ingest"]["tiny"]["reader"] = "plain"
    params["methods"]["cell_difference"] = {"train": {}, "score": {"cell": 8}}
    params["runs"] = {"mine": {**params["runs"]["tiny_brightness"], "method": "cell_difference"}}
    write_params(params)
    ingest.main("tiny")
    clips = {clip.name: clip for clip in open_clips(Path("data/clips/tiny"))}
    assert sorted(clips) == ["a1", "b1", "b3"]
    known = {clip.name: clip for clip in open_store(Path("data/labels/tiny"), "labels").all_clips()}
    assert known["b1"].labels() is None
    assert known["a1"].labels().tolist() == [0] * 40
    train.main("mine")
    score.main("mine")
    table = read_scores(Path("data/scores/mine")).frames
    found = table[table["clip"] == "b1"]["difference"].to_numpy()
    greys = np.concatenate(list(clips["b1"].chunks(grey=True))).astype(float)
    cells = np.abs(np.diff(greys, axis=0)).reshape(33, 3, 8, -1)[..., :32].reshape(33, 3, 8, 4, 8).mean((2, 4))
    assert np.isnan(found[0])
    assert (found[1:] >= cells.max((1, 2)) - 1e-4).all()


def test_the_metric() -> None:
    names = {"Curve": frame.Curve, "np": np}
    exec(BLOCKS[2], names)
    labels, scores = np.array([0, 0, 1, 0, 1, 1]), np.arange(6.0)
    curve = frame.roc(labels, scores)
    # All abnormal frames are found once one of the three normal ones is flagged.
    assert names["fpr_at_tpr95"](curve) == pytest.approx(1 / 3)  # type: ignore[operator]
    assert np.isnan(names["fpr_at_tpr95"](None))  # type: ignore[operator]


def test_the_stage(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest.main("tiny")
    script = tiny / "sheet.py"
    script.write_text(BLOCKS[3])
    monkeypatch.setattr("tests.conftest.REPO", tiny)
    (tiny / "stages").mkdir()
    script.rename(tiny / "stages" / "sheet.py")
    done = run_stage("sheet", "tiny")
    assert done.returncode == 0, done.stderr
    assert images.decode(Path("plots/sheets/tiny.png").read_bytes()).shape == (3 * 24, 36, 3)
