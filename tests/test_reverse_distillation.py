"""Reverse distillation: its network counted, its losses and maps against twins, its training end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.conftest import tiny_params
from tests.test_feature_maps import scored, write
from vadpipe.errors import UserError
from vadpipe.methods.base import Fit
from vadpipe.methods.reverse_distillation import ReverseDistillation
from vadpipe.nn.reverse import ReverseStudent, fold_norms
from vadpipe.nn.saved import parameters
from vadpipe.store import FeatureClip, Store

SIZES = [(8, 12, 6), (4, 6, 8), (2, 3, 10)]
EVEN = [(8, 16, 6), (4, 8, 8), (2, 4, 10)]


def maps(count: int, seed: int, shapes: list[tuple[int, int, int]]) -> list[np.ndarray]:
    """Return maps as of a network that ends in a ReLU, alike in all images but for noise."""
    chance = np.random.default_rng(seed)
    common = [np.random.default_rng(9 + shape[-1]).standard_normal(shape) for shape in shapes]
    noisy = [one + 0.2 * chance.standard_normal((count, *one.shape)) for one in common]
    return [one.clip(0).astype(np.float16).astype(np.float32) for one in noisy]


def method(**changes: Any) -> ReverseDistillation:
    train = tiny_params()["methods"]["reverse_distillation"]["train"]
    train |= {"layers": [1, 2, 3], "depths": [1, 1, 1], "epochs": 30, "batch": 4, "device": "cpu", **changes}
    sigma = 4.0 if "sigma" not in changes else train.pop("sigma")
    return ReverseDistillation(ReverseDistillation.Train(**train), ReverseDistillation.Score(sigma=sigma, device="cpu"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store[FeatureClip]:
    monkeypatch.setattr("tests.test_feature_maps.SHAPES", EVEN)
    test = maps(6, 2, EVEN)
    for layer in test:
        layer[3:, -1:, -2:] = layer[3:, -1:, -2:, ::-1]
    return write(tmp_path / "maps", {"train/a": maps(9, 0, EVEN), "test/c": test})


def test_the_network_of_the_paper_has_its_parameters() -> None:
    student = ReverseStudent([256, 512, 1024], "bottleneck", 2, [3, 4, 6], 3)
    counts = {name: parameters(part) for name, part in student.named_children()}
    assert counts == {"fuse": 10_621_952, "bottleneck": 48_263_168, "unfold": 24_917_504}


@pytest.mark.parametrize(("kind", "width"), [("basic", 1), ("bottleneck", 1), ("bottleneck", 2)])
def test_the_student_has_the_maps_of_the_teacher(kind: Any, width: float) -> None:
    student = ReverseStudent([8, 12, 16], kind, width, [1, 2, 3], 2).eval()
    teacher = [torch.randn(2, channels, 32 // 2**index, 16 // 2**index) for index, channels in enumerate([8, 12, 16])]
    assert [one.shape for one in student(teacher)] == [one.shape for one in teacher]


def test_a_folded_student_says_the_same() -> None:
    torch.manual_seed(0)
    student = ReverseStudent([8, 12, 16], "bottleneck", 1, [1, 2, 1], 2)
    teacher = [torch.randn(3, channels, 32 // 2**index, 16 // 2**index) for index, channels in enumerate([8, 12, 16])]
    with torch.inference_mode():
        for _ in range(3):
            student([one + 1 for one in teacher])  # its norms see other means and deviations than 0 and 1
        expected = student.eval()(teacher)
        fold_norms(student)
        assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in student.modules())
        for found, wanted in zip(student(teacher), expected, strict=True):
            assert found.numpy() == pytest.approx(wanted.numpy(), abs=1e-4)


def test_what_does_not_fit_is_found_where_it_lies(store: Store[FeatureClip], tmp_path: Path) -> None:
    own = method()
    components, found = scored(own, store, tmp_path)
    assert own.losses[-1]["loss"] < own.losses[0]["loss"]
    assert found.shape == (6, 8, 16)
    assert components["difference"] == pytest.approx(found.max(axis=(1, 2)))
    assert components["difference"][3:].min() > components["difference"][:3].max()
    for one in found[3:]:
        row, column = np.unravel_index(one.argmax(), one.shape)
        assert row >= 4
        assert column >= 8


def test_the_map_is_a_sum_of_cosines(store: Store[FeatureClip], tmp_path: Path) -> None:
    own = method(epochs=1, sigma=0.0)
    _, found = scored(own, store, tmp_path)
    (clip,) = store.clips("test")
    teacher = [torch.from_numpy(one).permute(0, 3, 1, 2) for one in clip.maps(clip.vectors(), [1, 2, 3])]
    own.network.eval()
    expected = torch.zeros(6, 8, 16)
    with torch.no_grad():
        for one, other in zip(teacher, own.network(teacher), strict=True):
            # Where the student says nothing, its cosine is 0.
            cosine = (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1)).clamp(min=1e-8)
            up = functional.interpolate((1 - cosine)[:, None], size=(8, 16), mode="bilinear", align_corners=True)
            expected += up[:, 0]
    assert found == pytest.approx(expected.numpy(), abs=1e-4)


def test_row_groups_of_the_store_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_feature_maps.SHAPES", EVEN)
    torch.manual_seed(0)
    own = method()
    own.network = ReverseStudent([6, 8, 10], "basic", 1, [1, 1, 1], 1).eval()
    found = []
    for rows in (3, 256):
        monkeypatch.setattr("vadpipe.store.features.ROWS", rows)
        (clip,) = write(tmp_path / str(rows), {"train/a": maps(11, 2, EVEN)}).clips("train")
        parts = [one.maps["difference"] for one in own.score(clip)]
        assert [len(one) for one in parts] == [8, 3]
        found.append(np.concatenate(parts))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("loss", ["image", "place"])
def test_losses(loss: str) -> None:
    own = method(loss=loss)
    teacher, student = ([torch.randn(3, size[2], size[0], size[1]) for size in SIZES] for _ in range(2))
    found = own._loss(lambda _: student, teacher)  # type: ignore[arg-type]
    expected = 0.0
    for one, other in zip(teacher, student, strict=True):
        dims = (1, 2, 3) if loss == "image" else (1,)
        cosine = (one * other).sum(dims) / (one.square().sum(dims).sqrt() * other.square().sum(dims).sqrt())
        expected += 1 - float(cosine.mean())
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_equal_seeds_give_equal_students(store: Store[FeatureClip], tmp_path: Path) -> None:
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        own = method(epochs=2)
        own.fit(store, Fit(seed, tmp_path / str(number)))
        weights.append(torch.cat([value.flatten() for value in own.network.parameters()]))
    assert (weights[0] == weights[1]).all()
    assert not (weights[0] == weights[2]).all()


def test_maps_that_are_not_halved_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_feature_maps.SHAPES", SIZES)
    odd = write(tmp_path / "maps", {"train/a": maps(3, 0, SIZES), "test/c": maps(2, 1, SIZES)})
    with pytest.raises(UserError, match=r"are 8x12, 4x6, 2x3; each must be half .* multiples of 32"):
        method().fit(odd, Fit(0, tmp_path))


def test_a_depth_a_layer(store: Store[FeatureClip], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="depths has 2 numbers of blocks for 3 layers"):
        method(depths=[1, 1]).fit(store, Fit(0, tmp_path))
