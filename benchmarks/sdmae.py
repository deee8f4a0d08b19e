"""The networks of `sdmae`, layer by layer and as they score: frames a second, operations, peak memory.

    python benchmarks/sdmae.py FORM PATCH BATCH     one form: plain | kept | fast; called by benchmarks/run.py
    python benchmarks/sdmae.py gpu                  on a GPU: bf16 and compiled, batches of 1, 32 and 128

`plain` is PyTorch as it comes, `kept` the same with freed memory kept (`vadpipe.machine`), `fast` what scores: fused
attention, folded batch norms, no patch embedded that is hidden.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests import plain_sdmae
from vadpipe.machine import keep_freed_memory
from vadpipe.nn.cvt import fold_norms
from vadpipe.nn.masked_autoencoder import Layout, Student, Teacher, draw_masks
from vadpipe.parallel import cores

SECONDS = 6.0
CAMERA_FPS = 25


def networks(patch: int) -> tuple[Teacher, Student, Layout]:
    torch.manual_seed(0)
    layout = Layout(9, 20 * patch, 40 * patch, patch, 4, 400, "pointwise", True)
    return Teacher(layout).eval(), Student(layout).eval(), layout


def measure(form: str, patch: int, batch: int) -> dict[str, float]:
    torch.set_num_threads(cores())
    if form != "plain":
        keep_freed_memory()
    teacher, student, layout = networks(patch)
    images = torch.rand(batch, 9, layout.height, layout.width) * 2 - 1
    masks = draw_masks(torch.rand(batch, 800), layout.kept, "shuffled")
    if form == "fast":
        fold_norms(teacher)
        fold_norms(student)

    def work() -> torch.Tensor:
        with torch.inference_mode():
            if form == "fast":
                given = teacher(images, masks)
                return student(given.trunk)
            return plain_sdmae.forward(teacher, student, images, masks)[1]

    with FlopCounterMode(display=False) as counter:
        found = work()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        work()
        count += batch
    return {
        "fps": count / (time.perf_counter() - start),
        "gmac": counter.get_total_flops() / 2e9 / batch,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "sum": float(found.double().abs().mean()),
    }


def gpu() -> None:
    """Print frames a second of 320x640 and 80x160, and how many cameras of 25 frames a second they carry."""
    device = torch.device("cuda")
    for patch in (16, 4):
        for batch in (1, 32, 128):
            teacher, student, layout = networks(patch)
            for network in (teacher, student):
                fold_norms(network)
                network.to(device)
            both = torch.compile(lambda images, masks, t=teacher, s=student: s(t(images, masks).trunk))
            images = torch.rand(batch, 9, layout.height, layout.width, device=device) * 2 - 1
            masks = draw_masks(torch.rand(batch, 800, device=device), layout.kept, "shuffled")
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
                for _ in range(5):
                    both(images, masks)
                torch.cuda.synchronize()
                start, count = time.perf_counter(), 0
                while time.perf_counter() - start < SECONDS:
                    both(images, masks)
                    torch.cuda.synchronize()
                    count += batch
            fps = count / (time.perf_counter() - start)
            print(f"patch {patch}, batch {batch}: {fps:,.0f} frames/s, {fps / CAMERA_FPS:,.0f} cameras", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["gpu"]:
        gpu()
    else:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
