"""Methods on maps of pretrained features: each against a twin that is written as its paper says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from tests.conftest import store_file
from vadpipe.errors import UserError
from vadpipe.methods.base import Fit, Method
from vadpipe.methods.padim import Padim
from vadpipe.methods.patchcore import PatchCore
from vadpipe.methods.spade import Spade
from vadpipe.nn.coreset import k_centre
from vadpipe.nn.neighbours import nearest_in_parts
from vadpipe.store import FeatureClip, Store, features, open_store
from vadpipe.store.base import write_manifests

SHAPES = [(6, 8, 5), (3, 4, 7), (2, 2, 9)]
HEIGHT = 24  # of the input that these maps come from
PADIM = {"seeds": [0], "clips": ["*"], "layers": [1, 2], "dimensions": 6, "ridge": 0.01}
PATCHCORE = {"seeds": [0], "clips": ["*"], "layers": [1, 2], "coreset": 1.0, "projection": 64}
SPADE = {"clips": ["*"], "image_layer": 3, "map_layers": [1, 2], "images": None}
SEARCH = {"k": 3, "nearest": 1, "layers": "averaged", "sigma": 0.0, "chunk": 100, "device": "cpu"}


def maps_of(count: int, seed: int) -> list[np.ndarray]:
    """Return maps that are exact in 16 bits, (count, h, w, channels) of each layer."""
    chance = np.random.default_rng(seed)
    return [(chance.integers(-40, 40, (count, *shape)) / 16).astype(np.float32) for shape in SHAPES]


def write(path: Path, clips: dict[str, list[np.ndarray]]) -> Store[FeatureClip]:
    about = {"dataset": "tiny", "fps": None, "ordered": False, "grid": None, "maps": SHAPES}
    about["computed"] = {"layers": [1, 2, 3], "height": HEIGHT}
    for name, layers in clips.items():
        vectors = np.concatenate([one.reshape(len(one), -1) for one in layers], axis=1)
        features.write_clip(store_file(path, name), vectors.shape[1], [vectors], None, **about)
    write_manifests(path)
    return open_store(path)


@pytest.fixture
def store(tmp_path: Path) -> Store[FeatureClip]:
    return write(tmp_path / "maps", {"train/a": maps_of(7, 0), "train/b": maps_of(4, 1), "test/c": maps_of(5, 2)})


TRAINING = [np.concatenate(layers) for layers in zip(maps_of(7, 0), maps_of(4, 1), strict=True)]
TEST = maps_of(5, 2)


def scored(method: Method[Any], store: Store[FeatureClip], folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Fit, save, load anew and score; return the components and the map."""
    method.fit(store, Fit(0, folder / "state"))
    (folder / "model").mkdir()
    method.save(folder / "model")
    again = type(method)(method.train, method.score_params)
    again.load(folder / "model")
    found = list(again.score(store.clips("test")[0]))
    components = {name: np.concatenate([one.components[name] for one in found]) for name in found[0].components}
    (name,) = found[0].maps
    return components, np.concatenate([one.maps[name] for one in found])


def resized(maps: np.ndarray, height: int, width: int, **how: Any) -> np.ndarray:
    planes = torch.from_numpy(maps.astype(np.float32)).permute(0, 3, 1, 2)
    return torch.nn.functional.interpolate(planes, size=(height, width), **how).permute(0, 2, 3, 1).numpy()


BILINEAR = {"mode": "bilinear", "align_corners": False}


