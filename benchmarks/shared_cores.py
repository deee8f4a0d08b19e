"""A network on cores that others use too: how much slower is it, with threads that sleep or spin while they wait?

    python benchmarks/shared_cores.py

Each figure is the median of several rounds inside one run. With as many busy loops as there are cores, half of each
core is left, so a factor of 2 is what is to be had. docs/performance.md shows what was measured.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

ROUNDS = 3
BATCHES = 12
WORK = f"""
import time
import vadpipe
import torch, timm
from vadpipe.nn.device import choose_device
choose_device("cpu")
network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().to(memory_format=torch.channels_last)
images = torch.randn(8, 3, 224, 224).contiguous(memory_format=torch.channels_last)
with torch.inference_mode():
    network(images)
    start = time.perf_counter()
    for _ in range({BATCHES}):
        network(images)
print(time.perf_counter() - start)
"""

# Ends with its parent, however that ends.
LOOP = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"


def seconds(policy: str) -> float:
    environment = {**os.environ, "OMP_WAIT_POLICY": policy}
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True, env=environment)
    return float(done.stdout)


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    alone = statistics.median(seconds("PASSIVE") for _ in range(ROUNDS))
    print(f"{cores} cores, {BATCHES} batches of 8 images: {alone:.2f} s alone")
    loops = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(cores)]
    try:
        time.sleep(0.5)
        for policy in ("PASSIVE", "ACTIVE"):
            busy = statistics.median(seconds(policy) for _ in range(ROUNDS))
            print(
                f"beside {cores} busy loops, waiting {policy.lower()}: {busy:.2f} s, {busy / alone:.1f} times as long"
            )
    finally:
        for loop in loops:
            loop.kill()


if __name__ == "__main__":
    main()
