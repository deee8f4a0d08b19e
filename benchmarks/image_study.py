"""The methods for images on one data set, with what each costs: the tables of docs/results.md.

    vadpipe data add bottle path/to/mvtec_bottle/bottle --reader mvtec
    python benchmarks/image_study.py bottle                       all runs of the study of `bottle`
    python benchmarks/image_study.py bottle padim patchcore       some of them
    python benchmarks/image_study.py bottle --list                what they are

Feature sets and runs NAME_study_... are added to params.yaml, and stages run one at a time (`dvc repro -s`); what has
run is not run again. Seconds are those that processors worked, so that they depend little on what else the machine
does; memory is the peak of the largest process. Tables come to .study/images/NAME.md. Runs with r18 in their name want
timm's ResNet-18, up to its third layer or whole, in the file that VADPIPE_STUDY_WEIGHTS names.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from vadpipe import edit, params, paths, starter
from vadpipe.errors import UserError
from vadpipe.evaluation.markdown import figure, table, with_bootstrap
from vadpipe.evaluation.problems import stages_of
from vadpipe.evaluation.summary import Result, read_result
from vadpipe.evaluation.table import markdown
from vadpipe.store.atomic import write_json, write_text

OUT = Path(".study/images")
RESNET = Path(os.environ.get("VADPIPE_STUDY_WEIGHTS", "resnet18.safetensors"))
SEEDS = {"seeds": [0, 1, 2]}
STEPS = ("ingest@", "features@", "train@", "score@", "evaluate@")

# Feature sets, in what they differ from those of `vadpipe data add`.
PIXELS = {"backbone": "pixels", "height": 32, "width": 32}
RESNET_18 = {"backbone": "resnet18", "weights": str(RESNET)}

Items = dict[str, dict[str, Any]]
# Name of a run: method, feature set (None = the images themselves), train and score.
Runs = dict[str, tuple[str, str | None, dict[str, Any], dict[str, Any]]]


def products(epochs: int, r18_epochs: int, dfr_epochs: int, coreset: float, images: int | None) -> tuple[Items, Runs]:
    """Return feature sets and runs of products with masks; what is shortened is a parameter."""
    features = {
        "lite0": {},
        "pixels": PIXELS,
        "lite0_cells": starter.CELLS,
        "lite0_maps": starter.MAPS,
        "r18_maps": {**RESNET_18, "layers": [1, 2, 3], "grid": None, "height": 256, "width": 256},
    }
    reverse = {**SEEDS, "layers": [1, 2, 3], "epochs": epochs}
    # Is it the short schedule? One seed, for three times as long.
    longer = {**reverse, "seeds": [0], "epochs": 3 * epochs}
    runs: Runs = {
        "brightness": ("brightness", None, {}, {}),
        "knn": ("knn", "lite0", {}, {}),
        "knn_cosine": ("knn", "lite0", {}, {"distance": "cosine"}),
        "oc_svm": ("oc_svm", "lite0", {}, {}),
        "oc_svm_pixels": ("oc_svm", "pixels", {}, {}),
        "padim": ("padim", "lite0_maps", SEEDS, {}),
        "padim_r18": ("padim", "r18_maps", SEEDS, {}),
        "patchcore": ("patchcore", "lite0_maps", {**SEEDS, "coreset": coreset}, {}),
        "patchcore_r18": ("patchcore", "r18_maps", {**SEEDS, "coreset": coreset}, {}),
        "spade": ("spade", "lite0_maps", {"images": images}, {"k": 5}),
        "spade_r18": ("spade", "r18_maps", {"images": images, "image_layer": 3}, {"k": 5}),
        "reverse_distillation": ("reverse_distillation", "lite0_maps", reverse, {}),
        "reverse_distillation_long": ("reverse_distillation", "lite0_maps", longer, {}),
        "reverse_distillation_r18": ("reverse_distillation", "r18_maps", {"epochs": r18_epochs}, {}),
        "dfr": ("dfr", "lite0_cells", {**SEEDS, "epochs": dfr_epochs}, {}),
        "panda": ("panda", None, {**SEEDS, "steps": 60, "checkpoints": 3, "clip_norm": 0.01}, {}),
        "deep_svdd": ("deep_svdd", None, SEEDS, {}),
    }
    return features, runs


def classes(three: list[str], large: bool, pretrain: int) -> tuple[Items, Runs]:
    """Return feature sets and runs of one-class sets; those that train a network have three of the ten classes.

    Args:
        large: also at 224x224.
        pretrain: epochs of the autoencoder of `deep_svdd`; it has two fifths of them after that.
    """
    sets = {
        "lite0": {"height": 64, "width": 64, "batch": 32},
        "r18": {**RESNET_18, "layers": [3], "height": 64, "width": 64, "batch": 32},
        "pixels": PIXELS,
        **({"lite0_224": {}} if large else {}),
    }
    some = {"categories": three}
    runs: Runs = {"brightness": ("brightness", None, {}, {})}
    for name in sets:
        runs[f"knn_{name}"] = ("knn", name, {}, {})
        runs[f"knn_cosine_{name}"] = ("knn", name, {}, {"distance": "cosine"})
    runs["oc_svm"] = ("oc_svm", "lite0", {}, {})
    runs["oc_svm_pixels"] = ("oc_svm", "pixels", {}, {})
    runs["three_knn"] = ("knn", "lite0", some, {})
    # Of the published 2,300 steps whose gradients have a norm of 0.001 at most, a tenth, each of which may go as far as
    # ten of those; and steps of any length.
    adapted = {**some, "height": 64, "width": 64, "steps": 230, "checkpoints": 5, "fisher_images": 500}
    for adaptation in ("early", "ses", "ewc"):
        for told, norm in (("", 0.01), ("_unclipped", None)):
            train = {**adapted, "adaptation": adaptation, "clip_norm": norm}
            runs[f"three_panda_{adaptation}{told}"] = ("panda", None, train, {})
    # Is it the backbone? The last layer of the smallest ResNet is trained; without a class head it has no `ewc`.
    runs["three_knn_r18"] = ("knn", "r18", some, {})
    resnet = {**RESNET_18, "layers": [3], "adaptation": "early", "clip_norm": 0.01}
    runs["three_panda_early_r18"] = ("panda", None, {**adapted, **resnet}, {})
    network = {"pretrain_epochs": pretrain, "epochs": pretrain * 2 // 5}
    milestones = {"pretrain_milestone": pretrain * 5 // 7, "milestone": pretrain // 7}
    runs["three_deep_svdd"] = ("deep_svdd", None, {**some, **SEEDS, **network, **milestones}, {})
    return sets, runs


def video() -> tuple[Items, Runs]:
    """Return feature sets and runs of the frames of video."""
    short = {"pretrain_epochs": 20, "pretrain_milestone": 15, "epochs": 10, "milestone": 5}
    runs: Runs = {
        "knn_cosine": ("knn", "lite0", {}, {"distance": "cosine"}),
        "oc_svm": ("oc_svm", "lite0", {}, {}),
        "padim": ("padim", "lite0_maps", SEEDS, {}),
        "patchcore": ("patchcore", "lite0_maps", {"coreset": 0.005}, {}),
        "spade": ("spade", "lite0_maps", {"images": 200}, {"k": 5}),
        "reverse_distillation": ("reverse_distillation", "lite0_maps", {"epochs": 3, "layers": [1, 2, 3]}, {}),
        "panda": ("panda", None, {"steps": 60, "checkpoints": 3, "clip_norm": 0.01}, {}),
        "deep_svdd": ("deep_svdd", None, short, {}),
    }
    return {"lite0": {}, "lite0_maps": starter.MAPS}, runs


STUDIES = {
    "bottle": products(epochs=30, r18_epochs=15, dfr_epochs=10, coreset=0.1, images=None),
    "tile": products(epochs=10, r18_epochs=5, dfr_epochs=3, coreset=0.01, images=200),
    "cifar": classes(["airplane", "automobile", "bird"], large=True, pretrain=35),
    "fmnist": classes(["class0", "class5", "class8"], large=False, pretrain=7),
    "ped2": video(),
}


def added(name: str, wanted: list[str]) -> list[str]:
    """Add to params.yaml what is missing of some runs of a study, and return their names in full."""
    features, runs = STUDIES[name]
    loaded = params.load()
    wanted = wanted or list(runs)
    missing: dict[str, dict[str, Any]] = {"features": {}, "runs": {}}
    for short in wanted:
        method, kind, train, score = runs[short]
        uses = str(paths.clips(name))
        if kind is not None:
            key = f"{name}_study_{kind}"
            uses = str(paths.features(key))
            missing["features"][key] = {"uses": str(paths.clips(name)), **starter.BACKBONE, **features[kind]}
        values = starter.run(name, method, uses, loaded.ingest[name].reader)
        missing["runs"][f"{name}_study_{short}"] = {**values, "train": train, "score": score}
    names = list(missing["runs"])
    for section, there in (("features", loaded.features), ("runs", loaded.runs)):
        missing[section] = {key: item for key, item in missing[section].items() if key not in there}
    edit.add_items(missing)
    return names


def timed(stage: str) -> dict[str, float] | None:
    """Run a stage where something changed, and return what it took; None if nothing was to run.

    Raises:
        UserError: the stage failed.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--single-item", stage], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise UserError(f"{stage} failed; it said:\n{said}")
    if "Running stage" not in said:
        return None
    return {"cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}


def row(result: Result, costs: dict[str, dict[str, float]]) -> list[str]:
    """Return the cells of a run."""
    run = result["run"]
    raw = result["components"][result["component"]]["raw"]
    pixels, boxes = result["pixels"] or {}, result["boxes"] or {}
    found = [costs.get(f"{stage}@{run}") for stage in ("train", "score")]
    return [
        run.partition("_study_")[2],
        str(len(result["seeds"])),
        with_bootstrap(raw["micro_auc"], "**"),
        figure(raw["average_precision"]),
        *(with_bootstrap(pixels[one]) if pixels else "-" for one in ("auroc", "average_precision", "aupro")),
        figure(boxes["iou30"]["average_precision"]) if boxes else "-",
        *(f"{one['cpu_s']:.0f}" if one else "-" for one in found),
        f"{max(one['peak_mib'] for one in found if one):.0f}" if any(found) else "-",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=STUDIES)
    parser.add_argument("runs", nargs="*", help="of the study; none = all")
    parser.add_argument("--list", action="store_true", help="say what the study has")
    wanted = parser.parse_args()
    known = STUDIES[wanted.name][1]
    if unknown := set(wanted.runs) - set(known):
        parser.error(f"no run of the study: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if wanted.list:
        for short, (method, kind, train, score) in known.items():
            print(f"{short}: {method} on {kind or 'images'} {json.dumps({**train, **score})}")
        return
    path = OUT / f"{wanted.name}.json"
    costs = json.loads(path.read_text()) if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    results, seen = [], set()
    runs = added(wanted.name, wanted.runs)
    loaded = params.load()
    for run in runs:
        # Raw data are not made here.
        stages = [stage for stage in stages_of(loaded, run) if stage.startswith(STEPS) and stage not in seen]
        try:
            for stage in stages:
                took = timed(stage)
                seen.add(stage)
                if took:
                    costs[stage] = took
                    write_json(path, costs)
                    print(f"{stage}: {took['cpu_s']:.0f} s of processors, {took['peak_mib']:.0f} MiB", flush=True)
        except UserError as error:
            print(error, flush=True)
        else:
            results.append(read_result(run))
    header = ("run", "seeds", "image AUROC", "image AP", "pixel AUROC", "pixel AP", "AUPRO", "box AP at IoU 0.3")
    costly = ("training, s", "scoring, s", "MiB")
    text = table((*header, *costly), [row(result, costs) for result in results])
    write_text(OUT / f"{wanted.name}.md", f"{text}\n\n{markdown(results)}\n")
    print(f"\n{text}\n\n-> {OUT}/{wanted.name}.md")


if __name__ == "__main__":
    main()
