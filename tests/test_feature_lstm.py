"""`feature_lstm`: predicts vectors; a break in a sequence scores highest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.conftest import write_features
from vadpipe.errors import UserError
from vadpipe.methods.base import Fit
from vadpipe.methods.feature_lstm import FeatureLstm, ScoreParams, TrainParams, Windows, distance
from vadpipe.store import Store, open_store
from vadpipe.store.features import FeatureClip
from vadpipe.training import loop

TRAIN = {
    "seeds": [0],
    "predict": "vector",
    "hidden": 32,
    "layers": 1,
    "window": 8,
    "epochs": 30,
    "batch": 8,
    "learning_rate": 0.01,
    "weight_decay": 0.0,
    "loss": "l2",
    "device": "cpu",
    "precision": "fp32",
}
BREAK = 300
GRID = (2, 3)


def wave(length: int, phase: float = 0.0) -> np.ndarray:
    """Return vectors (length, 6) that turn steadily: the next one follows from the last; one is always 0."""
    angles = 0.3 * np.arange(length)[:, None] + np.arange(5) + phase
    return np.hstack([np.sin(angles), np.zeros((length, 1))]).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store[FeatureClip]:
    lengths = (70, 40, 5, 1)  # one shorter than the window, one without a step
    broken = wave(2 * BREAK)  # three row groups: the state is carried over their borders
    broken[BREAK:] = wave(BREAK, phase=3.0)
    train = {f"train/a{index}": wave(length, index) for index, length in enumerate(lengths)}
    return open_store(write_features(tmp_path / "waves", {**train, "test/b0": broken, "test/b1": wave(1)}), "features")


@pytest.fixture
def grid_store(tmp_path: Path) -> Store[FeatureClip]:
    """Six cells a frame that all turn steadily; in the test clip, the fifth one breaks."""
    train, test = ([wave(60, cell) for cell in range(6)] for _ in range(2))
    test[4][30:] = wave(30, phase=7.0)
    clips = {"train/a": np.hstack(train), "test/b": np.hstack(test)}
    return open_store(write_features(tmp_path / "grid", clips, grid=GRID), "features")


def fitted(store: Store[FeatureClip], folder: Path, seed: int = 0, score: str = "l2", **changes: object) -> FeatureLstm:
    method = FeatureLstm(TrainParams(**{**TRAIN, **changes}), ScoreParams(distance=score, device="cpu"))  # type: ignore[arg-type]
    method.fit(store, Fit(seed, folder / "state"))
    return method


def scored(method: FeatureLstm, store: Store[FeatureClip], clip: int = 0) -> np.ndarray:
    return np.concatenate([s.components["distance"] for s in method.score(store.clips("test")[clip])])


def weights_equal(one: FeatureLstm, other: FeatureLstm) -> bool:
    theirs = other.network.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.network.state_dict().items())


@pytest.mark.parametrize("predict", ["vector", "change"])
@pytest.mark.parametrize("kind", ["l2", "cosine"])
def test_a_break_in_a_predictable_sequence_scores_highest(
    store: Store[FeatureClip], tmp_path: Path, kind: str, predict: str
) -> None:
    method = fitted(store, tmp_path, loss=kind, score=kind, predict=predict)
    scores = scored(method, store)
    assert method.losses[-1]["loss"] < 0.2 * method.losses[0]["loss"]
    assert scores.dtype == np.float32
    assert np.isnan(scores[0])
    assert np.isfinite(scores[1:]).all()
    assert np.nanargmax(scores) == BREAK
    assert scores[BREAK] > 3 * np.nanmedian(scores)
    assert np.isnan(scored(method, store, clip=1)).tolist() == [True]


def test_streamed_scores_equal_those_in_one_piece(
    store: Store[FeatureClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = fitted(store, tmp_path, epochs=5)
    streamed = scored(method, store)
    vectors = store.clips("test")[0].vectors()
    monkeypatch.setattr(FeatureClip, "chunks", lambda self: iter([vectors]))
    np.testing.assert_allclose(scored(method, store), streamed, rtol=1e-4)
    monkeypatch.setattr(FeatureClip, "chunks", lambda self: iter(np.split(vectors, range(1, len(vectors)))))
    np.testing.assert_allclose(scored(method, store), streamed, rtol=1e-4)


def test_scores_against_a_computation_by_hand(store: Store[FeatureClip], tmp_path: Path) -> None:
    method = fitted(store, tmp_path, epochs=3)
    train = np.concatenate([clip.vectors() for clip in store.clips("train")])
    deviation = train.std(0)
    vectors = (store.clips("test")[0].vectors() - train.mean(0)) / np.sqrt((deviation**2).mean())
    with torch.no_grad():
        predictions = method.network(torch.from_numpy(vectors)[None])[0][0].numpy()
    errors = predictions[:-1] - vectors[1:]
    np.testing.assert_allclose(scored(method, store)[1:], np.sqrt((errors**2).sum(1)), rtol=1e-4)
    norms = np.linalg.norm(predictions[:-1], axis=1) * np.linalg.norm(vectors[1:], axis=1)
    cosine = 1 - (predictions[:-1] * vectors[1:]).sum(1) / norms
    method.score_params = ScoreParams(distance="cosine", device="cpu")
    np.testing.assert_allclose(scored(method, store)[1:], cosine, rtol=1e-3, atol=1e-5)


def test_change_starts_at_the_last_vector(store: Store[FeatureClip], tmp_path: Path) -> None:
    method = fitted(store, tmp_path, epochs=1, learning_rate=1e-30, predict="change")
    vectors = store.clips("test")[0].vectors()
    scale = float(method.network.scale)
    steps = np.linalg.norm(np.diff(vectors, axis=0), axis=1) / scale
    np.testing.assert_allclose(scored(method, store)[1:], steps, rtol=1e-4)


def test_a_grid_scores_its_worst_cell(grid_store: Store[FeatureClip], tmp_path: Path) -> None:
    method = fitted(grid_store, tmp_path, predict="change")
    (scores,) = method.score(grid_store.clips("test")[0])
    cells = scores.maps["distance"]
    assert cells.shape == (60, *GRID)
    assert method.network.shape["dim"] == 6  # one LSTM for all cells
    assert np.isnan(cells[0]).all()
    np.testing.assert_allclose(scores.components["distance"][1:], cells[1:].max((1, 2)), rtol=1e-3)
    assert np.unravel_index(np.nanargmax(cells), cells.shape) == (30, 1, 1)


def test_distances() -> None:
    one, other = torch.tensor([[3.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 4.0], [2.0, 0.0]])
    assert distance("l2", one, other).tolist() == [5.0, 1.0]
    assert distance("cosine", one, other).tolist() == [1.0, 0.0]


def test_every_step_is_seen_once_an_epoch_and_none_crosses_a_clip() -> None:
    lengths = [23, 4, 1, 9]
    frames = torch.arange(sum(lengths), dtype=torch.float32)[:, None]
    windows = Windows(frames, lengths, TrainParams(**{**TRAIN, "window": 5, "batch": 3}))  # type: ignore[arg-type]
    # All frames but the last of each clip.
    expected = [frame for frame in range(sum(lengths)) if frame not in {22, 26, 27, 36}]
    orders = []
    for epoch in range(4):
        steps = []
        for vectors, there in windows(epoch, np.random.default_rng(epoch)):
            assert vectors.shape[1:] == (6, 1)
            assert (vectors[:, 1:] - vectors[:, :-1])[there].eq(1).all()
            steps += vectors[:, :-1][there].flatten().int().tolist()
        assert sorted(steps) == expected
        orders.append(steps)
    assert orders[0] != orders[1]


def test_equal_seeds_equal_models_different_seeds_differ(store: Store[FeatureClip], tmp_path: Path) -> None:
    one, again, other = (fitted(store, tmp_path, seed, epochs=3) for seed in (4, 4, 5))
    assert weights_equal(one, again)
    assert not weights_equal(one, other)


def test_a_killed_training_goes_on_with_equal_weights(
    store: Store[FeatureClip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fitted(store, tmp_path, epochs=4, layers=2)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    draw = Windows.__call__

    def killed(self: Windows, epoch: int, generator: np.random.Generator) -> object:
        if epoch == 2:
            raise KeyboardInterrupt
        return draw(self, epoch, generator)

    monkeypatch.setattr(Windows, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        fitted(store, tmp_path, epochs=4, layers=2)
    assert (tmp_path / "state" / "state.pt").is_file()
    monkeypatch.setattr(Windows, "__call__", draw)
    assert weights_equal(fitted(store, tmp_path, epochs=4, layers=2), whole)
    assert not (tmp_path / "state").exists()


def test_a_saved_model_scores_the_same(store: Store[FeatureClip], tmp_path: Path) -> None:
    method = fitted(store, tmp_path, epochs=3)
    (tmp_path / "model").mkdir()
    method.save(tmp_path / "model")
    loaded = FeatureLstm(method.train, method.score_params)
    loaded.load(tmp_path / "model")
    assert weights_equal(method, loaded)
    assert loaded.losses == method.losses
    np.testing.assert_array_equal(scored(loaded, store), scored(method, store))
    assert sorted(file.suffix for file in (tmp_path / "model").iterdir()) == [".json", ".safetensors"]


def test_a_diverging_training_is_a_user_error(store: Store[FeatureClip], tmp_path: Path) -> None:
    # No params.yaml can say it, but a network may diverge at any rate.
    infinite = TrainParams(**TRAIN).model_copy(update={"learning_rate": float("inf")})  # type: ignore[arg-type]
    method = FeatureLstm(infinite, ScoreParams(distance="l2", device="cpu"))
    with pytest.raises(UserError, match="seed 7 diverged in epoch 1 of 30"):
        method.fit(store, Fit(7, tmp_path / "state"))


def test_training_clips_without_a_step_are_a_user_error(tmp_path: Path) -> None:
    stills = write_features(tmp_path / "stills", {"train/a": wave(1)})
    with pytest.raises(UserError, match="two frames"):
        fitted(open_store(stills), tmp_path)


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1]])
def test_seeds_must_be_different_and_some(seeds: list[int]) -> None:
    with pytest.raises(ValidationError):
        TrainParams(**{**TRAIN, "seeds": seeds})  # type: ignore[arg-type]
