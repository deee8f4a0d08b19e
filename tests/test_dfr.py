"""`dfr`: reconstruction of feature cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import write_features
from vadpipe.errors import UserError
from vadpipe.methods.base import DeviceParams, Fit
from vadpipe.methods.dfr import Dfr, TrainParams, code_width
from vadpipe.store import open_store

GRID, DIM = (4, 5), 12


def params(**changes: object) -> TrainParams:
    values = {"seeds": [0], "clips": ["*"], "variance": 0.95, "epochs": 60, "batch": 64, "learning_rate": 0.01}
    rest = {"weight_decay": 0.0, "device": "cpu", "precision": "fp32"}
    return TrainParams(**{**values, **rest, **changes})  # type: ignore[arg-type]


def table(path: Path, region: np.ndarray | None = None) -> Path:
    """Cells on a plane of three dimensions; cell 7 of the second test frame leaves it."""
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(3, DIM))

    def frames(count: int) -> np.ndarray:
        cells = rng.normal(size=(count, GRID[0] * GRID[1], 3)) @ plane + rng.normal(0, 0.05, (count, 20, DIM)) + 5
        return cells.astype(np.float32)

    test = frames(3)
    test[1, 7] += 4 * rng.normal(size=DIM).astype(np.float32)
    clips = {"train/a": frames(30).reshape(30, -1), "test/a": test.reshape(3, -1)}
    return write_features(path, clips, region, grid=list(GRID), ordered=False)


def test_it_finds_the_cell_that_leaves_what_it_learned(tmp_path: Path) -> None:
    store = open_store(table(tmp_path / "f"), "features")
    method = Dfr(params(), DeviceParams(device="cpu"))
    method.fit(store, Fit(0, tmp_path / "state"))
    assert method.record["code"] == 3
    (scores,) = method.score(store.clips("test")[0])
    errors = scores.maps["error"].reshape(3, 20)
    assert errors.shape == (3, 20)
    assert errors[1].argmax() == 7
    assert errors[1, 7] > 5 * np.delete(errors, 27).max()
    assert scores.components["error"].argmax() == 1
    (tmp_path / "model").mkdir()
    method.save(tmp_path / "model")
    again = Dfr(params(), DeviceParams(device="cpu"))
    again.load(tmp_path / "model")
    assert next(again.score(store.clips("test")[0])).maps["error"] == pytest.approx(scores.maps["error"])


def test_cells_outside_the_region_are_neither_learned_nor_scored(tmp_path: Path) -> None:
    region = np.ones(20)
    region[[3, 7]] = 0.0, 0.4
    store = open_store(table(tmp_path / "f", region), "features")
    method = Dfr(params(epochs=2), DeviceParams(device="cpu"))
    method.fit(store, Fit(0, tmp_path / "state"))
    (scores,) = method.score(store.clips("test")[0])
    assert (np.isnan(scores.maps["error"].reshape(3, 20)) == (region <= 0.5)).all()
    assert np.isfinite(scores.components["error"]).all()
    nothing = open_store(table(tmp_path / "g", np.zeros(20)), "features")
    with pytest.raises(UserError, match="no two cells inside the region"):
        method.fit(nothing, Fit(0, tmp_path / "state"))


def test_code_width_is_the_number_of_principal_components() -> None:
    rng = np.random.default_rng(1)
    cells = torch.from_numpy(rng.normal(size=(500, 8)) * np.array([8, 4, 2, 1, 0.5, 0.25, 0.1, 0.01]))
    centred = cells - cells.mean(0)
    explained = np.cumsum(np.linalg.svd(centred.numpy())[1] ** 2)
    explained /= explained[-1]
    for variance in (0.5, 0.9, 0.99, 1.0):
        assert code_width(cells, variance) == min(8, int((explained < variance - 1e-12).sum()) + 1)
