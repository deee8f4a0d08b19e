"""Several processes that train one network: on this machine on the CPU, as on GPUs by the same code."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import REPO, prepare, run_stage
from vadpipe.errors import UserError
from vadpipe.methods import base
from vadpipe.params import load
from vadpipe.store.seal import check_seal
from vadpipe.training import group
from vadpipe.training.loop import Curve, Plan, seeded, train

Weights = dict[str, torch.Tensor]


def batches(epoch: int, generator: np.random.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for rows in (8, 7, 3):  # two equal shares, two that differ, and too few to share
        one = torch.from_numpy(generator.standard_normal((rows, 5)).astype(np.float32))
        yield one, one.flip(1)


def loss(network: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> dict[str, torch.Tensor]:
    given = network(batch[0])
    return {"near": (given - batch[1]).square().mean(), "small": given.abs().mean()}


def fit(folder: Path) -> tuple[Weights, Curve]:
    with seeded(0):
        network = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 5))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    curve = train(network, optimizer, batches, loss, Plan(4, 0, folder, "cpu", "fp32"))
    return network.state_dict(), curve


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(group.VARIABLE, "2")
    monkeypatch.setenv("PYTHONPATH", str(REPO))


def test_two_processes_give_what_one_gives(tmp_path: Path, two: None) -> None:
    alone, curve = fit(tmp_path / "alone")
    script = f"from pathlib import Path; from tests.test_group import fit; fit(Path({str(tmp_path / 'state')!r}))"
    with group.followed(["-c", script], "cpu"):
        together, shared = fit(tmp_path / "state")
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, atol=1e-6, rtol=1e-5)
    for one, other in zip(curve, shared, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert group.leads()
    assert "WORLD_SIZE" not in os.environ


def test_a_stage_trains_every_seed_with_two_processes(tiny: Path, two: None) -> None:
    run = "tiny_sdmae"
    prepare(load().runs[run].uses)
    done = run_stage("train", run)
    assert done.returncode == 0, done.stderr
    method = base.create(load().run(run), run)
    for seed in base.seeds(method):
        check_seal(tiny / "models" / run / str(seed), "")
        base.load(method, tiny / "models" / run / str(seed), run)
        assert np.isfinite([epoch["loss"] for epoch in method.losses]).all()
    assert not (tiny / ".checkpoints" / run).exists()


def test_a_rank_that_a_cluster_gives_is_no_reason_to_write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert group.leads()


def test_a_process_that_fails_is_named_with_its_reason(two: None, tmp_path: Path) -> None:
    script = "import sys; sys.exit('there is no room')"
    with pytest.raises(UserError, match="process 2 of 2: there is no room"), group.followed(["-c", script], "cpu"):
        time.sleep(1)
        raise RuntimeError("connection closed by peer")
    # What the process that leads says itself counts more, and its defects stay defects.
    with pytest.raises(UserError, match="my own"), group.followed(["-c", script], "cpu"):
        raise UserError("my own")
    with pytest.raises(ZeroDivisionError), group.followed(["-c", ""], "cpu"):
        raise ZeroDivisionError


def test_processes_end_with_the_one_that_leads(two: None, tmp_path: Path) -> None:
    follower = (
        "import os, pathlib, time; from vadpipe.parallel import end_with_parent; end_with_parent();"
        f"pathlib.Path({str(tmp_path / 'there')!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    leader = (
        "import os, pathlib, time; from vadpipe.training import group\n"
        f"with group.followed(['-c', {follower!r}], 'cpu'):\n"
        f"    group.wait_for(pathlib.Path({str(tmp_path / 'there')!r})); time.sleep(0.5); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", leader], check=False, timeout=60).returncode == -9
    number = int((tmp_path / "there").read_text())
    deadline = time.monotonic() + 10
    while Path("/proc", str(number)).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path("/proc", str(number)).exists()


@pytest.mark.parametrize("wanted", ["0", "two", "-1", "1.5"])
def test_a_number_of_processes_that_is_none(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv(group.VARIABLE, wanted)
    with pytest.raises(UserError, match=f"VADPIPE_PROCESSES is '{wanted}', which is no number"):
        group.processes()


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv(group.VARIABLE, "4")
    with pytest.raises(UserError, match=r"VADPIPE_PROCESSES is 4, but .* 3; set it to 3"), group.followed([], "auto"):
        pass
    assert group._cards("cuda", 3) == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    assert group._cards("cuda", 2) == ["4", "6", "7"]


def test_a_stage_imports_no_pytorch_for_methods_without_a_network() -> None:
    said = "import sys, stages.train, stages.score; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True).stdout == "False\n"
