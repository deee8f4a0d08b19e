"""The study of `conv_ae`: architecture x images x target x augmentation x epochs, to docs/pool_study.csv and .md.

    dvc repro pool_mask@pool_demo
    python benchmarks/pool_study.py pool_demo

A job trains one network and measures it after 10, 20 and 50 epochs, going on from what was saved; constant learning
rate and one source of chance an epoch make that equal to three trainings. Several jobs run side by side, one a core.
Finished jobs stay in .study/ and are not run again unless the data or the code changed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import cv2
import numpy as np

from vadpipe import params, paths
from vadpipe.evaluation import frame
from vadpipe.evaluation.locate import locate
from vadpipe.evaluation.markdown import table
from vadpipe.evaluation.scored import align
from vadpipe.evaluation.truth import ClipTruth, clip_truths
from vadpipe.methods import base
from vadpipe.methods.conv_ae import CollapsedError
from vadpipe.parallel import cores
from vadpipe.store import open_store
from vadpipe.store.atomic import replacing, write_json, write_text
from vadpipe.store.scores import ScoreWriter, read_map, read_scores
from vadpipe.training.checkpoints import fingerprint
from vadpipe.training.targets import TARGETS

STATE, TABLE, PAGE = Path(".study"), Path("docs/pool_study.csv"), Path("docs/pool_study.md")
KERNELS = {"3 5 9": ([3, 5, 9], [8, 16, 32]), "3 5 7 9": ([3, 5, 7, 9], [8, 16, 32, 64])}
IMAGES = {"inpainted": "swimmers*", "empty": "empty*"}
EPOCHS = (10, 20, 50)
LONG = (*EPOCHS, 80)  # the report's longest training
AUGMENTED = 2009 / 308  # images after and before augmentation, in the report


class Job(NamedTuple):
    """A training."""

    dataset: str
    kernels: str
    images: str
    target: str
    augmented: bool
    seed: int

    @property
    def epochs(self) -> tuple[int, ...]:
        return LONG if self.target == "plain" and self.images == "inpainted" and self.augmented else EPOCHS


def jobs(dataset: str) -> list[Job]:
    """Return all trainings: every combination once, and two more seeds where the report's claims hang on them."""
    found = [Job(dataset, *row, 0) for row in product(KERNELS, IMAGES, TARGETS, (True, False))]
    # The quick ones first.
    found.sort(key=lambda job: (job.augmented, TARGETS.index(job.target)))
    matter = [job for job in found if job.target == "plain" and job.images == "inpainted" and job.kernels == "3 5 7 9"]
    return found + [job._replace(seed=seed) for seed in (1, 2) for job in matter]


def run(job: Job, key: str) -> list[dict[str, Any]]:
    """Train and measure; return a row an epoch count."""
    done = STATE / job.dataset / key / f"{'_'.join(map(str, job)).replace(' ', '')}.json"
    if done.is_file():
        return json.loads(done.read_text())["rows"]  # type: ignore[no-any-return]
    store = open_store(paths.pools(job.dataset), "pools")
    cls, defaults = base.get("conv_ae"), params.load().methods["conv_ae"]
    kernels, channels = KERNELS[job.kernels]
    shape = {"kernels": kernels, "channels": channels, "strides": [2] * len(kernels)}
    # bf16 halves the time on processors that compute with it.
    chosen = {**defaults.train, **shape, "seeds": [job.seed], "precision": "bf16"}
    chosen |= {"clips": [IMAGES[job.images]], "target": job.target}
    method = cls(cls.Train(**chosen), cls.Score(**defaults.score))
    if job.augmented:
        count = sum(clip.length for clip in base.training_clips(method, store))
        chosen["images"] = round(count * AUGMENTED)
    rows, start = [], time.monotonic()
    with TemporaryDirectory() as temporary:
        saved: Path | None = None
        for epochs in job.epochs:
            method.train = cls.Train(**{**chosen, "epochs": epochs})
            row = {**job._asdict(), "epochs": epochs}
            try:
                method.fit(store, base.Fit(job.seed, Path(temporary) / "state", saved))
            except CollapsedError:
                rows.append(row | {"collapsed": True})
                break
            saved = Path(temporary) / str(epochs)
            saved.mkdir()
            method.save(saved)
            row |= {"collapsed": False, "loss": method.losses[-1], "seconds": round(time.monotonic() - start)}  # type: ignore[attr-defined]
            rows.append(row | measure(job, method, store, Path(temporary) / "scores"))
    write_json(done, {"rows": rows})
    return rows


