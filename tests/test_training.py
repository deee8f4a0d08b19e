"""The training loop: equal seeds, equal weights, also after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vadpipe.errors import UserError
from vadpipe.training import loop
from vadpipe.training.curves import write_curve
from vadpipe.training.loop import Plan, seeded, train

EPOCHS = 6
Loss = Callable[[nn.Module, torch.Tensor], torch.Tensor]
Weights = dict[str, torch.Tensor]


def batches(epoch: int, generator: np.random.Generator) -> Iterator[torch.Tensor]:
    for _ in range(3):
        yield torch.from_numpy(generator.standard_normal((8, 5)).astype(np.float32))


def loss(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Reconstruct from a noisy input: chance in the batches, in the dropout and in the loss."""
    return torch.nn.functional.mse_loss(network(batch + 0.1 * torch.randn_like(batch)), batch)


def fit(folder: Path, seed: int = 0, loss: Loss = loss, **changes: Any) -> tuple[Weights, list[float]]:
    with seeded(seed):
        network = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 5))
    optimizer = torch.optim.AdamW(network.parameters(), lr=changes.pop("lr", 1e-2))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    values = {"epochs": EPOCHS, "seed": seed, "checkpoints": folder, "device": "cpu", "precision": "fp32"}
    losses = train(network, optimizer, batches, loss, Plan(**{**values, **changes}), schedule)
    assert not network.training
    return network.state_dict(), losses


def equal(one: Weights, other: Weights) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def dies_after(steps: int) -> Loss:
    """Return a loss that fails at a step, as a full disk or Ctrl-C would."""
    count = 0

    def dying(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        if count > steps:
            raise KeyboardInterrupt
        return loss(network, batch)

    return dying


def test_equal_seeds_give_equal_weights_and_different_seeds_differ(tmp_path: Path) -> None:
    one, losses = fit(tmp_path / "a")
    torch.rand(7)  # what others draw in this process plays no part
    again, losses_again = fit(tmp_path / "b")
    other, _ = fit(tmp_path / "c", seed=1)
    assert equal(one, again)
    assert losses == losses_again
    assert len(losses) == EPOCHS
    assert losses[-1]["loss"] < losses[0]["loss"]
    assert not equal(one, other)


def test_training_leaves_the_random_numbers_of_others_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(tmp_path / "a")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("steps", [2, 7, 17])  # in the first epoch, in the third, in the last
def test_resumed_training_gives_equal_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    expected, losses = fit(tmp_path / "whole")
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed", loss=dies_after(steps))
    assert (tmp_path / "killed" / "state.pt").is_file()  # also in the midst of the first epoch
    weights, losses_resumed = fit(tmp_path / "killed")
    assert equal(weights, expected)
    assert losses_resumed == losses
    assert not (tmp_path / "killed").exists()


def test_state_is_not_written_more_often_than_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    replacing = loop.replacing

    def counted(path: Path) -> Any:
        written.append(path)
        return replacing(path)

    monkeypatch.setattr(loop, "replacing", counted)
    fit(tmp_path / "seldom")
    assert written == []
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "_SHARE", 0.0)
    fit(tmp_path / "often")
    assert len(written) == EPOCHS * (3 + 1)  # behind each batch, and behind each epoch


def test_writing_a_state_takes_a_small_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, written = [0.0], []
    replacing = loop.replacing

    def slow(path: Path) -> Any:
        written.append(now[0])
        now[0] += 7.0
        return replacing(path)

    def second(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        now[0] += 1.0
        return loss(network, batch)

    monkeypatch.setattr(loop, "replacing", slow)
    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    fit(tmp_path / "state", loss=second, epochs=100)
    assert written[0] == 10.0
    assert np.diff(written) == pytest.approx([7.0 + 20 * 7.0] * (len(written) - 1))
    assert len(written) == 3


@pytest.mark.parametrize(("steps", "unit", "total"), [(1, "epochs", 6), (3, "batches", 18)])
def test_a_long_epoch_moves_the_bar_with_each_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, unit: str, total: int
) -> None:
    monkeypatch.setenv("VADPIPE_PROGRESS", str(tmp_path / "progress.json"))
    fit(tmp_path / "state", steps=steps)
    told = json.loads((tmp_path / "progress.json").read_text())
    assert (told["unit"], told["total"]) == (unit, total)


