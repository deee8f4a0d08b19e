"""What every method keeps, and nearest neighbours against brute force."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from safetensors.numpy import load_file

from stages import ingest, score, train
from tests.conftest import prepare, write_features
from vadpipe import params
from vadpipe.errors import UserError
from vadpipe.methods import base
from vadpipe.methods.knn import Knn, ScoreParams
from vadpipe.nn import neighbours
from vadpipe.store import FeatureClip, open_store
from vadpipe.store.scores import Scores, ScoreWriter, read_map, read_scores
from vadpipe.store.seal import seal


def test_one_file_one_method() -> None:
    for name in base.names():
        cls = base.get(name)
        assert cls.__module__ == f"vadpipe.methods.{name}"
        assert cls.__doc__
        assert cls.needs in {"clips", "pools", "flow", "features"}
        # Defaults stand in params.yaml, where they are seen, not in the code.
        for model in (cls.Train, cls.Score):
            # But for one that every method has, and that says nothing where a data set has no categories.
            fields = {name: field for name, field in model.model_fields.items() if name != "categories"}
            assert all(field.is_required() for field in fields.values())


@pytest.mark.parametrize("method", base.names())
def test_every_method_trains_scores_and_repeats(tiny: Path, method: str) -> None:
    run = f"tiny_{method}"
    prepare(params.load().runs[run].uses)
    train.main(run)
    score.main(run)
    table = read_scores(Path("data/scores") / run)
    seeds = base.seeds(base.create(params.load().run(run), run))
    assert len(table.frames) == len(seeds) * {"tiny": 79, "tinypool": 6}[params.load().runs[run].dataset]
    main = table.frames[table.components[0]]
    covered = table.frames["covered"]
    assert np.isfinite(main[covered]).all()
    assert main[~covered].isna().all()
    # Only the start of a clip may be without a score.
    assert covered[table.frames["frame"] > 0].all()
    assert not list(Path("models").rglob("*.pkl")) + list(Path("models").rglob("*.pt"))
    assert not Path(".checkpoints", run).exists()
    # Every seed begins anew.
    trained = [
        [path.read_bytes() for path in sorted(Path("models", run, str(seed)).rglob("*")) if path.is_file()]
        for seed in seeds
    ]
    assert len({tuple(of_seed) for of_seed in trained}) == len(seeds)
    networks = [path.read_bytes() for path in Path("models", run).rglob("network.safetensors")]
    assert len(set(networks)) == len(networks)
    models = {path: path.read_bytes() for path in Path("models").rglob("*") if path.is_file()}
    train.main(run)
    assert {path: path.read_bytes() for path in Path("models").rglob("*") if path.is_file()} == models
    score.main(run)
    again = read_scores(Path("data/scores") / run)
    assert again.frames.equals(table.frames)


@pytest.mark.parametrize("name", ["conv_ae", "knn"])
def test_the_code_of_a_training_is_source_alone(name: str) -> None:
    """Compiled files change without a change of the source, and an interrupted training would begin anew."""
    found = base.source_files(name)
    assert {path.suffix for path in found} == {".py"}
    assert {f"{name}.py", "loop.py", "cells.py", "prepared.py"} <= {path.name for path in found}


def gallery_and_queries(count: int = 90, dim: int = 24) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    # Far from the origin, where |x|^2 - 2xy + |y|^2 loses digits.
    return (
        (rng.normal(size=(count, dim)) + 100).astype(np.float32),
        (rng.normal(size=(40, dim)) + 100).astype(np.float32),
    )


def knn(k: int, distance: Literal["l2", "cosine"] = "l2") -> Knn:
    return Knn(None, ScoreParams(k=k, distance=distance, device="cpu"))


def brute_force(gallery: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    distances = ((queries[:, None].astype(np.float64) - gallery[None]) ** 2).sum(-1)
    return np.sort(distances, axis=1)[:, :k].sum(1)


def feature_table(path: Path, train_vectors: np.ndarray, test_vectors: np.ndarray) -> None:
    write_features(path, {"train/a": train_vectors[:50], "train/b": train_vectors[50:], "test/c": test_vectors})


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("search", ["faiss", "torch", "torch in steps"])
def test_knn_equals_brute_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: str, k: int) -> None:
    gallery, queries = gallery_and_queries()
    feature_table(tmp_path / "f", gallery, queries)
    store = open_store(tmp_path / "f")
    method = knn(k)
    method.fit(store, base.Fit(0, tmp_path))
    if search != "faiss":
        monkeypatch.setitem(sys.modules, "faiss", None)
    if search == "torch in steps":
        monkeypatch.setattr(neighbours, "_GALLERY_STEP", 7)
    (clip,) = store.clips("test")
    assert isinstance(clip, FeatureClip)
    found = np.concatenate([chunk.components["distance"] for chunk in method.score(clip)])
    assert found == pytest.approx(brute_force(gallery, queries, k), rel=1e-5)


@pytest.mark.parametrize("absurd", [1e15, -1e18, 1e30, -3e38])
@pytest.mark.parametrize("count", [6, 90])
@pytest.mark.parametrize("search", ["faiss", "torch"])
def test_one_absurd_training_vector_changes_no_score(
    monkeypatch: pytest.MonkeyPatch, search: str, count: int, absurd: float
) -> None:
    """Of a small gallery it is always among those that are compared."""
    gallery, queries = gallery_and_queries(count)
    if search != "faiss":
        monkeypatch.setitem(sys.modules, "faiss", None)
    spoilt = gallery.copy()
    spoilt[count // 2, 3] = absurd
    found = neighbours.Gallery(spoilt, 2, "cpu").nearest(queries)[0].sum(1)
    assert found == pytest.approx(brute_force(np.delete(gallery, count // 2, 0), queries, 2), rel=1e-5)
    assert found == pytest.approx(brute_force(spoilt.astype(np.float64), queries, 2), rel=1e-5)


def test_an_absurd_vector_is_none_to_be_near() -> None:
    gallery, _ = gallery_and_queries(3)
    gallery[1, 0] = 1e30
    with pytest.raises(UserError, match=r"k = 3 is larger than the gallery of 2 training vectors"):
        neighbours.Gallery(gallery, 3, "cpu")


def test_knn_of_a_training_vector_is_exactly_zero(tmp_path: Path) -> None:
    gallery, _ = gallery_and_queries()
    feature_table(tmp_path / "f", gallery, gallery[:40])
    store = open_store(tmp_path / "f")
    method = knn(1)
    method.fit(store, base.Fit(0, tmp_path))
    method.save(tmp_path)
    assert (load_file(tmp_path / "gallery.safetensors")["vectors"][:, 0] == gallery).all()
    method.load(tmp_path)
    assert all((chunk.components["distance"] == 0).all() for chunk in method.score(store.clips("test")[0]))


def test_knn_of_a_grid_searches_each_cell_in_its_own_place(tmp_path: Path) -> None:
    gallery, queries = gallery_and_queries(dim=12)
    store = open_store(write_features(tmp_path / "f", {"train/a": gallery, "test/c": queries}, grid=[2, 1]))
    method = knn(2)
    method.fit(store, base.Fit(0, tmp_path))
    (scores,) = method.score(store.clips("test")[0])
    upper = brute_force(gallery[:, :6], queries[:, :6], 2)
    lower = brute_force(gallery[:, 6:], queries[:, 6:], 2)
    assert scores.components["distance"] == pytest.approx(np.maximum(upper, lower), rel=1e-5)
    assert scores.maps["distance"].shape == (40, 2, 1)
    assert scores.maps["distance"][:, 1, 0].astype(float) == pytest.approx(lower, rel=1e-2)


def test_knn_of_a_training_frame_leaves_itself_out(tmp_path: Path) -> None:
    gallery, queries = gallery_and_queries(dim=12)
    store = open_store(write_features(tmp_path / "f", {"train/a": gallery, "test/c": queries}))
    method = knn(2)
    method.fit(store, base.Fit(0, tmp_path))
    found = np.concatenate([one.components["distance"] for one in method.score(store.clips("train")[0])])
    for row in (0, 33, len(gallery) - 1):
        expected = brute_force(np.delete(gallery, row, axis=0), gallery[row : row + 1], 2)
        assert found[row] == pytest.approx(expected[0], rel=1e-4)


def test_knn_by_angle_does_not_see_how_long_a_vector_is(tmp_path: Path) -> None:
    gallery, queries = (one - 100 for one in gallery_and_queries(dim=12))
    gallery[7] = queries[3] = 0
    lengths = np.random.default_rng(1).uniform(0.1, 10, (40, 1)).astype(np.float32)
    store = open_store(write_features(tmp_path / "f", {"train/a": gallery, "test/c": queries * lengths}))
    method = knn(2, "cosine")
    method.fit(store, base.Fit(0, tmp_path))
    found = np.concatenate([one.components["distance"] for one in method.score(store.clips("test")[0])])
    units = [one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-30) for one in (gallery, queries)]
    assert found == pytest.approx(brute_force(*units, 2), rel=1e-4)
    # A vector of zeros is as near as can be to another one, and a length of 1 from all others.
    assert found[3] == pytest.approx(1)


def test_k_larger_than_the_gallery(tmp_path: Path) -> None:
    gallery, queries = gallery_and_queries()
    feature_table(tmp_path / "f", gallery, queries)
    store = open_store(tmp_path / "f")
    method = knn(91)
    method.fit(store, base.Fit(0, tmp_path))
    with pytest.raises(UserError, match="k = 91 is larger than the gallery of 90"):
        list(method.score(store.clips("test")[0]))


def test_scores_and_maps_are_streamed_and_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=70).astype(np.float32)
    values[0] = np.nan
    maps = rng.normal(size=(70, 3, 5)).astype(np.float16)
    maps[3, 0, 0] = np.finfo(np.float16).max
    given = maps.astype(np.float32)
    given[3, 0, 0] = 1e6  # more than float16 holds
    chunks = [
        Scores({"a": values[part], "b": values[part] * 2}, {"a": given[part]})
        for part in (slice(0, 32), slice(32, 64), slice(64, 70))
    ]
    writer = ScoreWriter(tmp_path, run="r")
    writer.write(3, "clip", 70, chunks)
    writer.close()
    table = read_scores(tmp_path)
    assert table.components == ["a", "b"]
    assert np.array_equal(table.frames["a"].to_numpy(), values, equal_nan=True)
    assert table.frames["covered"].tolist() == [False] + [True] * 69
    assert table.frames["seed"].unique().tolist() == [3]
    assert (read_map(tmp_path, 3, "clip", "a") == maps).all()


def test_a_method_that_forgets_frames_or_diverges_is_stopped(tmp_path: Path) -> None:
    writer = ScoreWriter(tmp_path)
    with pytest.raises(ValueError, match="scored 2 frames of 3"):
        writer.write(0, "c", 3, [Scores({"a": np.zeros(2, np.float32)})])
    with pytest.raises(UserError, match="'a' of clip c, frame 1 is infinite"):
        writer.write(0, "c", 2, [Scores({"a": np.array([0, np.inf], np.float32)})])
    writer.close()


def test_scoring_without_a_model(tiny: Path) -> None:
    ingest.main("tiny")
    with pytest.raises(UserError, match="dvc repro train@tiny_brightness"):
        score.main("tiny_brightness")


@pytest.mark.parametrize("text", ['{"average": 3.0}', "[3.0]", '"3"'])
def test_a_model_of_other_code_is_to_be_trained_again(tiny: Path, text: str) -> None:
    """As after an upgrade: whole by its seal, and of other keys."""
    ingest.main("tiny")
    train.main("tiny_brightness")
    model = Path("models/tiny_brightness/0")
    (model / "brightness.json").write_text(text)
    (model / "sha256.json").unlink()
    seal(model)
    with pytest.raises(UserError, match=r"tiny_brightness/0 was saved by other code .*dvc repro -f train@tiny_bright"):
        score.main("tiny_brightness")
    assert not Path("data/scores/tiny_brightness").exists()


def test_an_interrupted_training_goes_on_with_the_next_seed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method with three seeds, stopped at the second: the first is not fitted again."""
    from vadpipe.methods.brightness import Brightness

    class Seeded(base.FitParams):
        seeds: list[int]

    fitted: list[int] = []
    fit = Brightness.fit

    def counted(self: Brightness, store: object, setup: base.Fit) -> None:
        fitted.append(setup.seed)
        if fitted == [1, 2]:
            raise KeyboardInterrupt
        fit(self, store, setup)  # type: ignore[arg-type]

    monkeypatch.setattr(Brightness, "Train", Seeded)
    monkeypatch.setattr(Brightness, "fit", counted)
    from tests.conftest import tiny_params, write_params

    tree = tiny_params()
    tree["methods"]["brightness"]["train"] = {"seeds": [1, 2, 3]}
    write_params(tree)
    ingest.main("tiny")
    with pytest.raises(KeyboardInterrupt):
        train.main("tiny_brightness")
    assert not Path("models/tiny_brightness").exists()
    train.main("tiny_brightness")
    assert fitted == [1, 2, 2, 3]
    assert sorted(path.name for path in Path("models/tiny_brightness").iterdir()) == ["1", "2", "3"]
    # Other inputs: nothing of before is taken up.
    fitted[:] = [0]
    train.main("tiny_brightness")
    assert fitted == [0, 1, 2, 3]
