"""`deep_svdd`: networks and losses against hand-written twins, centre and radius, both trainings, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.conftest import REPO, tiny_params, write_clips
from vadpipe.errors import UserError
from vadpipe.methods import deep_svdd
from vadpipe.methods.base import DeviceParams, Fit
from vadpipe.methods.deep_svdd import (
    Autoencoder,
    DeepSvdd,
    Encoder,
    Sphere,
    TrainParams,
    centre_of,
    equal_contrast,
    resized,
)
from vadpipe.nn.saved import parameters
from vadpipe.params import load, parse
from vadpipe.store import Store, open_store
from vadpipe.store.frames import Frame
from vadpipe.training import loop

SMALL: dict[str, Any] = {
    "side": 16, "channels": [4, 8], "code": 16, "pretrain_epochs": 2, "epochs": 3, "batch": 8, "learning_rate": 0.001,
}  # fmt: skip
Pictures = list[np.ndarray]


def method(**changes: Any) -> DeepSvdd:
    train = {**tiny_params()["methods"]["deep_svdd"]["train"], "seeds": [0], **SMALL, **changes}
    return DeepSvdd(parse(TrainParams, train, "deep_svdd"), DeviceParams(device="cpu"))


def textures(count: int, seed: int, size: tuple[int, int] = (24, 32), square: bool = False) -> Pictures:
    """Return images of coloured noise, with a bright square somewhere if it is asked for."""
    rng = np.random.default_rng(seed)
    images = [rng.integers(60, 140, (*size, 3)).astype(np.uint8) for _ in range(count)]
    for image in images if square else []:
        y, x = (int(rng.integers(0, side - 8)) for side in size)
        image[y : y + 8, x : x + 8] = 230
    return images


def make_store(folder: Path, **clips: Pictures) -> Store[Any]:
    """Write clips such as `train_a`; the test clip `t` is of four textures where none is given."""
    pictures = {"test_t": textures(4, 9), **clips}
    frames = {
        name.replace("_", "/", 1): [Frame(f"{name}{index}", image) for index, image in enumerate(images)]
        for name, images in pictures.items()
    }
    write_clips(folder / "clips", folder / "labels", frames, ordered=False, fps=None)
    return open_store(folder / "clips", "clips")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store[Any]:
    return make_store(tmp_path_factory.mktemp("deep_svdd"), train_a=textures(20, 0))


def fitted(store: Store[Any], folder: Path, seed: int = 0, **changes: Any) -> DeepSvdd:
    own = method(**changes)
    own.fit(store, Fit(seed, folder / "state"))
    return own


def scores(own: DeepSvdd, store: Store[Any], split: str = "test") -> np.ndarray:
    return np.concatenate([chunk.components["distance"] for clip in store.clips(split) for chunk in own.score(clip)])


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_the_networks_of_cifar_have_as_many_parameters_as_released() -> None:
    encoder = Encoder(32, [32, 64, 128], 128)
    # Three convolutions of 5x5, and what takes 128 maps of 4x4 to the code.
    assert parameters(encoder) == 2_400 + 51_200 + 204_800 + 262_144 == 520_544
    autoencoder = Autoencoder(encoder)
    assert parameters(autoencoder) == 520_544 + 25_600 + 204_800 + 51_200 + 2_400 == 804_544
    images = torch.rand(2, 3, 32, 32)
    assert encoder(images).shape == (2, 128)
    assert autoencoder(images).shape == images.shape
    params = load(REPO / "params.yaml").methods["deep_svdd"].train
    assert DeepSvdd(TrainParams(**params), None).memory() == 4 * 4 * 520_544


def test_nothing_in_them_can_shift_or_scale() -> None:
    network = Autoencoder(Encoder(16, [4, 8], 16))
    assert {type(module) for module in network.modules() if list(module.parameters(recurse=False))} == {
        nn.Conv2d, nn.ConvTranspose2d, nn.Linear,
    }  # fmt: skip
    assert all(value.ndim > 1 for value in network.parameters())


def plain(images: torch.Tensor, network: Autoencoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Return codes and reconstructions of an autoencoder of two layers, 16x16 pixels and a code of 16."""

    def norm(values: torch.Tensor) -> torch.Tensor:
        module = next(norms)
        shape = (1, -1) + (1,) * (values.ndim - 2)
        deviation = (module.running_var.reshape(shape) + 1e-4).sqrt()
        return (values - module.running_mean.reshape(shape)) / deviation

    def leaky(values: torch.Tensor) -> torch.Tensor:
        return torch.where(values > 0, values, 0.01 * values)

    modules = list(network.modules())
    norms = (module for module in modules if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d))
    down = [module.weight for module in modules if isinstance(module, nn.Conv2d)]
    up = [module.weight for module in modules if isinstance(module, nn.ConvTranspose2d)]
    (last,) = (module.weight for module in modules if isinstance(module, nn.Linear))
    values = images
    for weight in down:
        values = leaky(norm(functional.conv2d(values, weight, padding=2)))
        rows = torch.maximum(values[:, :, ::2], values[:, :, 1::2])
        values = torch.maximum(rows[..., ::2], rows[..., 1::2])
    codes = values.reshape(len(images), -1) @ last.T
    values = leaky(norm(codes).reshape(len(images), 1, 4, 4))
    for weight in up[:-1]:
        # At stride 1 a transposed convolution is one with the kernel turned by half a turn.
        values = leaky(norm(functional.conv2d(values, weight.transpose(0, 1).flip(2, 3), padding=2)))
        values = values.repeat_interleave(2, 2).repeat_interleave(2, 3)
    values = functional.conv2d(values, up[-1].transpose(0, 1).flip(2, 3), padding=2)
    return codes, 1 / (1 + (-values).exp())


