"""Which device computes, in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from vadpipe.errors import UserError
from vadpipe.machine import keep_freed_memory
from vadpipe.parallel import cores

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device for `auto`, `cuda`, `mps` or `cpu`, and give PyTorch this process's cores and memory.

    Raises:
        UserError: the device asked for is not there.
    """
    torch.set_num_threads(cores())
    keep_freed_memory()
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, available in there.items() if available)
    if not there[name]:
        raise UserError(f"params.yaml: the device '{name}' is not there on this machine; use `device: auto` or cpu")
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Return the context in which a network computes in `fp32`, `bf16` or `fp16`."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, _DTYPES[precision])
