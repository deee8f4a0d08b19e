"""Foreign pieces, and the network that learns to find them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPO, pool_image
from tests.test_conv_ae import make_store
from vadpipe.methods.base import DeviceParams, Fit
from vadpipe.methods.pasted import PastedFinder, TrainParams
from vadpipe.params import load
from vadpipe.training.augment import Sample
from vadpipe.training.pasting import pasted


def sample(seed: int) -> Sample:
    region = np.zeros((60, 80), bool)
    region[15:] = True
    filled = np.zeros((60, 80), bool)
    filled[40:50, 20:40] = True
    return Sample(pool_image(seed, 60, 80), region, filled)


def made(seed: int, size: tuple[float, float] = (0.1, 0.4)) -> Any:
    return pasted(sample(seed), [sample(100), sample(101)], size, np.random.default_rng(seed))


def test_pieces_are_marked_and_nothing_else_changes_but_the_hue() -> None:
    shares = []
    for seed in range(40):
        found, plain = made(seed), sample(seed)
        shares.append(found.foreign.mean())
        assert found.image.shape == (60, 80, 3)
        # Brightness is what a turn of the hues leaves.
        change = np.abs(found.image.max(-1).astype(int) - plain.image.max(-1))
        far = np.ones((60, 80), bool)
        rows, columns = np.nonzero(found.foreign)
        for row, column in zip(rows, columns, strict=True):
            far[max(row - 5, 0) : row + 6, max(column - 5, 0) : column + 6] = False
        assert change[far].max() <= 2
        assert (found.counts == ((plain.region & ~plain.filled) | found.foreign)).all()
    assert 0 in shares  # some images stay as they are
    assert np.mean(np.array(shares) > 0.01) > 0.4


def test_pieces_are_as_large_as_they_should_be() -> None:
    small = np.mean([made(seed, (0.05, 0.1)).foreign.mean() for seed in range(30)])
    large = np.mean([made(seed, (0.4, 0.6)).foreign.mean() for seed in range(30)])
    assert 0 < 5 * small < large


def test_pieces_repeat() -> None:
    assert (made(3).image == made(3).image).all()
    assert (made(3).image != made(4).image).any()


@pytest.fixture(scope="module", params=[1.0, 0.7], ids=lambda window: f"window {window}")
def fitted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PastedFinder, Any, Path]:
    folder = tmp_path_factory.mktemp("pasted")
    store = make_store(folder)
    small = {"scale": 1.0, "clips": ["*"], "size": [0.1, 0.3], "images": 64, "epochs": 12, "window": request.param}
    params = TrainParams(**{**load(REPO / "params.yaml").methods["pasted"].train, **small})
    method = PastedFinder(params, DeviceParams(device="cpu"))
    method.fit(store, Fit(0, folder / "state"))
    return method, store, folder


def test_it_learns_and_finds_what_it_was_never_shown(fitted: tuple[PastedFinder, Any, Path]) -> None:
    method, store, _ = fitted
    assert method.losses[-1]["loss"] < 0.7 * method.losses[0]["loss"]
    (clip,) = store.clips("test")
    (scores,) = method.score(clip)
    maps = scores.maps["foreign"]
    assert maps.shape == (4, 18, 26)
    assert np.isnan(maps[:, :4]).all()
    inside = maps[:, 4:15]
    assert not np.isnan(inside).any()
    # The red square of the first image; that of the second one lies outside the pool.
    assert inside[0, 0:3, 10:15].mean() > inside[1:].max(initial=-np.inf, where=~np.isnan(inside[1:])) - 3
    assert scores.components["foreign"].argmax() == 0


def test_it_is_saved_and_loaded(fitted: tuple[PastedFinder, Any, Path]) -> None:
    method, store, folder = fitted
    (folder / "model").mkdir()
    method.save(folder / "model")
    again = PastedFinder(method.train, method.score_params)
    again.load(folder / "model")
    (clip,) = store.clips("test")
    first, second = next(method.score(clip)), next(again.score(clip))
    assert second.maps["foreign"] == pytest.approx(first.maps["foreign"], nan_ok=True)
    assert again.record == method.record