def test_the_networks_are_what_the_reference_says() -> None:
    torch.manual_seed(0)
    network = Autoencoder(Encoder(16, [4, 8], 16))
    images = torch.rand(5, 3, 16, 16)
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(8, 3, 16, 16))  # batch norms see something
        network.eval()
        codes, reconstructions = plain(images, network)
        torch.testing.assert_close(network.encoder(images), codes, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(network(images), reconstructions, atol=1e-5, rtol=1e-4)
        sphere = Sphere(network.encoder)
        sphere.centre.copy_(torch.linspace(-1, 1, 16))
        expected = torch.stack([sum((code - sphere.centre) ** 2) for code in codes])
        torch.testing.assert_close(sphere(images), expected, atol=1e-4, rtol=1e-4)


def test_contrast_is_that_of_each_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
    images[1] = 7
    found = equal_contrast(images)
    for image, equal in zip(images, found, strict=True):
        values = [float(value) for value in image.reshape(-1)]
        mean = sum(values) / len(values)
        contrast = sum(abs(value - mean) for value in values) / len(values)
        expected = [(value - mean) / contrast if contrast else 0 for value in values]
        assert equal.reshape(-1) == pytest.approx(np.array(expected), abs=1e-5)
    # Brightness and contrast of the whole image are gone.
    assert equal_contrast((images[2:] // 4 * 2 + 30).astype(np.uint8)) == pytest.approx(
        equal_contrast(images[2:] // 4), abs=1e-5
    )


def test_training_images_fill_the_range_and_others_may_leave_it(store: Store[Any], tmp_path: Path) -> None:
    own = fitted(store, tmp_path, pretrain_epochs=0, epochs=1)
    (clip,) = store.clips("train")
    images = np.concatenate([resized(chunk, 16) for chunk in clip.chunks()])
    shown = own._shown(images)
    assert shown.shape == (20, 3, 16, 16)
    assert float(shown.min()) == pytest.approx(0, abs=1e-6)
    assert float(shown.max()) == pytest.approx(1, abs=1e-6)
    point = np.zeros((1, 16, 16, 3), np.uint8)
    point[0, 3, 3] = 255
    assert float(own._shown(point).max()) > 2


def test_components_of_the_centre_keep_away_from_0_but_for_those_that_are_0() -> None:
    codes = torch.tensor([[0.05, -0.05, 1.0, 0.7, -0.3, 0.1], [0.03, -0.11, -1.0, 0.3, -0.1, 0.1]])
    assert centre_of(codes).tolist() == pytest.approx([0.1, -0.1, 0.0, 0.5, -0.2, 0.1])


def test_the_centre_is_that_of_pretrained_codes_and_never_moves(store: Store[Any], tmp_path: Path) -> None:
    short, long = (fitted(store, tmp_path, epochs=epochs) for epochs in (1, 4))
    assert torch.equal(short.network.centre, long.network.centre)
    assert not same(short.network.encoder, long.network.encoder)
    unprepared = fitted(store, tmp_path, epochs=1, pretrain_epochs=0)
    assert not torch.equal(short.network.centre, unprepared.network.centre)
    assert [list(epoch) for epoch in long.losses] == [["loss", "reconstruction"]] * 2 + [["loss", "one_class"]] * 4
    assert not (tmp_path / "state").exists()


def test_reconstruction_is_summed_over_an_image_and_averaged_over_images() -> None:
    images = torch.rand(3, 3, 4, 5)
    network: Any = lambda batch: 0.5 * batch  # noqa: E731
    errors = [sum((0.5 * value) ** 2 for value in image.flatten().tolist()) for image in images]
    found = deep_svdd._reconstruction(network, (images, False))
    assert float(found["reconstruction"]) == pytest.approx(sum(errors) / 3, rel=1e-5)


def test_losses_of_both_objectives() -> None:
    """Distances 1, 4, 9, 16 of a radius of 2: those beyond it are 5 and 12 too far."""
    distances = torch.tensor([1.0, 4.0, 9.0, 16.0])
    network: Any = lambda _: distances  # noqa: E731
    images = torch.zeros(4, 3, 2, 2)
    assert method()._loss(network, (images, True)) == {"one_class": torch.tensor(7.5)}
    own = method(objective="soft_boundary", nu=0.2, epochs=11)
    own.network = SimpleNamespace(radius=torch.tensor(2.0))  # type: ignore[assignment]
    assert float(own._loss(network, (images, False))["soft_boundary"]) == pytest.approx(4 + (5 + 12) / 4 / 0.2)
    assert float(own.network.radius) == 2
    # The loss is of the radius before, and the radius then that of this batch.
    assert float(own._loss(network, (images, True))["soft_boundary"]) == pytest.approx(4 + (5 + 12) / 4 / 0.2)
    assert float(own.network.radius) == pytest.approx(np.quantile([1, 2, 3, 4], 0.8))


def test_the_radius_of_a_soft_boundary_waits_for_ten_epochs(
    store: Store[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    radii: list[float] = []
    loss = DeepSvdd._loss

    def watched(self: DeepSvdd, *arguments: Any) -> Any:
        found = loss(self, *arguments)
        radii.append(float(self.network.radius))
        return found

    monkeypatch.setattr(DeepSvdd, "_loss", watched)
    own = fitted(store, tmp_path, objective="soft_boundary", epochs=12, batch=20, nu=0.25)
    assert radii[:10] == [0] * 10
    assert len(radii) == 12
    assert min(radii[10:]) > 0
    assert float(own.network.radius) == radii[-1]
    (clip,) = store.clips("test")
    (images,) = (own._shown(resized(chunk, 16)) for chunk in clip.chunks())
    with torch.inference_mode():
        expected = own.network(images) - radii[-1] ** 2
    assert scores(own, store) == pytest.approx(expected.numpy(), rel=1e-4)
    plain = fitted(store, tmp_path)
    assert float(plain.network.radius) == 0
    assert scores(plain, store).min() > 0


class Instead:
    """What stands in the place of `train`: it notes the learning rates and the sizes of batches of each epoch."""

    def __init__(self, then: Callable[[nn.Module], None] = lambda network: None) -> None:
        self.rates: list[list[float]] = []
        self.sizes: list[int] = []
        self.then = then

    def __call__(self, network: nn.Module, optimizer: Any, batches: Any, loss: Any, plan: Any, schedule: Any) -> Any:
        self.rates.append([])
        for epoch in range(plan.epochs):
            self.rates[-1].append(optimizer.param_groups[0]["lr"])
            self.sizes = [len(images) for images, _ in batches(epoch, np.random.default_rng(0))]
            assert len(self.sizes) == plan.steps
            optimizer.step()
            schedule.step()
        self.then(network)
        network.eval()
        return [{"loss": 0.0}] * plan.epochs


def test_the_rate_falls_behind_the_milestone_of_each_training(
    store: Store[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs count from 0 where it is stepped at their start, as by the PyTorch 0.4.1 of the released code."""
    instead = Instead()
    monkeypatch.setattr(deep_svdd, "train", instead)
    fitted(store, tmp_path, pretrain_epochs=5, pretrain_milestone=3, epochs=4, milestone=1)
    expected = [[1e-3] * 3 + [1e-4] * 2, [1e-3] + [1e-4] * 3]
    assert instead.rates == [pytest.approx(one) for one in expected]


@pytest.mark.parametrize(("batch", "sizes"), [(8, [8, 8, 4]), (19, [19]), (20, [20]), (10, [10, 10]), (200, [20])])
def test_a_last_batch_of_one_image_is_left_out(
    store: Store[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, sizes: list[int]
) -> None:
    instead = Instead()
    monkeypatch.setattr(deep_svdd, "train", instead)
    fitted(store, tmp_path, batch=batch)
    assert instead.sizes == sizes


def test_equal_seeds_give_equal_weights_and_different_seeds_differ(store: Store[Any], tmp_path: Path) -> None:
    one, again, other = (fitted(store, tmp_path, seed) for seed in (0, 0, 1))
    assert same(one.network, again.network)
    assert one.losses == again.losses
    assert not same(one.network, other.network)
    assert (scores(one, store) == scores(again, store)).all()


# Of three batches an epoch: in the second of two epochs of the autoencoder, before the first step of the other
# training, within its warm-up, and where the radius follows.
@pytest.mark.parametrize("steps", [4, 6, 11, 40])
def test_an_interrupted_training_goes_on_with_equal_weights(
    store: Store[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    how = {"objective": "soft_boundary", "epochs": 14, "milestone": 12}
    straight = fitted(store, tmp_path / "straight", **how)
    taken = 0

    def dying(loss: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            nonlocal taken
            taken += 1
            if taken > steps:
                raise KeyboardInterrupt
            return loss(*arguments)

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY_S", 0.0)
        patch.setattr(loop, "_SHARE", 0.0)
        patch.setattr(deep_svdd, "_reconstruction", dying(deep_svdd._reconstruction))
        patch.setattr(DeepSvdd, "_loss", dying(DeepSvdd._loss))
        with pytest.raises(KeyboardInterrupt):
            fitted(store, tmp_path / "killed", **how)
    state = tmp_path / "killed" / "state"
    there = {4: {"phase_1"}, 6: {"autoencoder"}}.get(steps, {"autoencoder", "phase_2"})
    assert {path.name for path in state.iterdir()} == there
    resumed = fitted(store, tmp_path / "killed", **how)
    assert same(straight.network, resumed.network)
    assert straight.losses == resumed.losses
    assert not state.exists()


def test_what_training_never_showed_scores_higher(tmp_path: Path) -> None:
    clips = {"train_a": textures(60, 0), "test_t": textures(20, 1), "test_u": textures(20, 2, square=True)}
    store = make_store(tmp_path, **clips)
    own = fitted(store, tmp_path, pretrain_epochs=10, epochs=20, batch=20)
    found = scores(own, store)
    above = (found[20:, None] > found[:20]).mean()
    assert above > 0.9
    # Trained codes come nearer to the centre than they were.
    assert own.losses[-1]["one_class"] < 0.5 * own.losses[10]["one_class"]
    assert own.losses[9]["reconstruction"] < own.losses[0]["reconstruction"]


@pytest.mark.parametrize("changes", [{}, {"pretrain_epochs": 0}, {"objective": "soft_boundary", "epochs": 11}])
def test_it_is_saved_and_loaded(store: Store[Any], tmp_path: Path, changes: dict[str, Any]) -> None:
    own = fitted(store, tmp_path, **changes)
    (tmp_path / "model").mkdir()
    own.save(tmp_path / "model")
    again = method(**changes)
    again.load(tmp_path / "model")
    assert same(own.network, again.network)
    assert (scores(own, store) == scores(again, store)).all()
    assert again.losses == own.losses
    assert again.record == own.record == {"parameters": 3 * 4 * 25 + 4 * 8 * 25 + 8 * 16 * 16}
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"network.safetensors", "network.json"}


def test_images_of_several_sizes_in_one_store(tmp_path: Path) -> None:
    small, large = textures(6, 1, (9, 11)), textures(6, 2, (70, 40))
    store = make_store(tmp_path, train_a=textures(8, 0), train_b=small, test_t=large, test_u=small)
    found = scores(fitted(store, tmp_path), store)
    assert found.shape == (12,)
    assert np.isfinite(found).all()


def test_grey_images_are_coloured_ones_of_equal_channels(tmp_path: Path) -> None:
    found = []
    for name, change in (("grey", lambda image: image[..., 0].copy()), ("colour", lambda image: image[..., [0, 0, 0]])):
        clips = {"train_a": textures(8, 0), "test_t": textures(4, 1)}
        (tmp_path / name).mkdir()
        store = make_store(tmp_path / name, **{clip: list(map(change, images)) for clip, images in clips.items()})
        found.append(scores(fitted(store, tmp_path), store))
    assert (found[0] == found[1]).all()


def test_larger_images_are_averaged_and_smaller_ones_drawn_out() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3)).astype(np.uint8)
    blocks = images.reshape(2, 4, 2, 4, 3, 3).mean((2, 4))
    assert resized(images, 4).astype(float) == pytest.approx(blocks, abs=0.51)
    assert (resized(images[:, :, :8], 8) == images[:, :, :8]).all()
    steps = np.broadcast_to(np.arange(0, 240, 20, dtype=np.uint8)[:, None], (1, 8, 12, 3))
    grown = resized(steps, 24).astype(int)
    assert grown.shape == (1, 24, 24, 3)
    # A slope stays one: repeated pixels would have steps.
    assert (np.diff(grown[0, 0, 2:-2, 0]) > 0).all()
    assert (grown[0] == grown[0, :1]).all()


SAME = textures(1, 0, (16, 16))[0]


@pytest.mark.parametrize(
    "images",
    [[SAME], [SAME] * 5, [np.full_like(SAME, level) for level in (10, 20, 90)], [SAME // 4, SAME // 4 * 2]],
    ids=["one", "equal", "even", "of other contrast"],
)
def test_images_that_are_all_the_same_are_refused(tmp_path: Path, images: Pictures) -> None:
    store = make_store(tmp_path, train_a=images)
    with pytest.raises(UserError, match=r"the training images are all the same at 16x16 pixels and equal contrast"):
        fitted(store, tmp_path)


def test_two_images_are_enough(tmp_path: Path) -> None:
    store = make_store(tmp_path, train_a=textures(2, 0))
    assert np.isfinite(scores(fitted(store, tmp_path), store)).all()


@pytest.mark.parametrize("share", [0.0, 1e-9])
def test_an_encoder_that_gives_one_code_is_named(
    store: Store[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    def collapse(network: nn.Module) -> None:
        if isinstance(network, Sphere):
            network.encoder.layers[-1].weight.data *= share

    monkeypatch.setattr(deep_svdd, "train", Instead(collapse))
    with pytest.raises(UserError, match="collapsed within 3 epochs: all training images have the same code"):
        fitted(store, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"side": 30}, r"2 layers halve the image as often, but a side of 30 is no multiple of 4"),
     ({"code": 24}, r"lays the code out on 4x4 cells, but 24 is no multiple of 16"),
     ({"objective": "soft_boundary", "epochs": 10}, r"no radius within the first 10 epochs"),
     ({"channels": []}, "channels"), ({"channels": [4, 0]}, "channels"), ({"batch": 1}, "batch"), ({"nu": 0.0}, "nu"),
     ({"objective": "sphere"}, "objective")],
)  # fmt: skip
def test_parameters_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        method(**changes)


def test_without_pretraining_a_code_may_be_of_any_length(store: Store[Any], tmp_path: Path) -> None:
    own = fitted(store, tmp_path, pretrain_epochs=0, code=5)
    assert own.network.centre.shape == (5,)
    assert [list(epoch) for epoch in own.losses] == [["loss", "one_class"]] * 3
