"""Processes that train one network together: one leads and writes, the others follow it; each has a GPU of its own.

Every process runs the same training and takes its share of each batch (`loop`); gradients are averaged by accelerate.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from vadpipe.errors import UserError
from vadpipe.parallel import cores
from vadpipe.progress import VARIABLE as PROGRESS

VARIABLE = "VADPIPE_PROCESSES"
_RANK = "VADPIPE_RANK"  # not RANK alone, which clusters set on their own

_POLL_S = 0.1
_PATIENCE_S = 10.0  # for a process that has nothing left to do, or that failed a moment after this one


def processes() -> int:
    """Return how many processes are to train a network together: `VADPIPE_PROCESSES`, or one.

    Raises:
        UserError: the variable is no number above zero.
    """
    wanted = os.environ.get(VARIABLE, "") or "1"
    if not (wanted.isdecimal() and int(wanted)):
        raise UserError(f"the variable {VARIABLE} is '{wanted}', which is no number of processes; set it to 1 or more")
    return int(wanted)


def leads() -> bool:
    """Say whether this process leads: it alone writes."""
    return os.environ.get(_RANK, "0") == "0"


def wait_for(path: Path) -> None:
    """Wait until the process that leads has written `path`."""
    while not path.exists():
        time.sleep(_POLL_S)


@contextmanager
def followed(command: Sequence[str], device: str) -> Iterator[None]:
    """Let as many further processes as are asked for run `command`, which trains what the body trains.

    Args:
        command: what follows `python` on the command line.
        device: on which the network is trained, as in params.yaml.

    Raises:
        UserError: there are fewer GPUs than processes, or a process failed.
    """
    count = processes()
    if count == 1:
        yield
        return
    # Here, because the stage asks for methods without a network too, and PyTorch takes seconds to import.
    from torch import distributed

    cards = _cards(device, count)
    share = str(max(1, cores() // count))
    group = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "LOCAL_RANK": "0",  # each sees its own GPU only, or takes the first that it sees
        "VADPIPE_CORES": share,
        "OMP_NUM_THREADS": share,
    }
    with ExitStack() as stack:
        followers: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        for rank in range(1, count):
            told: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())
            own = {_RANK: str(rank), "RANK": str(rank), "CUDA_VISIBLE_DEVICES": cards[rank]}
            environment = {name: value for name, value in os.environ.items() if name != PROGRESS} | group | own
            process = subprocess.Popen(
                [sys.executable, *command], env=environment, stdout=subprocess.DEVNULL, stderr=told
            )
            stack.callback(_end, process)
            followers.append((process, told))
        with _environment(group | {_RANK: "0", "RANK": "0"}):
            try:
                yield
            except UserError:
                raise
            except Exception as error:
                for rank, (process, told) in enumerate(followers, 1):
                    if (reason := _failure(process, told)) is not None:
                        raise UserError(f"process {rank + 1} of {count}: {reason}") from error
                raise
            finally:
                if distributed.is_initialized():
                    distributed.destroy_process_group()
        for process, _ in followers:
            _wait(process)  # it ends by itself


def _cards(device: str, count: int) -> list[str]:
    """Return which GPU each process is to see."""
    import torch

    from vadpipe.nn.device import choose_device

    if choose_device(device).type == "cpu":
        return [""] * count
    there = torch.cuda.device_count()
    if there < count:
        raise UserError(f"the variable {VARIABLE} is {count}, but the GPUs here are {there}; set it to {there or 1}")
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",") if named else [str(number) for number in range(there)]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        return None


def _failure(process: subprocess.Popen[bytes], told: IO[bytes]) -> str | None:
    """Return what a process that failed said last, None if it did not fail."""
    if _wait(process) in (None, 0):
        return None
    told.seek(0)
    lines = told.read().decode(errors="replace").split("\n")
    said = [line for line in lines if line.strip()]
    return said[-1] if said else f"it ended with exit code {process.returncode}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    if _wait(process) is None:
        process.kill()
        process.wait()
