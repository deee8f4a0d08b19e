"""The one training loop: every network method trains with it, and goes on with equal weights after a kill."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import send_to_device
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vadpipe import progress
from vadpipe.errors import UserError
from vadpipe.store.atomic import replacing
from vadpipe.training.device import choose_device

# An epoch may take milliseconds and a state gigabytes: the state is written at most this often.
SAVE_EVERY_S = 10.0

# (epoch, generator) -> the batches of that epoch: tensors, or tuples or dicts of them.
Batches = Callable[[int, np.random.Generator], Iterable[Any]]
# (network, batch) -> the mean loss of the batch, a scalar, or its parts, whose sum is the loss.
Loss = Callable[[nn.Module, Any], torch.Tensor | dict[str, torch.Tensor]]
# The mean loss of each epoch, `loss`, and of each of its parts.
Curve = list[dict[str, float]]


@dataclass(frozen=True)
class Plan:
    """How a network is trained.

    Attributes:
        epochs: passes over the data.
        seed: all that an epoch draws, in batches and in the loss, comes from (seed, number of the epoch).
        checkpoints: folder of the state of an interrupted training; gone when training is done.
        device: `auto`, `cuda`, `mps` or `cpu`.
        precision: `fp32`, `bf16` or `fp16`; weights stay fp32.
        clip_norm: largest norm of the gradient, None = any.
        done: the epochs that network and optimizer have behind them already.
    """

    epochs: int
    seed: int
    checkpoints: Path
    device: str
    precision: str
    clip_norm: float | None = None
    done: tuple[dict[str, float], ...] = ()


@contextmanager
def seeded(*numbers: int) -> Iterator[np.random.Generator]:
    """Seed PyTorch from some numbers for the body alone, and give a NumPy generator of the same seed."""
    sequence = np.random.SeedSequence(numbers)
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        yield np.random.default_rng(sequence)


def train(
    network: nn.Module,
    optimizer: Optimizer,
    batches: Batches,
    loss: Loss,
    plan: Plan,
    schedule: LRScheduler | None = None,
) -> Curve:
    """Train `network` in place and return the mean loss of each epoch.

    The network ends in evaluation mode on the device of the plan; `schedule` steps once an epoch. On a CPU,
    equal seeds give equal weights, bit for bit, whether the training was interrupted or not, as long as the
    number of cores is the same (sums are split among them).

    Raises:
        UserError: the loss or a weight became NaN or infinite, the device is not there, or it lacks the precision.
    """
    accelerator = _accelerator(plan)
    network, optimizer = accelerator.prepare(network, optimizer)
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule, "scaler": accelerator.scaler}
    state = plan.checkpoints / "state.pt"
    losses = _resume(parts, state, accelerator.device) or list(plan.done)
    saved = time.monotonic()
    with progress.bar(plan.epochs, "epochs", f"train seed {plan.seed}", done=len(losses)) as bar:
        for epoch in range(len(losses), plan.epochs):
            network.train()
            with seeded(plan.seed, 1 + epoch) as generator:
                steps = _epoch(accelerator, network, optimizer, batches(epoch, generator), loss, plan)
            _check_finite(network, steps["loss"], epoch, plan)
            losses.append({name: float(np.mean(values)) for name, values in steps.items()})
            if schedule is not None:
                schedule.step()
            bar.set_postfix(loss=f"{losses[-1]['loss']:.4g}", refresh=False)
            bar.update()
            if time.monotonic() - saved >= SAVE_EVERY_S:
                _save(parts, losses, state)
                saved = time.monotonic()
    accelerator.unwrap_model(network, keep_fp32_wrapper=False).eval()
    shutil.rmtree(plan.checkpoints, ignore_errors=True)
    return losses


def _accelerator(plan: Plan) -> Accelerator:
    device = choose_device(plan.device)
    if plan.precision == "fp16" and device.type == "cpu":
        raise UserError("params.yaml: train.precision: fp16 needs a GPU; use bf16 or fp32 on a CPU")
    # accelerate keeps one state a process and would refuse a second training of another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    precision = "no" if plan.precision == "fp32" else plan.precision
    return Accelerator(cpu=device.type == "cpu", mixed_precision=precision)


def _epoch(
    accelerator: Accelerator,
    network: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[Any],
    loss: Loss,
    plan: Plan,
) -> dict[str, list[float]]:
    """Take one step a batch and return the losses of all batches, and their parts."""
    steps: list[torch.Tensor] = []
    names = ["loss"]
    for batch in batches:
        with accelerator.autocast():
            found = loss(network, send_to_device(batch, accelerator.device, non_blocking=True))
        parts = found if isinstance(found, dict) else {}
        value = torch.stack(list(parts.values())).sum() if isinstance(found, dict) else found
        names = ["loss", *parts]
        optimizer.zero_grad()
        accelerator.backward(value)
        if plan.clip_norm is not None:
            accelerator.clip_grad_norm_(network.parameters(), plan.clip_norm)
        optimizer.step()
        steps.append(torch.stack([part.detach().float() for part in (value, *parts.values())]))
    # Asked for once an epoch only: on a GPU, every look at a value waits for all that is queued.
    return dict(zip(names, torch.stack(steps).T.tolist(), strict=True))


def _check_finite(network: nn.Module, losses: list[float], epoch: int, plan: Plan) -> None:
    finite = np.isfinite(losses)
    if finite.all() and all(bool(value.isfinite().all()) for value in network.state_dict().values()):
        return
    # What the last step did to the weights, no loss has seen.
    batch = len(losses) if finite.all() else int(finite.argmin()) + 1
    raise UserError(
        f"the training of seed {plan.seed} diverged in epoch {epoch + 1} of {plan.epochs}, batch {batch} of "
        f"{len(losses)}: the loss or a weight is NaN or infinite; lower train.learning_rate, or use "
        "train.precision: fp32"
    )


def _save(parts: dict[str, Any], losses: Curve, path: Path) -> None:
    states = {name: part.state_dict() for name, part in parts.items() if part is not None}
    with replacing(path) as beside:
        torch.save({**states, "losses": losses}, beside)
        with beside.open("r+b") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            file.write(digest)


def _whole(path: Path) -> bool:
    """Say whether a saved state, an archive with its sha256 behind it, is as it was written."""
    rest = path.stat().st_size - hashlib.sha256().digest_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while rest > 0 and (part := file.read(min(rest, 2**20))):
            digest.update(part)
            rest -= len(part)
        return file.read() == digest.digest()


def _resume(parts: dict[str, Any], path: Path, device: torch.device) -> Curve:
    """Load the state of an interrupted training, if there is one, and return its losses so far."""
    if not path.is_file():
        return []
    if not _whole(path):
        print(f"{path} is damaged: the training begins anew")
        return []
    states = torch.load(path, map_location=device, weights_only=True)
    for name, part in parts.items():
        if part is not None:
            part.load_state_dict(states[name])
    return list(states["losses"])
