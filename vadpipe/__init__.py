"""From raw video to an honest table of anomaly-detection results, orchestrated with DVC."""

import os

# Read by the OpenMP of PyTorch and faiss when they are loaded: threads that wait sleep. On cores that others use too,
# threads that spin at each barrier slow a network down many times (benchmarks/shared_cores.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if os.environ.get("VADPIPE_CORES", "").isdecimal():
    os.environ.setdefault("OMP_NUM_THREADS", os.environ["VADPIPE_CORES"])
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", os.environ["VADPIPE_CORES"])

__version__ = "0.1.0"
