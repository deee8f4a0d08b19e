"""The autoencoder of the pool: what it learns from, what it refuses, and that its training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import REPO, pool_image, store_file, write_clips
from vadpipe.errors import UserError
from vadpipe.methods import conv_ae
from vadpipe.methods.base import Fit
from vadpipe.methods.conv_ae import Autoencoder, Batches, CollapsedError, ConvAe, ScoreParams, TrainParams
from vadpipe.params import load
from vadpipe.store import PreparedClip, Store, images, open_store
from vadpipe.store.base import write_manifests
from vadpipe.store.frames import Frame
from vadpipe.store.prepared import POOLS, Prepared, write_clip
from vadpipe.training.augment import Sample

HEIGHT, WIDTH = 36, 52  # no multiples of the strides


def params(**changes: Any) -> TrainParams:
    small = {"scale": 1.0, "kernels": [3, 5], "channels": [4, 6], "strides": [2, 2], "epochs": 3, "batch": 4}
    return TrainParams(**{**load(REPO / "params.yaml").methods["conv_ae"].train, "clips": ["*"], **small, **changes})


def score_params(**changes: Any) -> ScoreParams:
    return ScoreParams(**{**load(REPO / "params.yaml").methods["conv_ae"].score, **changes})


def make_store(folder: Path, filled: bool = False, region: slice = slice(8, 30), size: int = HEIGHT) -> Store[Any]:
    """8 training and 4 test images; the first test image has a red square in the pool, the second one outside."""
    raw, out = folder / "raw", folder / "pools"
    frames: dict[str, list[Frame]] = {"train/swimmers": [], "test/swimmers": []}
    for split, count in (("train", 8), ("test", 4)):
        for index in range(count):
            image = pool_image(index + 20 * (split == "test"), size, WIDTH)[..., ::-1].copy()
            if split == "test" and index < 2:
                top = 16 if index == 0 else 0
                image[top : top + 7, 20:30] = (220, 30, 20)
            frames[f"{split}/swimmers"].append(Frame(f"{split}{index}", image))
    write_clips(raw, folder / "labels", frames, reader="pool", fps=None, ordered=False)
    for clip in open_store(raw).all_clips():
        pool = np.zeros((size, WIDTH), bool)
        pool[region] = True
        made_up = np.zeros((size, WIDTH), bool)
        made_up[10:20, :10] = True
        encoded = [data for group in clip.encoded() for data in group]
        names = clip.column("name")
        rows = [
            Prepared(name, data, made_up if filled else None, pool, 1.0)
            for name, data in zip(names, encoded, strict=True)
        ]
        write_clip(store_file(out, f"{clip.split}/swimmers"), POOLS, clip, rows)
    write_manifests(out)
    return open_store(out, "pools")


def fitted(store: Store[Any], folder: Path, seed: int = 0, score: ScoreParams | None = None, **changes: Any) -> ConvAe:
    method = ConvAe(params(**changes), score or score_params())
    method.fit(store, Fit(seed, folder / "state"))
    return method


def maps(method: ConvAe, clip: PreparedClip) -> np.ndarray:
    return np.concatenate([chunk.maps["heat"] for chunk in method.score(clip)])


@pytest.mark.parametrize("kernels", [[3, 5, 9], [3, 5, 7, 9]])
def test_the_architectures_of_the_report(kernels: list[int]) -> None:
    channels = [8, 16, 32, 64][: len(kernels)]
    network = Autoencoder(kernels, channels, [2] * len(kernels), 0.0)
    weights = sum(k * k * a * b for k, a, b in zip(kernels, [3, *channels], channels, strict=False))
    expected = 2 * weights + sum(channels) + sum([3, *channels][:-1])
    assert sum(value.numel() for value in network.parameters()) == expected
    assert network.encoder(torch.zeros(1, 3, 96, 128)).shape == (
        1,
        channels[-1],
        96 >> len(kernels),
        128 >> len(kernels),
    )


@pytest.mark.parametrize("size", [(36, 52), (37, 53), (16, 16), (17, 31)])
def test_any_size_comes_out_as_it_went_in(size: tuple[int, int]) -> None:
    network = Autoencoder([3, 5, 7, 9], [4, 4, 4, 4], [2, 2, 2, 2], 0.0)
    output = network(torch.rand(2, 3, *size))
    assert output.shape == (2, 3, *size)
    assert ((output > 0) & (output < 1)).all()


def test_it_learns_and_finds_what_is_foreign_in_the_pool(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    method = fitted(store, tmp_path, epochs=60, learning_rate=0.01)
    assert method.losses[-1]["loss"] < 0.5 * method.losses[0]["loss"]
    (clip,) = store.clips("test")
    heat = maps(method, clip)
    assert heat.shape == (4, HEIGHT, WIDTH)
    assert np.isnan(heat[:, :8]).all()
    assert np.isnan(heat[:, 30:]).all()
    inside = heat[:, 8:30]
    assert not np.isnan(inside).any()
    assert inside[0, 8:15, 20:30].mean() > 3 * inside[0, :, :15].mean()
    scores = np.concatenate([chunk.components["heat"] for chunk in method.score(clip)])
    # What is foreign outside the pool does not count.
    assert scores[0] > 2 * scores[1:].max()
    (pictures,) = (chunk.pictures["reconstruction"] for chunk in method.score(clip))
    assert pictures.shape == (4, HEIGHT, WIDTH, 3)
    assert pictures.dtype == np.uint8


def test_the_heat_of_training_pixels_is_one_on_average(tmp_path: Path) -> None:
    """Scaled by training statistics alone: the same pixels have the same heat in whatever company."""
    store = make_store(tmp_path, filled=True)
    method = fitted(store, tmp_path)
    (train,), (test,) = store.clips("train"), store.clips("test")
    assert np.nanmean(maps(method, train)) == pytest.approx(1, rel=1e-3)
    squared = ConvAe(method.train, score_params(exponent=2.0))
    squared.network, squared.scale = method.network, method.scale
    assert maps(squared, test) == pytest.approx(maps(method, test) ** 2, rel=1e-4, nan_ok=True)


def test_loss_is_divided_by_the_pool_and_not_by_the_image() -> None:
    image = torch.rand(2, 3, 8, 10)
    inside = torch.zeros(2, 1, 8, 10)
    inside[0, :, :2], inside[1] = 1, 1
    constant = torch.nn.Module()
    constant.forward = lambda images: torch.full_like(images, 0.5)  # type: ignore[method-assign]
    errors = (image - 0.5).square().mean(1)
    expected = (errors[0, :2].mean() + errors[1].mean()) / 2
    nothing = torch.zeros_like(inside)
    assert float(conv_ae._loss(constant, (image, image, inside, nothing))) == pytest.approx(float(expected), rel=1e-5)
    outside = 1 - inside
    target = torch.where(outside > 0, 1 - image, image)
    other = (1 - image[0] - 0.5).square().mean(0)[2:].mean() / 2
    both = float(conv_ae._loss(constant, (image, target, inside, outside)))
    assert both == pytest.approx(float(expected + other), rel=1e-5)


def test_made_up_pixels_count_as_much_as_params_say() -> None:
    filled = np.zeros((16, 16), bool)
    filled[:4] = True
    sample = Sample(np.zeros((16, 16, 3), np.uint8), np.ones((16, 16), bool), filled)
    for weight in (0.0, 0.3, 1.0):
        batches = Batches([sample], params(filled=weight), 4)
        ((_, _, inside, outside),) = batches(0, np.random.default_rng(0))
        assert inside[0, 0, :4].numpy() == pytest.approx(weight)
        assert (inside[0, 0, 4:] == 1).all()
        assert not outside.any()


def test_outside_is_learned_only_with_a_modified_target() -> None:
    region = np.zeros((16, 16), bool)
    region[:4] = True
    sample = Sample(np.full((16, 16, 3), 60, np.uint8), region, ~region & region)
    for target, learned in (("plain", False), ("noise", True), ("inverted", True)):
        ((images, targets, _, outside),) = Batches([sample], params(target=target), 4)(0, np.random.default_rng(0))
        assert bool(outside.any()) == learned
        assert bool((targets != images).any()) == learned


def test_a_training_goes_on_with_equal_weights(tmp_path: Path) -> None:
    """Ten epochs at once, or four, saved, loaded, and six more."""
    store = make_store(tmp_path)
    straight = fitted(store, tmp_path, epochs=10, target="noise", dropout=0.2)
    first = fitted(store, tmp_path, epochs=4, target="noise", dropout=0.2)
    (tmp_path / "model").mkdir()
    first.save(tmp_path / "model")
    again = ConvAe(params(epochs=10, target="noise", dropout=0.2), score_params())
    again.fit(store, Fit(0, tmp_path / "state", start=tmp_path / "model"))
    assert again.losses == straight.losses
    for one, other in zip(straight.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("value", "name"), [(0.0, "0"), (1.0, "1")])
def test_a_collapsed_network_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float, name: str) -> None:
    store = make_store(tmp_path)

    def broken(network: Autoencoder, *_: object, **__: object) -> list[float]:
        last = network.decoder[-2]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, 40 * value - 20)
        return [0.1]

    monkeypatch.setattr(conv_ae, "train", broken)
    with pytest.raises(CollapsedError, match=f"collapsed to all {name} within 1 epochs"):
        fitted(store, tmp_path)


def test_too_small_an_image_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with pytest.raises(UserError, match=r"the images are 7x10 pixels at train.scale 0.2, but the network needs 16x16"):
        fitted(store, tmp_path, scale=0.2, kernels=[3] * 4, channels=[4] * 4, strides=[2] * 4)


def test_a_region_that_vanishes_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path, region=slice(8, 9))
    with pytest.raises(UserError, match=r"the pool of train0 covers nothing at scale 0\.25"):
        fitted(store, tmp_path, scale=0.25)


def test_images_that_are_all_filled_are_refused(tmp_path: Path) -> None:
    nothing = Sample(np.zeros((16, 16, 3), np.uint8), np.ones((16, 16), bool), np.ones((16, 16), bool))
    with pytest.raises(UserError, match="no pixel is left to learn from"):
        Batches([nothing], params(), 4)


def test_clips_by_name(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    with pytest.raises(UserError, match=r"no training clip 'empty\*'; it has: swimmers"):
        fitted(store, tmp_path, clips=["empty*"])


@pytest.mark.parametrize(
    "wrong",
    [{"kernels": [3, 5, 7]}, {"kernels": [4, 5]}, {"strides": [2, 0]}, {"kernels": [1, 5]}, {"target": "zero"}],
)
def test_wrong_shapes_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"kernel|channels|target"):
        params(**wrong)


def test_squeeze_and_highlights() -> None:
    image = np.full((10, 10, 3), 100, np.uint8)
    image[0, 0] = 255
    image[9, 9] = 255
    region = np.ones((10, 10), bool)
    region[9] = False
    sample = Sample(image, region, ~region & region)
    method = ConvAe(params(), score_params(squeeze=0.5, highlights=2.0))
    made = method._prepared(sample)
    assert made[5, 5].tolist() == [50, 50, 50]
    # A highlight in the pool becomes the pool's mean; outside nothing is taken out.
    assert made[0, 0].tolist() == [51, 51, 51]
    assert made[9, 9].tolist() == [128, 128, 128]
    assert (ConvAe(params(), score_params())._prepared(sample) == image).all()
    assert images.decode(images.encode_png(made)).shape == (10, 10, 3)