def measure(job: Job, method: Any, store: Any, folder: Path) -> dict[str, Any]:
    """Return the figures of a fitted method on the test images."""
    settings = params.load().evaluate.model_copy(update={"bootstrap": 0})
    known = open_store(paths.labels(job.dataset), "labels")
    labelled, clips = known.clips("test"), open_store(paths.clips(job.dataset), "clips").clips("test")
    truths = clip_truths(labelled, clips)
    with replacing(folder, folder=True) as beside:
        writer = ScoreWriter(beside)
        for clip in store.clips("test"):
            writer.write(job.seed, clip.name, clip.length, method.score(clip))
        for clip in base.training_clips(method, store):
            writer.write_training(job.seed, clip.name, clip.length, method.score(clip))
        writer.close()
    scored = align("study", read_scores(folder), labelled)
    located = locate("study", settings, scored, truths, known.clips("train"), folder)
    assert located is not None
    labels, scores = scored.labels, scored.components[scored.main][0]
    pairs = frame.count_pairs(labels, scores, np.zeros(len(labels), np.int64), 1)
    figures = {"image_auroc": frame.micro_auc(pairs)}
    figures |= {f"pixel_{name}": located.pixels[name]["mean"] for name in ("auroc", "average_precision", "aupro")}
    for overlap in ("iou30", "iou50"):
        names = ("average_precision", "precision", "recall", "misses", "false_alarms")
        figures |= {f"{overlap}_{name}": located.boxes[overlap][name]["mean"] for name in names}
    return {name: value if value is None else round(value, 4) for name, value in figures.items()} | heat(
        job, method, truths, folder
    )


def heat(job: Job, method: Any, truths: list[ClipTruth], folder: Path) -> dict[str, float]:
    """Return the mean squared error of swimmers and of the rest of the pool, and on `pool_demo` of its parts."""
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    for truth in truths:
        maps = read_map(folder, job.seed, truth.name, "heat")
        for index, name in enumerate(truth.images.column("name")):
            values = maps[index].astype(np.float64) * method.scale
            there = np.isfinite(values)
            swimmers = shrunk(truth.mask(index), values.shape)
            parts = {"swimmers": swimmers, "water": ~swimmers}
            if job.dataset == "pool_demo":
                parts |= {part: shrunk(mask, values.shape) & ~swimmers for part, mask in layers(name).items()}
                parts["water"] &= ~np.any([parts[part] for part in ("ropes", "glitter", "splash")], axis=0)
            for part, mask in parts.items():
                sums[part] = sums.get(part, 0.0) + float(values[mask & there].sum())
                counts[part] = counts.get(part, 0) + int((mask & there).sum())
    return {f"error_{part}": round(sums[part] / max(counts[part], 1), 6) for part in sums}


def layers(name: str) -> dict[str, np.ndarray]:
    """Return where a test image of `pool_demo` shows ropes, glitter and splash; it is drawn again."""
    from vadpipe.scenes import check
    from vadpipe.scenes.pool_demo import draw

    _, values = check("pool_demo", params.load().generate["pool_demo"])
    path = Path(name)
    cache = STATE / "layers" / f"{path.parent.parent.name}_{path.stem}.npz"
    if not cache.is_file():
        shot = draw(values, path.parent.parent.name, int(path.stem.split("_")[1]))
        assert shot.name == path.stem, (shot.name, path.stem)
        with replacing(cache) as beside, beside.open("wb") as file:
            np.savez_compressed(file, **{part: shot.layers[part] for part in ("ropes", "glitter", "splash")})
    with np.load(cache) as found:
        return {part: found[part] for part in found.files}


def shrunk(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    small = cv2.resize(mask.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(small > 0.5)


def write_table(rows: list[dict[str, Any]]) -> None:
    """Write the rows beside those of other data sets that are in the table already."""
    datasets = {row["dataset"] for row in rows}
    if TABLE.is_file():
        with TABLE.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["dataset"] not in datasets] + rows
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "seconds"))
    with replacing(TABLE) as beside, beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: [str(row[name]).zfill(3) for name in (*Job._fields, "epochs")]))


Row = dict[str, str]


def write_page() -> None:
    """Write what the table holds as a page."""
    with TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [
        "# Study of the autoencoder",
        "",
        "Written by `python benchmarks/pool_study.py DATASET ...`; every column is in `pool_study.csv`. What it says:",
        "docs/results.md.",
    ]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        of = [row for row in rows if row["dataset"] == dataset]
        lines += ["", f"## {dataset}", "", *_factors(of), "", *_long_trainings(of), "", *_trainings(of)]
    write_text(PAGE, "\n".join(lines) + "\n")


