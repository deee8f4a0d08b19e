"""The one-class support vector machine, against scikit-learn's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from tests.conftest import write_features
from vadpipe.errors import UserError
from vadpipe.methods.base import Fit
from vadpipe.methods.oc_svm import OcSvm
from vadpipe.store import open_store


def vectors(rows: int, seed: int) -> np.ndarray:
    chance = np.random.default_rng(seed)
    return (chance.standard_normal((rows, 4)) @ np.random.default_rng(1).standard_normal((4, 10)) + 3).astype(
        np.float32
    )


def method(**changes: object) -> OcSvm:
    return OcSvm(
        OcSvm.Train(**{"seeds": [0], "clips": ["*"], "nu": 0.1, "variance": 0.95, "most": 5000} | changes), None
    )


def scores(own: OcSvm, path: Path, train: np.ndarray, test: np.ndarray, seed: int = 0) -> np.ndarray:
    store = open_store(write_features(path / "f", {"train/a": train, "test/b": test}))
    own.fit(store, Fit(seed, path))
    (path / "model").mkdir()
    own.save(path / "model")
    again = OcSvm(own.train, None)
    again.load(path / "model")
    return np.concatenate([one.components["outside"] for one in again.score(store.clips("test")[0])])


def test_it_is_that_of_scikit_learn(tmp_path: Path) -> None:
    train, test = vectors(80, 0), vectors(30, 5) * 1.5
    scaler = StandardScaler().fit(train)
    reducer = PCA(0.95, svd_solver="full").fit(scaler.transform(train))
    machine = OneClassSVM(kernel="rbf", nu=0.1, gamma="scale").fit(reducer.transform(scaler.transform(train)))
    expected = -machine.decision_function(reducer.transform(scaler.transform(test)))
    assert scores(method(), tmp_path, train, test) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_some_of_many_are_drawn_by_seed(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        (tmp_path / str(number)).mkdir()
        own = method(most=20)
        found.append(scores(own, tmp_path / str(number), vectors(80, 0), vectors(9, 5), seed))
        assert own.record["support"] <= 20
    assert (found[0] == found[1]).all()
    assert not (found[0] == found[2]).all()


def test_what_never_changes_does_not_count(tmp_path: Path) -> None:
    train, test = vectors(60, 0), vectors(12, 5)
    flat, moved = (
        np.concatenate([one, np.full((len(one), 2), level, np.float32)], 1) for one, level in ((train, 7), (test, 9))
    )
    for number in range(2):
        (tmp_path / str(number)).mkdir()
    plain = scores(method(), tmp_path / "0", train, test)
    assert scores(method(), tmp_path / "1", flat, moved) == pytest.approx(plain, rel=1e-3, abs=1e-4)


def test_vectors_that_are_all_equal(tmp_path: Path) -> None:
    same = np.ones((9, 5), np.float32)
    found = scores(method(), tmp_path, same, np.concatenate([same[:1], 2 * same[:1]]))
    assert np.isfinite(found).all()


def test_one_vector_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one training vector has no support"):
        scores(method(), tmp_path, vectors(1, 0), vectors(3, 1))