def test_a_loss_that_is_no_number_names_epoch_and_batch(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    seen: list[int] = []

    def loss(network: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        value: torch.Tensor = network(batch).square().mean()
        return value * float("nan") if len(seen) == 8 else value

    plan = Plan(3, 0, tmp_path / "state", "cpu", "fp32")
    with pytest.raises(UserError, match=r"diverged in epoch 2 of 3, batch 3 of 5: .* NaN or infinite"):
        train(network, optimizer, lambda epoch, generator: torch.ones(5, 4, 2), loss, plan)


def test_parts_of_a_loss_are_told_beside_their_sum(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def loss(network: torch.nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        value = network(batch).square().mean()
        return {"near": value, "far": 2 * value}

    plan = Plan(2, 0, tmp_path / "state", "cpu", "fp32")
    curve = train(network, optimizer, lambda epoch, generator: torch.ones(5, 4, 2), loss, plan)
    assert [list(epoch) for epoch in curve] == [["loss", "near", "far"]] * 2
    assert curve[0]["loss"] == pytest.approx(curve[0]["near"] + curve[0]["far"])
    assert curve[0]["far"] == pytest.approx(2 * curve[0]["near"])


def test_a_curve_is_the_mean_over_seeds_and_has_a_head_without_any(tmp_path: Path) -> None:
    one = [{"loss": 2.0, "near": 1.0}, {"loss": 1.0, "student": 1.0}]
    two = [{"loss": 4.0, "near": 2.0}, {"loss": 3.0, "student": 3.0}]
    write_curve(tmp_path / "deep" / "curve.csv", [one, two])
    assert (tmp_path / "deep" / "curve.csv").read_text().split() == [
        "epoch,loss,near,student",
        "1,3,1.5,",
        "2,2,,2",
    ]
    write_curve(tmp_path / "none.csv", [[], []])
    assert (tmp_path / "none.csv").read_text() == "epoch,loss\n"


def test_kill_9_and_resume_gives_equal_weights(tmp_path: Path) -> None:
    expected, losses = fit(tmp_path / "whole")
    killed = tmp_path / "killed"
    # The same training in a process of its own, each step slowed down so that it is caught half-way.
    script = f"""
import time
from pathlib import Path
from tests import test_training as t
t.loop.SAVE_EVERY_S = 0.0
def slow(network, batch):
    time.sleep(0.3)
    return t.loss(network, batch)
t.fit(Path({str(killed)!r}), loss=slow)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    deadline = time.monotonic() + 60
    while not (killed / "state.pt").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    weights, losses_resumed = fit(killed)
    assert equal(weights, expected)
    assert losses_resumed == losses


def flipped(position: float) -> Callable[[bytes], bytes]:
    """Return what flips a byte at a share of a file's length."""

    def flip(data: bytes) -> bytes:
        damaged = bytearray(data)
        damaged[round(position * (len(data) - 1))] ^= 1
        return bytes(damaged)

    return flip


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "cut off at its end": lambda data: data[:-1],
    "longer": lambda data: data + b"x",
    "no state": lambda _: b"hello" * 100,
    **{f"flipped at {share:.2f}": flipped(share) for share in np.linspace(0, 1, 11)},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_told_and_the_training_begins_anew(
    interrupted: tuple[Path, Weights, list[float]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    state, expected, losses = interrupted
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "state.pt").write_bytes(DAMAGES[damage](state.read_bytes()))
    weights, losses_anew = fit(tmp_path / "killed")
    assert equal(weights, expected)
    assert losses_anew == losses
    assert capsys.readouterr().out == f"{tmp_path / 'killed' / 'state.pt'} is damaged: the training begins anew\n"
    assert not (tmp_path / "killed").exists()


def test_every_byte_of_a_state_is_checked(interrupted: tuple[Path, Weights, list[float]], tmp_path: Path) -> None:
    """Its archive alone has checksums of its parts, none of its own directory."""
    whole = interrupted[0].read_bytes()
    assert loop._whole(interrupted[0])
    for position in range(0, len(whole), 97):
        (tmp_path / "state.pt").write_bytes(flipped(position / (len(whole) - 1))(whole))
        assert not loop._whole(tmp_path / "state.pt")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights, list[float]]:
    """The state of an interrupted training, and weights and losses of one that was not."""
    folder = tmp_path_factory.mktemp("interrupted")
    expected, losses = fit(folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY_S", 0.0)
        with pytest.raises(KeyboardInterrupt):
            fit(folder / "killed", loss=dies_after(7))
    return folder / "killed" / "state.pt", expected, losses


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_is_a_user_error(tmp_path: Path, bad: float) -> None:
    def diverging(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return loss(network, batch) * bad

    with pytest.raises(UserError, match=r"seed 3 diverged in epoch 1 of 6.*learning_rate"):
        fit(tmp_path, seed=3, loss=diverging)
    assert not (tmp_path / "state.pt").exists()


def test_weights_that_are_not_finite_are_a_user_error(tmp_path: Path) -> None:
    # The one step of the last epoch can spoil the weights after a loss that was finite.
    with pytest.raises(UserError, match="NaN or infinite"):
        fit(tmp_path, epochs=1, lr=torch.inf)


def test_precisions_one_after_another_in_one_process(tmp_path: Path) -> None:
    full, _ = fit(tmp_path / "a")
    half, losses = fit(tmp_path / "b", precision="bf16")
    full_again, _ = fit(tmp_path / "c")
    assert equal(full, full_again)
    assert not equal(full, half)
    assert half["0.weight"].dtype == torch.float32
    assert losses[-1]["loss"] < losses[0]["loss"]


def test_fp16_on_a_cpu_is_a_user_error(tmp_path: Path) -> None:
    # accelerate would compute in fp32 without a word.
    with pytest.raises(UserError, match="bf16 or fp32"):
        fit(tmp_path, precision="fp16")


def test_gradients_are_clipped(tmp_path: Path) -> None:
    free, _ = fit(tmp_path / "a")
    clipped, _ = fit(tmp_path / "b", clip_norm=1e-3)
    assert not equal(free, clipped)


def test_training_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit(tmp_path)
    assert capfd.readouterr() == ("", "")