def _factors(rows: list[Row]) -> list[str]:
    """Return a table of each factor's means over all others, of the part of the study that has every combination."""
    whole = [row for row in rows if row["seed"] == "0" and int(row["epochs"]) in EPOCHS and row["collapsed"] == "False"]
    lines = []
    alone = [(factor,) for factor in ("augmented", "images", "target", "kernels", "epochs")]
    for factors in (*alone, ("target", "augmented")):
        for values in sorted({tuple(row[factor] for factor in factors) for row in whole}):
            held = [row for row in whole if tuple(row[factor] for factor in factors) == values]
            means = (f"{_mean(held, name):.4f}" for name in ("pixel_average_precision", "pixel_aupro", "image_auroc"))
            lines.append((", ".join(factors), ", ".join(values), str(len(held)), *means))
    best = max(whole, key=lambda row: float(row["iou30_average_precision"]))
    header = ("factor", "value", "trainings", "pixel AP", "AUPRO", "image AUROC")
    title = f"Means over all other factors, seed 0, {', '.join(map(str, EPOCHS))} epochs:"
    highest = f"Best box AP at IoU 0.3 of all of them: {best['iou30_average_precision']}."
    return [title, "", table(header, lines), "", highest]


def _long_trainings(rows: list[Row]) -> list[str]:
    """Return a table of what the trainings that the report's claims hang on reproduce, by epochs."""
    parts = [name for name in rows[0] if name.startswith("error_") and rows[0][name]]
    lines = []
    for kernels, epochs in product(KERNELS, LONG):
        chosen = {"kernels": kernels, "epochs": str(epochs), "images": "inpainted", "target": "plain"}
        chosen |= {"augmented": "True", "collapsed": "False"}
        held = [row for row in rows if all(row[name] == value for name, value in chosen.items())]
        if held:
            figures = [f"{_mean(held, f'pixel_{name}'):.4f}" for name in ("average_precision", "aupro")]
            figures += [f"{_mean(held, part):.5f}" for part in parts]
            lines.append((kernels, str(epochs), str(len(held)), *figures))
    title = (
        "Inpainted, plain, augmented; the mean squared error of parts of the test images (the range of a pixel is 1):"
    )
    header = ("kernels", "epochs", "seeds", "pixel AP", "AUPRO", *(part.removeprefix("error_") for part in parts))
    return [title, "", table(header, lines)]


def _trainings(rows: list[Row]) -> list[str]:
    """Return a table with a row a training: pixel AP and AUPRO by epochs, means over seeds."""
    epochs = sorted({int(row["epochs"]) for row in rows})
    lines = []
    cells: dict[tuple[str, ...], dict[int, list[Row]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("kernels", "images", "target", "augmented"))
        cells.setdefault(key, {}).setdefault(int(row["epochs"]), []).append(row)
    for (kernels, images, target, augmented), by_epochs in cells.items():
        texts = [_cell(by_epochs.get(count, [])) for count in epochs]
        yes = "yes" if augmented == "True" else "no"
        lines.append((kernels, images, target, yes, *texts))
    title = "Every training: pixel AP (lowest to highest, where there are three seeds), AUPRO:"
    header = ("kernels", "images", "target", "augmented", *(f"{count} epochs" for count in epochs))
    return [title, "", table(header, lines)]


def _cell(rows: list[Row]) -> str:
    if not rows:
        return ""
    if any(row["collapsed"] == "True" for row in rows):
        return "collapsed"
    precisions = [float(row["pixel_average_precision"]) for row in rows]
    spread = f" ({min(precisions):.3f} to {max(precisions):.3f})" if len(rows) > 1 else ""
    return f"{np.mean(precisions):.3f}{spread}, {_mean(rows, 'pixel_aupro'):.3f}"


def _mean(rows: list[Row], column: str) -> float:
    return float(np.mean([float(row[column]) for row in rows]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="data sets with a store under data/pools")
    datasets = parser.parse_args().datasets
    workers = cores()
    # A network this small gains nothing from a second thread; a second job does.
    os.environ |= {"VADPIPE_CORES": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    for dataset in datasets:
        defaults = params.load().methods["conv_ae"].model_dump()
        inputs = [paths.pools(dataset), paths.clips(dataset), paths.labels(dataset)]
        key = fingerprint(defaults, inputs, base.source_files("conv_ae"))
        planned = jobs(dataset)
        rows: list[dict[str, Any]] = []
        if dataset == "pool_demo":
            # Before the jobs, which all look at them.
            for clip in open_store(paths.clips(dataset), "clips").clips("test"):
                for name in clip.column("name"):
                    layers(name)
        with ProcessPoolExecutor(workers) as pool:
            for count, future in enumerate(as_completed([pool.submit(run, job, key) for job in planned]), 1):
                rows += future.result()
                last = rows[-1]
                print(f"{dataset} {count}/{len(planned)}: {last}", file=sys.stderr, flush=True)
        write_table(rows)
        write_page()
        print(f"{dataset}: {len(planned)} trainings -> {TABLE}, {PAGE}")


if __name__ == "__main__":
    main()