def squares(queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    return ((queries[:, None].astype(np.float64) - gallery[None]) ** 2).sum(-1)


@pytest.mark.parametrize("sigma", [0.0, 4.0])
def test_padim_is_a_gaussian_a_place(store: Store[FeatureClip], tmp_path: Path, sigma: float) -> None:
    method = Padim(Padim.Train(**PADIM), Padim.Score(sigma=sigma, device="cpu"))
    components, found = scored(method, store, tmp_path)
    method_chosen = method.chosen
    assert len(method_chosen) == 6

    def cells(layers: list[np.ndarray]) -> np.ndarray:
        joined = np.concatenate([layers[0], resized(layers[1], 6, 8, mode="nearest")], axis=-1)
        return joined[..., method_chosen].astype(np.float64)

    normal, tested = cells(TRAINING), cells(TEST)
    expected = np.zeros(tested.shape[:3])
    for row in range(6):
        for column in range(8):
            covariance = np.cov(normal[:, row, column].T) + 0.01 * np.eye(6)
            apart = tested[:, row, column] - normal[:, row, column].mean(0)
            expected[:, row, column] = np.sqrt(np.einsum("ni,ij,nj->n", apart, np.linalg.inv(covariance), apart))
    if sigma:
        expected = np.stack([gaussian_filter(one, sigma * 6 / HEIGHT) for one in expected])
    assert found == pytest.approx(expected, rel=1e-3)
    assert components["distance"] == pytest.approx(expected.max((1, 2)), rel=1e-3)


def test_padim_draws_other_channels_by_seed(store: Store[FeatureClip], tmp_path: Path) -> None:
    chosen = []
    for seed in (0, 0, 1):
        method = Padim(Padim.Train(**PADIM), Padim.Score(sigma=4.0, device="cpu"))
        method.fit(store, Fit(seed, tmp_path))
        chosen.append(method.chosen.tolist())
    assert chosen[0] == chosen[1] != chosen[2]


LEFT_OUT: dict[str, tuple[type[Method[Any]], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # Of eleven images; without one of them, the ridge counts as much as this.
    "padim": (Padim, PADIM, {"ridge": 0.01 * 10 / 9}, {"sigma": 0.0, "device": "cpu"}),
    "patchcore": (PatchCore, PATCHCORE, {}, {"neighbours": 3, "sigma": 0.0, "device": "cpu"}),
    "spade": (Spade, SPADE, {}, SEARCH),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_training_image_is_scored_as_if_it_were_none(store: Store[FeatureClip], tmp_path: Path, name: str) -> None:
    """Levels of boxes come from the maps of training: in itself an image would tell nothing of what is normal."""
    cls, train, changes, score = LEFT_OUT[name]
    whole = cls(cls.Train(**train), cls.Score(**score))
    scored(whole, store, tmp_path)
    found = [one for clip in store.clips("train") for one in whole.score(clip)]
    row = 8  # the second of clip b
    without = [np.delete(layer, row, axis=0) for layer in TRAINING]
    other = write(tmp_path / "o", {"train/a": without, "test/c": [layer[row : row + 1] for layer in TRAINING]})
    (tmp_path / "other").mkdir()
    components, maps = scored(cls(cls.Train(**train | changes), cls.Score(**score)), other, tmp_path / "other")
    (mapped,) = found[0].maps
    assert np.concatenate([one.maps[mapped] for one in found])[row] == pytest.approx(maps[0], rel=2e-3)
    for component, values in components.items():
        together = np.concatenate([one.components[component] for one in found])
        assert together[row] == pytest.approx(values[0], rel=2e-3)


def test_padim_may_draw_no_channel_of_a_layer(store: Store[FeatureClip], tmp_path: Path) -> None:
    layers = [[one[0], resized(one[1], 6, 8, mode="nearest")] for one in (TRAINING, TEST)]
    normal, tested = (np.concatenate(one, axis=-1).astype(np.float64) for one in layers)
    drawn = set()
    for seed in range(4):
        method = Padim(Padim.Train(**{**PADIM, "dimensions": 1}), Padim.Score(sigma=0.0, device="cpu"))
        method.fit(store, Fit(seed, tmp_path))
        (channel,) = method.chosen
        drawn.add(bool(channel < SHAPES[0][2]))
        (found,) = method.score(store.clips("test")[0])
        deviation = np.sqrt(normal[..., channel].var(0, ddof=1) + 0.01)
        expected = np.abs(tested[..., channel] - normal[..., channel].mean(0)) / deviation
        assert found.maps["distance"] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert drawn == {True, False}


@pytest.mark.parametrize("neighbours", [1, 3])
def test_patchcore_is_the_nearest_place(store: Store[FeatureClip], tmp_path: Path, neighbours: int) -> None:
    score = PatchCore.Score(neighbours=neighbours, sigma=0.0, device="cpu")
    components, found = scored(PatchCore(PatchCore.Train(**PATCHCORE), score), store, tmp_path)

    def cells(layers: list[np.ndarray]) -> np.ndarray:
        means = []
        for one in layers[:2]:
            padded = np.pad(one, ((0, 0), (1, 1), (1, 1), (0, 0)))
            parts = [padded[:, y : y + one.shape[1], x : x + one.shape[2]] for y in range(3) for x in range(3)]
            means.append(np.mean(parts, axis=0))
        return np.concatenate([means[0], resized(means[1], 6, 8, **BILINEAR)], axis=-1).reshape(len(layers[0]), -1, 12)

    memory = cells(TRAINING).reshape(-1, 12)
    for index, places in enumerate(cells(TEST)):
        apart = np.sqrt(squares(places, memory))
        expected = apart.min(1)
        assert found[index].ravel() == pytest.approx(expected, rel=1e-4)
        place = int(expected.argmax())
        weight = 1.0
        if neighbours > 1:
            nearest = memory[apart[place].argmin()]
            beside = np.argsort(squares(nearest[None], memory)[0])[:neighbours]
            weight = 1 - np.exp(expected[place]) / np.exp(apart[place][beside]).sum()
        assert components["distance"][index] == pytest.approx(weight * expected[place], rel=1e-4)


def test_a_coreset_is_a_share_of_the_places(store: Store[FeatureClip], tmp_path: Path) -> None:
    method = PatchCore(
        PatchCore.Train(**{**PATCHCORE, "coreset": 0.1}), PatchCore.Score(neighbours=1, sigma=4.0, device="cpu")
    )
    method.fit(store, Fit(0, tmp_path))
    assert method.record == {"memory": 53, "channels": 12}


@pytest.mark.parametrize("layers", ["averaged", "joined"])
@pytest.mark.parametrize(("nearest", "chunk"), [(1, 48), (2, 1000)])
def test_spade_looks_for_places_in_the_nearest_images(
    store: Store[FeatureClip], tmp_path: Path, layers: str, nearest: int, chunk: int
) -> None:
    score = Spade.Score(**{**SEARCH, "layers": layers, "nearest": nearest, "chunk": chunk})
    components, found = scored(Spade(Spade.Train(**SPADE), score), store, tmp_path)
    images, tested = (one[2].mean((1, 2)) for one in (TRAINING, TEST))
    for index in range(5):
        apart = squares(tested[index : index + 1], images)[0]
        near = np.argsort(apart)[:3]
        assert components["image"][index] == pytest.approx(apart[near].mean(), rel=1e-4)
        pairs = [(TEST[layer][index], TRAINING[layer][near]) for layer in (0, 1)]
        if layers == "joined":
            both = [resized(one, 6, 8, **BILINEAR) for one in (pairs[1][0][None], pairs[1][1])]
            pairs = [(np.concatenate([pairs[0][0], both[0][0]], -1), np.concatenate([pairs[0][1], both[1]], -1))]
        maps = []
        for places, gallery in pairs:
            far = squares(places.reshape(-1, places.shape[-1]), gallery.reshape(-1, places.shape[-1]))
            one = np.sqrt(np.sort(far, 1)[:, :nearest]).mean(1).reshape(1, *places.shape[:2], 1)
            maps.append(resized(one, 6, 8, **BILINEAR)[0, ..., 0])
        expected = np.mean(maps, axis=0)
        assert found[index] == pytest.approx(expected, rel=1e-3, abs=1e-4)
        assert components["place"][index] == pytest.approx(expected.max(), rel=1e-3)


def test_spade_compares_a_training_image_with_others(store: Store[FeatureClip], tmp_path: Path) -> None:
    method = Spade(Spade.Train(**SPADE), Spade.Score(**SEARCH))
    method.fit(store, Fit(0, tmp_path))
    own = np.concatenate([one.components["image"] for one in method.score(store.clips("train")[0])])
    images = TRAINING[2].mean((1, 2))
    expected = [
        np.sort(np.delete(squares(images[index : index + 1], images)[0], index))[:3].mean() for index in range(7)
    ]
    assert own == pytest.approx(np.array(expected), rel=1e-4)


def test_spade_keeps_images_that_cover_the_others(store: Store[FeatureClip], tmp_path: Path) -> None:
    method = Spade(Spade.Train(**{**SPADE, "images": 4}), Spade.Score(**SEARCH))
    method.fit(store, Fit(0, tmp_path))
    assert method.record["images"] == 4
    rows = {image.tobytes() for image in TRAINING[2].mean((1, 2))}
    assert all(image.tobytes() in rows for image in method.images)


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 6), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_k_centre_equals_comparing_all(seed: int, rows: int, dim: int, count: int) -> None:
    chance = np.random.default_rng(seed)
    vectors = chance.standard_normal((rows, dim)).astype(np.float32) * chance.integers(1, 50)
    first = int(chance.integers(rows))
    expected, reach = [first], np.full(rows, np.inf)
    for _ in range(min(count, rows) - 1):
        reach = np.minimum(reach, np.sqrt(squares(vectors, vectors[expected[-1] :][:1])[:, 0]))
        expected.append(int(reach.argmax()))
    assert k_centre(vectors, count, first).tolist() == expected


def test_k_centre_takes_no_row_twice() -> None:
    vectors = np.repeat(np.arange(3, dtype=np.float32)[:, None], 4, axis=0)
    assert len(k_centre(vectors, 10, 0)) == 3


def test_a_search_in_parts_is_a_search() -> None:
    chance = np.random.default_rng(0)
    queries, gallery = (chance.standard_normal((rows, 6)).astype(np.float32) for rows in (20, 90))
    parts = [gallery[:1], gallery[1:50], gallery[50:]]
    found = nearest_in_parts(queries, iter(parts), 4, "cpu")
    assert found == pytest.approx(np.sort(squares(queries, gallery), 1)[:, :4], rel=1e-4)
    with pytest.raises(UserError, match="91 nearest places are wanted, but the gallery has 90"):
        nearest_in_parts(queries, iter(parts), 91, "cpu")


WRONG: dict[str, tuple[type[Method[Any]], dict[str, Any], dict[str, Any], str]] = {
    "a layer that is not there": (
        Padim,
        {**PADIM, "layers": [1, 5]},
        {"sigma": 4.0, "device": "cpu"},
        "holds those of layers 1, 2, 3, but the map of layer 5 is wanted",
    ),
    "more channels than there are": (
        Padim,
        {**PADIM, "dimensions": 13},
        {"sigma": 4.0, "device": "cpu"},
        r"train.dimensions is 13, but layers \[1, 2\] have 12",
    ),
    "k beyond the gallery": (Spade, SPADE, {**SEARCH, "k": 12}, "k = 12 is larger than the gallery of 11"),
    "neighbours beyond the memory": (
        PatchCore,
        {**PATCHCORE, "coreset": 0.001},
        {"neighbours": 9, "sigma": 4.0, "device": "cpu"},
        "score.neighbours is 9, but the memory has 1",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_settings_are_a_sentence(store: Store[FeatureClip], tmp_path: Path, wrong: str) -> None:
    cls, train, score, message = WRONG[wrong]
    method = cls(cls.Train(**train), cls.Score(**score))
    with pytest.raises(UserError, match=message):
        scored(method, store, tmp_path)


def test_one_training_image_is_too_few_for_padim_alone(tmp_path: Path) -> None:
    one = write(tmp_path / "maps", {"train/a": maps_of(1, 0), "test/c": TEST})
    padim = Padim(Padim.Train(**PADIM), Padim.Score(sigma=4.0, device="cpu"))
    with pytest.raises(UserError, match="one training image has no covariance"):
        padim.fit(one, Fit(0, tmp_path))
    score = PatchCore.Score(neighbours=1, sigma=0.0, device="cpu")
    components, _ = scored(PatchCore(PatchCore.Train(**PATCHCORE), score), one, tmp_path)
    assert np.isfinite(components["distance"]).all()


def test_features_that_are_all_equal_score_zero(tmp_path: Path) -> None:
    same = [np.ones((4, *shape), np.float32) for shape in SHAPES]
    flat = write(tmp_path / "maps", {"train/a": same, "test/c": same})
    for index, (cls, train, score) in enumerate(
        (
            (Padim, PADIM, {"sigma": 4.0, "device": "cpu"}),
            (PatchCore, PATCHCORE, {"neighbours": 3, "sigma": 4.0, "device": "cpu"}),
            (Spade, SPADE, SEARCH),
        )
    ):
        (tmp_path / str(index)).mkdir()
        components, _ = scored(cls(cls.Train(**train), cls.Score(**score)), flat, tmp_path / str(index))
        assert all(values == pytest.approx(0, abs=1e-5) for values in components.values())


def test_vectors_are_no_maps(tmp_path: Path) -> None:
    from tests.conftest import write_features

    write_features(tmp_path / "f", {"train/a": np.zeros((3, 4), np.float32), "test/b": np.zeros((2, 4), np.float32)})
    method = Padim(Padim.Train(**PADIM), Padim.Score(sigma=4.0, device="cpu"))
    with pytest.raises(UserError, match="holds vectors, but the map of layer 1 is wanted"):
        method.fit(open_store(tmp_path / "f"), Fit(0, tmp_path))
