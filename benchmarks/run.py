"""Speed and memory, each as a ratio inside one run, so that a slow or busy machine does not matter much.

    make bench                          all of them
    python benchmarks/run.py flow       one

The bounds are those that the project promises; docs/performance.md shows what was measured where.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ruamel.yaml import YAML

from vadpipe import starter
from vadpipe.methods import base

REPO = Path(__file__).resolve().parent.parent
STAGES = REPO / "stages"
ROUNDS = 5
ON_MAPS = ("spade", "padim", "patchcore", "reverse_distillation")
# Frames of a folder, taken as they are.
INGEST: dict[str, Any] = {
    **dict.fromkeys(("objects", "labels", "rate", "end", "side", "quality")),
    **{"reader": "folder", "fps": 10.0, "every": 1, "start": 0.0},
}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def paired(first: Callable[[], object], second: Callable[[], object]) -> tuple[float, float, float]:
    """Run A B A B ... and return the median seconds of both and the median of the ratios A / B of neighbours."""
    first(), second()  # warm up
    return summed_up([(seconds(first), seconds(second)) for _ in range(ROUNDS)])


def summed_up(pairs: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Return the medians of both and the median of their ratios."""
    a, b = zip(*pairs, strict=True)
    return statistics.median(a), statistics.median(b), statistics.median(x / y for x, y in pairs)


def jpeg_folder(folder: Path, frames: int, height: int = 240, width: int = 360) -> None:
    """Write frames like those of a camera: a textured ground, noise, a few things that move."""
    rng = np.random.default_rng(0)
    ground = cv2.GaussianBlur(rng.integers(0, 255, (height, width)).astype(np.uint8), (0, 0), 3)
    folder.mkdir(parents=True)
    for index in range(frames):
        frame = ground.copy()
        for walker in range(6):
            x = (index * (1 + walker % 3) + walker * 60) % width
            frame[60 + walker * 20 :][:30, x : x + 12] = 40 + walker * 30
        noisy = np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index:05d}.jpg"), noisy, [cv2.IMWRITE_JPEG_QUALITY, 95])


def workspace(folder: Path, lengths: dict[str, int]) -> None:
    """Write a data set `bench` with clips of given lengths and its params.yaml."""
    for clip, length in lengths.items():
        jpeg_folder(folder / "data/raw/bench" / clip, length)
    params = YAML(typ="safe").load(REPO / "params.yaml")
    params["generate"] = {}
    params["ingest"] = {"bench": INGEST}
    params["flow"] = {"bench": {"algorithm": "dis", "preset": "medium", "scale": 1.0}}
    params["inpaint"] = params["pool_mask"] = params["composite"] = {}
    params["features"] = {"bench": {**next(iter(params["features"].values())), "uses": "data/clips/bench"}}
    params["runs"] = {}
    for method in params["methods"]:
        cls = base.get(method)
        if cls.needs != "pools" and not cls.cells and cls.quick:
            uses = starter.uses(cls.needs, "bench", "bench")
            params["runs"][f"bench_{method}"] = starter.run("bench", method, uses)
    params["runs"]["bench_feature_lstm"]["train"] = {"seeds": [0], "epochs": 1}
    YAML().dump(params, folder / "params.yaml")


def stage(name: str, key: str) -> None:
    subprocess.run([sys.executable, str(STAGES / f"{name}.py"), key], check=True, stdout=subprocess.DEVNULL)


