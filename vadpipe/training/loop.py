"""The one training loop: every network method trains with it, and goes on with equal weights after a kill."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import find_batch_size, recursively_apply, send_to_device
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from vadpipe import progress
from vadpipe.errors import UserError
from vadpipe.nn.device import choose_device
from vadpipe.store.atomic import replacing
from vadpipe.training.group import leads

# A step may take milliseconds and a state gigabytes: the state is written at most this often, and takes little time.
SAVE_EVERY_S = 10.0
_SHARE = 20.0  # seconds of work for each second of writing

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
        steps: batches an epoch, for the progress of long ones; 1 = an epoch is short.
        ended: is told the number of each epoch that ended, from 0; after a kill, of some once more.
    """

    epochs: int
    seed: int
    checkpoints: Path
    device: str
    precision: str
    clip_norm: float | None = None
    done: tuple[dict[str, float], ...] = ()
    steps: int = 1
    ended: Callable[[int], None] | None = None


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
    number of cores is the same (sums are split among them). Of several processes (`group`), each takes its share
    of every batch; their gradients are averaged.

    Raises:
        UserError: the loss or a weight became NaN or infinite, the device is not there, or it lacks the precision.
    """
    accelerator = _accelerator(plan)
    wrapped, optimizer = accelerator.prepare(network, optimizer)
    network = accelerator.unwrap_model(wrapped, keep_fp32_wrapper=True)
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule, "scaler": accelerator.scaler}
    state = _State(plan.checkpoints / "state.pt", parts, accelerator.num_processes == 1)
    state.losses = list(plan.done)
    state.resume(accelerator.device)
    unit = "epochs" if plan.steps == 1 else "batches"
    done = len(state.losses) * plan.steps + len(state.steps)
    with progress.bar(plan.epochs * plan.steps, unit, f"train seed {plan.seed}", done=done) as bar:
        for epoch in range(len(state.losses), plan.epochs):
            wrapped.train()
            with seeded(plan.seed, 1 + epoch) as generator:
                # Batches are drawn alike in all processes, dropout and what else a loss draws are not.
                torch.manual_seed(torch.initial_seed() + accelerator.process_index)
                for batch in state.rest(batches(epoch, generator)):
                    state.took(_step(accelerator, wrapped, optimizer, batch, loss, plan))
                    if plan.steps > 1:
                        bar.update()
            # Asked for once an epoch only: on a GPU, every look at a value waits for all that is queued.
            values = accelerator.reduce(torch.stack(state.steps), "mean").T.tolist()
            steps = dict(zip(state.names, values, strict=True))
            _check_finite(network, steps["loss"], epoch, plan)
            if schedule is not None:
                schedule.step()
            if plan.ended is not None:
                plan.ended(epoch)
            state.ended({name: float(np.mean(values)) for name, values in steps.items()})
            bar.set_postfix(loss=f"{state.losses[-1]['loss']:.4g}", refresh=False)
            if plan.steps == 1:
                bar.update()
    accelerator.unwrap_model(network, keep_fp32_wrapper=False).eval()
    if leads():
        shutil.rmtree(plan.checkpoints, ignore_errors=True)
    return state.losses


def _accelerator(plan: Plan) -> Accelerator:
    device = choose_device(plan.device)
    if plan.precision == "fp16" and device.type == "cpu":
        raise UserError("params.yaml: train.precision: fp16 needs a GPU; use bf16 or fp32 on a CPU")
    # accelerate keeps one state a process and would refuse a second training of another precision.
    AcceleratorState._reset_state(reset_partial_state=True)
    precision = "no" if plan.precision == "fp32" else plan.precision
    return Accelerator(cpu=device.type == "cpu", mixed_precision=precision)


def _step(
    accelerator: Accelerator, network: nn.Module, optimizer: Optimizer, batch: Any, loss: Loss, plan: Plan
) -> dict[str, torch.Tensor]:
    """Take one step and return the loss and its parts."""
    share, counts = _share(batch, accelerator)
    with accelerator.autocast():
        found = loss(network, send_to_device(share, accelerator.device, non_blocking=True))
    parts = found if isinstance(found, dict) else {}
    value = torch.stack(list(parts.values())).sum() if isinstance(found, dict) else found
    optimizer.zero_grad()
    accelerator.backward(value * counts)
    if plan.clip_norm is not None:
        accelerator.clip_grad_norm_(network.parameters(), plan.clip_norm)
    optimizer.step()
    return {name: part.detach().float() * counts for name, part in {"loss": value, **parts}.items()}


def _share(batch: Any, accelerator: Accelerator) -> tuple[Any, float]:
    """Return what of a batch this process takes, and how much more than 1 it counts in the mean over processes.

    A batch too small to give each process two rows, of which fewer have no deviation to normalise by, is taken whole.
    """
    processes = accelerator.num_processes
    if processes == 1 or (rows := find_batch_size(batch)) < 2 * processes:
        return batch, 1.0
    mine = slice(accelerator.process_index, None, processes)
    return recursively_apply(itemgetter(mine), batch), len(range(rows)[mine]) * processes / rows


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


class _State:
    """What a training needs to go on, in a file that is written now and then.

    Attributes:
        losses: of the epochs that ended.
        names: of the values of a step: the loss and its parts.
        steps: the values of the batches of the epoch on its way.
    """

    def __init__(self, path: Path, parts: dict[str, Any], within: bool) -> None:
        self.path = path
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.within = within
        self.losses: Curve = []
        self.names: list[str] = []
        self.steps: list[torch.Tensor] = []
        self.chance: list[torch.Tensor] = []
        self.due = time.monotonic() + SAVE_EVERY_S

    def rest(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches of an epoch that are still to take, with the random numbers as they were."""
        rest = iter(batches)
        for _ in self.steps:
            next(rest)
        if self.chance:
            _set_chance(self.chance)
            self.chance = []
        return rest

    def took(self, values: dict[str, torch.Tensor]) -> None:
        """Note the values of a step."""
        self.names = list(values)
        self.steps.append(torch.stack(list(values.values())))
        if self.within:
            self._save()

    def ended(self, means: dict[str, float]) -> None:
        """Note the means of an epoch."""
        self.losses.append(means)
        self.steps = []
        self._save()

    def _save(self) -> None:
        if not leads() or time.monotonic() < self.due:
            return
        began = time.monotonic()
        states = {name: part.state_dict() for name, part in self.parts.items()}
        steps = torch.stack(self.steps) if self.steps else torch.empty(0)  # one tensor: thousands are slow to write
        known = {"losses": self.losses, "names": self.names, "steps": steps, "chance": _chance()}
        with replacing(self.path) as beside:
            torch.save({**states, **known}, beside)
            with beside.open("r+b") as file:
                digest = hashlib.file_digest(file, "sha256").digest()
                file.write(digest)
        now = time.monotonic()
        self.due = now + max(SAVE_EVERY_S, _SHARE * (now - began))

    def resume(self, device: torch.device) -> None:
        """Load the state of an interrupted training, if there is one."""
        if not self.path.is_file():
            return
        if not _whole(self.path):
            print(f"{self.path} is damaged: the training begins anew")
            return
        states = torch.load(self.path, map_location=device, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(states[name])
        self.losses, self.names, self.steps = states["losses"], states["names"], list(states["steps"])
        self.chance = states["chance"] if self.steps else []


def _chance() -> list[torch.Tensor]:
    """Return the states of the random numbers of CPU and GPUs."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]


def _set_chance(states: list[torch.Tensor]) -> None:
    torch.set_rng_state(states[0].cpu())
    torch.cuda.set_rng_state_all([state.cpu() for state in states[1:]])


def _whole(path: Path) -> bool:
    """Say whether a saved state, an archive with its sha256 behind it, is as it was written."""
    rest = path.stat().st_size - hashlib.sha256().digest_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while rest > 0 and (part := file.read(min(rest, 2**20))):
            digest.update(part)
            rest -= len(part)
        return file.read() == digest.digest()