def bench_features() -> str:
    """Decoding must not slow the network down."""
    import torch

    from vadpipe import params
    from vadpipe.features.extract import vectors
    from vadpipe.nn.backbones import Backbone
    from vadpipe.nn.device import choose_device
    from vadpipe.store import open_clips

    workspace(Path(), {"train/a": 32, "test/b": 256})
    stage("ingest", "bench")
    values = params.load().features["bench"]
    device = choose_device("cpu")
    backbone = Backbone(values).to(memory_format=torch.channels_last)
    clip = next(clip for clip in open_clips(Path("data/clips/bench")) if clip.name == "b")
    batch = torch.zeros(values.batch, values.height, values.width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(clip.length // values.batch):
                backbone(batch)

    alone, whole, ratio = paired(forward, lambda: list(vectors(clip, backbone, values, device)))
    rates = f"{clip.length / whole:.0f} of {clip.length / alone:.0f} frames/s"
    return f"features with decoding / forward only: {ratio:.2f} (at least 0.9); {rates}"


def bench_kept() -> str:
    """A network whose process keeps the memory that its layers free, against one that hands it back to the system."""
    code = (
        "import sys, time, torch; from vadpipe import params; from vadpipe.nn.backbones import Backbone\n"
        "from vadpipe.machine import keep_freed_memory\n"
        "if sys.argv[1] == 'kept': keep_freed_memory()\n"
        "backbone = Backbone(params.load().features['campus_lite0']).to(memory_format=torch.channels_last)\n"
        "batch = torch.zeros(8, 224, 224, 3, dtype=torch.uint8).permute(0, 3, 1, 2)\n"
        "with torch.inference_mode():\n"
        "    backbone(batch); start = time.perf_counter()\n"
        "    for _ in range(16): backbone(batch)\n"
        "print(time.perf_counter() - start)"
    )

    def took(how: str) -> float:
        command = [sys.executable, "-c", code, how]
        return float(subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout)

    back, kept, ratio = summed_up([(took("handed back"), took("kept")) for _ in range(ROUNDS)])
    rates = f"{128 / kept:.0f} against {128 / back:.0f} frames/s"
    return f"features with freed memory kept / handed back: {ratio:.2f}; {rates}"


def bench_ingest() -> str:
    """Judging and storing frames must not cost much more than decoding them, which tells damaged ones."""
    from vadpipe.datasets.folder import scan
    from vadpipe.parallel import ordered_map
    from vadpipe.params import Ingest
    from vadpipe.prepare.ingest import write_clips

    workspace(Path(), {"train/a": 3000, "test/b": 1000})
    source = Path("data/raw/bench")
    files = sorted(source.rglob("*.jpg"))
    stores = Path("clips"), Path("labels")

    def ingest() -> None:
        for store in stores:
            shutil.rmtree(store, ignore_errors=True)
            store.mkdir()
        write_clips("bench", Ingest(**INGEST), scan(source), *stores)

    def decode() -> None:
        for _ in ordered_map(lambda file: cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_UNCHANGED).shape, files):
            pass

    decoded, ingested, ratio = paired(decode, ingest)
    rates = f"{4000 / ingested:.0f} against {4000 / decoded:.0f} frames/s"
    return f"ingest of JPEG folders / decoding the files with OpenCV: {ratio:.2f} (at least 0.5); {rates}"


def bench_checksums() -> str:
    """Reading a clip store with all its checksums, against the same Parquet file read without."""
    import pyarrow.parquet as pq

    from vadpipe.store import open_clips

    workspace(Path(), {"train/a": 3000, "test/b": 2})
    stage("ingest", "bench")
    store = Path("data/clips/bench")

    def verified() -> None:
        for clip in open_clips(store):
            for _ in clip.encoded():
                pass

    def plain() -> None:
        for path in sorted(store.rglob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches(batch_size=32, columns=["image"]):
                batch.column(0).to_pylist()

    without, checked, ratio = paired(plain, verified)
    rates = f"{3000 / checked:.0f} against {3000 / without:.0f} frames/s"
    return f"reading a clip store with checksums / without: {ratio:.2f}; {rates}"


def bench_seal() -> str:
    """The checksum of a model, against reading its file."""
    from vadpipe.store.seal import check_seal, seal

    model = Path("model")
    model.mkdir()
    (model / "network.safetensors").write_bytes(np.random.default_rng(0).bytes(100_000_000))
    seal(model)

    read, checked, ratio = paired((model / "network.safetensors").read_bytes, lambda: check_seal(model, "train it"))
    return f"checking a model of 100 MB / reading it: {ratio:.2f}; {checked:.2f} s against {read:.2f} s"


def bench_flow() -> str:
    """Flow uses every core."""
    from vadpipe import params
    from vadpipe.prepare.flow import write_flow

    workspace(Path(), {f"{split}/{clip}": 180 for split, clip in (("train", "a"), ("train", "b"), ("test", "c"))})
    stage("ingest", "bench")
    values = params.load().flow["bench"]
    clips = Path("data/clips/bench")
    return on_cores(lambda: write_flow(values, clips, Path("data/flow/bench")), "flow", clips)


def on_cores(write: Callable[[], None], name: str, clips: Path) -> str:
    """Return how much faster a stage is on two cores than on one, on the images of a clip store."""
    from vadpipe.store import open_clips

    images = sum(clip.length for clip in open_clips(clips))
    available = sorted(os.sched_getaffinity(0))

    def on(cores: int) -> None:
        # Bound to the cores, threads for decoding and writing included.
        os.sched_setaffinity(0, available[:cores])
        with contextlib.redirect_stdout(None):
            write()

    one, two, ratio = paired(lambda: on(1), lambda: on(2))
    rates = f"{images / two:.0f} against {images / one:.0f} images/s"
    return f"{name} on two cores / on one: {ratio:.2f} (at least 1.8); {rates}"


def pool_workspace() -> None:
    """Write photographs of `pool_demo`, as many as the IST report trains on, and their clips.

    The default set takes a stage a second, of which the preview and the start of processes are a part that counts.
    """
    params = YAML(typ="safe").load(REPO / "params.yaml")
    params["generate"]["pool_demo"] |= {"train": 308, "train_empty": 0, "test": 6, "test_empty": 3}
    YAML().dump(params, Path("params.yaml"))
    stage("generate", "pool_demo")
    stage("ingest", "pool_demo")


def bench_inpaint() -> str:
    """Inpainting uses every core."""
    from vadpipe import params
    from vadpipe.prepare.inpaint import write_inpainted

    pool_workspace()
    values = params.load().inpaint["pool_demo"]
    clips, truth = Path("data/clips/pool_demo"), Path("data/labels/pool_demo")
    return on_cores(lambda: write_inpainted(values, clips, truth, Path("out")), "inpaint", clips)


def bench_pool_mask() -> str:
    """The search for pools uses every core."""
    from vadpipe import params
    from vadpipe.prepare.pool_mask import write_pools

    pool_workspace()
    stage("inpaint", "pool_demo")
    values = params.load().pool_mask["pool_demo"]
    inpainted = Path("data/inpainted/pool_demo")
    return on_cores(lambda: write_pools(values, inpainted, Path("out")), "pool_mask", inpainted)


def peak(command: list[str]) -> float:
    """Return the peak memory of a command in MiB."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    answer = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return int(answer.stdout.split()[-1]) / unit


def bench_memory() -> str:
    """Memory does not grow with the length of a clip."""
    peaks: dict[str, list[float]] = {}
    for length in (300, 3000):
        folder = Path(str(length))
        folder.mkdir()
        os.chdir(folder)
        workspace(Path(), {"train/a": 200, "test/b": length})
        runs = YAML(typ="safe").load(Path("params.yaml"))["runs"]
        for name, key in (("ingest", "bench"), ("flow", "bench"), ("features", "bench")):
            peaks.setdefault(name, []).append(peak([sys.executable, str(STAGES / f"{name}.py"), key]))
        for run in runs:
            stage("train", run)
            peaks.setdefault(f"score {run}", []).append(peak([sys.executable, str(STAGES / "score.py"), run]))
        os.chdir("..")
        shutil.rmtree(folder)
    rows = [f"{name} {b / a:.2f} ({a:.0f} -> {b:.0f} MiB)" for name, (a, b) in peaks.items()]
    return "peak memory, clip of 3000 / of 300 frames (at most 1.2): " + ", ".join(rows)


def products_workspace(tested: int) -> None:
    """Write a data set `bench` of drawn products, a quarter of the tested ones good, and runs of methods on maps."""
    from vadpipe.scenes.products import picture
    from vadpipe.scenes.products.defects import DEFECTS

    root = Path("data/raw/bench/board")
    kinds = [("train", "good", 20), *(("test", kind, tested // 4) for kind in ("good", *DEFECTS))]
    for split, kind, count in kinds:
        defect = None if kind == "good" else kind
        for folder in (root / split / kind, *([root / "ground_truth" / kind] if defect else [])):
            folder.mkdir(parents=True)
        for index in range(count):
            image, mask = picture("board", defect, 224, np.random.default_rng((len(split), index)))
            cv2.imwrite(str(root / split / kind / f"{index:04d}.png"), image[..., ::-1])
            if defect:
                cv2.imwrite(str(root / "ground_truth" / kind / f"{index:04d}_mask.png"), mask * np.uint8(255))
    params = YAML(typ="safe").load(REPO / "params.yaml")
    params["generate"] = params["flow"] = params["inpaint"] = params["pool_mask"] = params["composite"] = {}
    params["ingest"] = {"bench": {**INGEST, "reader": "mvtec", "fps": None}}
    maps = {**starter.BACKBONE, "uses": "data/clips/bench", "layers": [1, 2, 3, 4], "grid": None}
    params["features"] = {"bench": maps}
    params["runs"] = {name: starter.run("bench", name, "data/features/bench") for name in ON_MAPS}
    params["runs"]["spade"]["score"] = {"k": 5}
    params["runs"]["reverse_distillation"]["train"] = {"epochs": 1}
    YAML().dump(params, Path("params.yaml"))


def bench_image_memory() -> str:
    """Memory does not grow with the number of tested images, pixel figures included.

    Of 40 images a clip and more, each row group of the feature store is full.
    """
    peaks: dict[str, list[float]] = {}
    for tested in (160, 640):
        folder = Path(str(tested))
        folder.mkdir()
        os.chdir(folder)
        products_workspace(tested)
        stage("ingest", "bench")
        peaks.setdefault("features", []).append(peak([sys.executable, str(STAGES / "features.py"), "bench"]))
        for run in ON_MAPS:
            stage("train", run)
            for name in ("score", "evaluate"):
                command = [sys.executable, str(STAGES / f"{name}.py"), run]
                peaks.setdefault(f"{name} {run}", []).append(peak(command))
        os.chdir("..")
        shutil.rmtree(folder)
    rows = [f"{name} {b / a:.2f} ({a:.0f} -> {b:.0f} MiB)" for name, (a, b) in peaks.items()]
    return "peak memory, 640 / 160 tested images (at most 1.2): " + ", ".join(rows)


def bench_sdmae() -> str:
    """The masked autoencoder scores at least twice as fast as its layers one by one, each form in its own process."""

    def measured(form: str, patch: int) -> dict[str, float]:
        command = [sys.executable, str(REPO / "benchmarks" / "sdmae.py"), form, str(patch), "16"]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        found: dict[str, float] = json.loads(answer.stdout.splitlines()[-1])
        return found

    rows = []
    for patch in (16, 4):
        rounds = [{form: measured(form, patch) for form in ("plain", "kept", "fast")} for _ in range(3)]
        if any(abs(one["fast"]["sum"] - one["plain"]["sum"]) > 1e-4 for one in rounds):
            sys.exit("sdmae: the forms give other values")
        rate = {form: statistics.median(one[form]["fps"] for one in rounds) for form in rounds[0]}
        ratio = statistics.median(one["fast"]["fps"] / one["plain"]["fps"] for one in rounds)
        last = rounds[-1]
        rows.append(
            f"{20 * patch}x{40 * patch}, patch {patch}: {ratio:.2f} ({rate['fast']:.1f} against {rate['plain']:.1f} "
            f"frames/s; {rate['kept']:.1f} with freed memory kept); {last['fast']['gmac']:.2f} against "
            f"{last['plain']['gmac']:.2f} GMAC, {last['fast']['mib']:.0f} against {last['plain']['mib']:.0f} MiB"
        )
    return "`sdmae` fast / plain, batches of 16 (at least 2): " + "; ".join(rows)


def bench_composite() -> str:
    """Compositing uses every core."""
    tree = YAML(typ="safe").load(REPO / "params.yaml")
    tree["generate"]["sprites"] |= {"views": 6, "videos": 2}
    YAML().dump(tree, Path("params.yaml"))
    for name in ("sprites", "campus"):
        stage("generate", name)
    stage("ingest", "campus")

    def on(cores: int) -> float:
        """Return the seconds in a process of its own: threads that a library keeps stay where they began.

        Imports are not counted, nor that of pandas, which Arrow does when the first table is built.
        """
        code = (
            "import os, sys, time, pandas\n"
            "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(sys.argv[1])])\n"
            "from pathlib import Path\nfrom vadpipe import params\n"
            "from vadpipe.prepare.composite import write_composites\n"
            "values, start = params.load().composite['campus'], time.perf_counter()\n"
            "write_composites(values, Path('data/clips/campus'), Path('out'))\nprint(time.perf_counter() - start)"
        )
        command = [sys.executable, "-c", code, str(cores)]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])

    one, two, ratio = summed_up([(on(1), on(2)) for _ in range(ROUNDS)])
    return f"composite on two cores / on one: {ratio:.2f} (at least 1.8); {one:.1f} against {two:.1f} s"


def patches(images: int, layers: tuple[int, ...], first: int, other: dict[str, str] | None = None) -> np.ndarray:
    """Return the vectors of all places of drawn products, as `patchcore` and `spade` compare them."""
    import torch

    from vadpipe.nn.backbones import Backbone
    from vadpipe.nn.maps import joined, neighbourhood_means
    from vadpipe.params import FeatureSet
    from vadpipe.scenes.products import picture

    settings: dict[str, Any] = {**starter.BACKBONE, "uses": "", "layers": list(layers), "grid": None, **(other or {})}
    backbone = Backbone(FeatureSet(**settings), None)
    shown = [picture("board", None, 224, np.random.default_rng(first + number))[0] for number in range(images)]
    found = []
    for image in shown:
        frame = torch.from_numpy(image).permute(2, 0, 1)[None]
        found.append(joined([neighbourhood_means(one.numpy()) for one in backbone.pyramid(frame)]))
    vectors = np.concatenate(found)
    return vectors.reshape(-1, vectors.shape[-1])


def bench_neighbours() -> str:
    """The nearest of many short vectors, tile by tile, against a flat search of faiss: `spade` and `patchcore`."""
    import faiss

    from vadpipe.nn.neighbours import Gallery

    lines = []
    for name, layers, images in (("spade", (1,), 50), ("patchcore", (2, 3), 20)):
        queries, gallery = patches(1, layers, 0), patches(images, layers, 1)
        (places, dim), rows = queries.shape, len(gallery)
        own = Gallery(gallery, 1, "cpu", spare=0)
        index = faiss.IndexFlatL2(dim)
        index.add(gallery)
        found, expected = own.nearest(queries)[0], index.search(queries, 1)[0]
        apart = float(np.abs(found - expected).max() / expected.max())
        fast, flat, ratio = paired(lambda own=own, q=queries: own.nearest(q), lambda i=index, q=queries: i.search(q, 1))
        lines.append(
            f"{name}, {places} places among {rows:,} of {dim} dimensions: {1 / ratio:.1f} times as fast as faiss "
            f"({fast:.2f} s against {flat:.2f} s), distances within {apart:.0e} (at least 1)"
        )
    return "nearest place: " + "; ".join(lines)


def bench_coreset() -> str:
    """A greedy coreset that leaves out distances that cannot matter, against one that computes them all."""
    from vadpipe.nn.coreset import k_centre

    vectors = patches(25, (2, 3), 0)
    count = len(vectors) // 10

    def plain() -> list[int]:
        chosen, reach = [0], np.full(len(vectors), np.inf, np.float32)
        for _ in range(count - 1):
            np.minimum(reach, ((vectors - vectors[chosen[-1]]) ** 2).sum(axis=1), out=reach)
            chosen.append(int(reach.argmax()))
        return chosen

    if len(set(plain()) & set(k_centre(vectors, count, 0).tolist())) < 0.99 * count:
        raise SystemExit("the two coresets differ")
    start = time.perf_counter()
    k_centre(vectors, count, 0)
    fast, slow = time.perf_counter() - start, seconds(plain)
    return (
        f"coreset of {count:,} of {len(vectors):,} vectors of {vectors.shape[1]} dimensions: {slow / fast:.1f} times "
        f"as fast as all distances ({fast:.2f} s against {slow:.2f} s; at least 3)"
    )


def bench_repro() -> str:
    """A `dvc repro` with nothing to do (seconds, not a ratio: this one is promised in seconds)."""
    command = [sys.executable, "-m", "dvc", "repro", "-q"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run = lambda: subprocess.run(command, cwd=REPO, env=environment, check=True)  # noqa: E731
    run()
    return f"`dvc repro` with nothing to do: {statistics.median(seconds(run) for _ in range(ROUNDS)):.1f} s (within 3)"


BENCHMARKS = {
    "neighbours": bench_neighbours,
    "coreset": bench_coreset,
    "features": bench_features,
    "kept": bench_kept,
    "ingest": bench_ingest,
    "checksums": bench_checksums,
    "seal": bench_seal,
    "flow": bench_flow,
    "inpaint": bench_inpaint,
    "pool_mask": bench_pool_mask,
    "composite": bench_composite,
    "sdmae": bench_sdmae,
    "memory": bench_memory,
    "image_memory": bench_image_memory,
    "repro": bench_repro,
}


def main() -> None:
    chosen = sys.argv[1:] or list(BENCHMARKS)
    for name in chosen:
        if name not in BENCHMARKS:
            sys.exit(f"there is no benchmark '{name}'; known are: {', '.join(BENCHMARKS)}")
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            os.environ.pop("VADPIPE_CORES", None)
            print(f"- {BENCHMARKS[name]()}", flush=True)
            os.chdir(REPO)
    print(f"  (peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB)")


if __name__ == "__main__":
    main()
