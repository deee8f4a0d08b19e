"""The ablations of `sdmae` (Ristea et al., CVPR 2024): tables 2, 3, 4, 7 and figure 12, from a run of your own.

    python benchmarks/sdmae_ablations.py table2 campus_sdmae     the parts, one after the other
    python benchmarks/sdmae_ablations.py parts campus_sdmae      teacher, + difference, + head; trains nothing
    python benchmarks/sdmae_ablations.py table3 campus_sdmae     teacher, student and their difference; trains nothing
    python benchmarks/sdmae_ablations.py table4 campus_sdmae     share of composites
    python benchmarks/sdmae_ablations.py table7 campus_sdmae     pointwise convolutions against dense layers
    python benchmarks/sdmae_ablations.py figure12 campus_sdmae   weights of the parts; trains nothing

Tables 2, 4 and 7 add runs to params.yaml beside the one that is named, with its size, schedule and seeds, and run them
(`vadpipe repro`); what has run is not run again. A table and a plot come to .study/sdmae. Nothing is chosen by them:
they are measured on the test set, and whoever takes the best row of one has chosen on it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from vadpipe import edit, params, paths
from vadpipe.evaluation.fusion import FUSED, fused
from vadpipe.evaluation.markdown import table, with_bootstrap
from vadpipe.evaluation.run import evaluate
from vadpipe.evaluation.scored import align
from vadpipe.evaluation.summary import read_result
from vadpipe.methods.sdmae import Sdmae
from vadpipe.params import Evaluate
from vadpipe.store import open_store
from vadpipe.store.atomic import replacing, write_text
from vadpipe.store.scores import read_scores

OUT = Path(".study/sdmae")
WITHOUT = {"composites": 0.0, "anomaly_map": "none", "head": 0.0}
ERRORS, ALL = {"teacher": 1.0}, Sdmae.presets["paper"].evaluate["weights"]
BOTH = {part: ALL[part] for part in ("teacher", "discrepancy")}
STEPS = [round(0.1 * step, 1) for step in range(11)]


class Variant(NamedTuple):
    """A row: what its training differs in from the run's, and the weights of its parts."""

    name: str
    train: dict[str, Any]
    weights: dict[str, float]


TRAINED = {
    "table2": {
        "vanilla": Variant("masked autoencoder", {**WITHOUT, "motion": "none", "student_epochs": 0}, ERRORS),
        "motion": Variant("+ motion weights", {**WITHOUT, "student_epochs": 0}, ERRORS),
        "student": Variant("+ self-distillation", WITHOUT, BOTH),
        "data": Variant("+ synthetic data", {"anomaly_map": "none", "head": 0.0}, BOTH),
        "maps": Variant("+ anomaly maps", {"head": 0.0}, BOTH),
        "whole": Variant("+ class head", {}, ALL),
    },
    "table4": {
        "share0": Variant("0 %", WITHOUT, BOTH),
        "share25": Variant("25 %", {"composites": 0.25}, ALL),
        "share50": Variant("50 %", {"composites": 0.5}, ALL),
        "share75": Variant("75 %", {"composites": 0.75}, ALL),
    },
    "table7": {
        "dense": Variant("dense layers", {"mlp": "dense"}, ALL),
        "pointwise": Variant("pointwise convolutions", {"mlp": "pointwise"}, ALL),
    },
}
FUSED_ONLY = {
    "parts": [("teacher", ERRORS), ("+ difference", BOTH), ("+ head", ALL)],
    "table3": [
        ("teacher", ERRORS),
        ("teacher + student", {"teacher": 1.0, "student": 1.0}),
        ("teacher + difference", {"teacher": 1.0, "discrepancy": 1.0}),
        ("teacher + student + difference", {"teacher": 1.0, "student": 1.0, "discrepancy": 1.0}),
    ],
    # One weight varies, the other two are a half.
    "figure12": [(f"{part} {weight:g}", {**dict.fromkeys(ALL, 0.5), part: weight}) for part in ALL for weight in STEPS],
}
Row = tuple[str, dict[str, Any]]


def trained(name: str, base: str) -> Iterator[Row]:
    """Add the runs of a table, run them, and yield what they measured."""
    loaded = params.load()
    run = params.item(loaded.runs, "runs", base)
    missing = {}
    for key, variant in TRAINED[name].items():
        values = run.model_dump()
        values["train"] = {**values["train"], **variant.train}
        values["evaluate"] = {**values["evaluate"], "weights": variant.weights}
        if f"{base}_{name}_{key}" not in loaded.runs:
            missing[f"{base}_{name}_{key}"] = values
    if missing:
        edit.add_items({"runs": missing})
    runs = [f"{base}_{name}_{key}" for key in TRAINED[name]]
    subprocess.run(["vadpipe", "repro", *runs], check=True)
    for one, variant in zip(runs, TRAINED[name].values(), strict=True):
        result = read_result(one)
        yield variant.name, result["components"][result["component"]]


def fused_only(name: str, base: str) -> Iterator[Row]:
    """Yield figures of other weights of the scores that a run has, as far as it has the parts."""
    run = params.load().run(base)
    labels = open_store(paths.labels(run.dataset), "labels").clips("test")
    scored = align(base, read_scores(paths.scores(base)), labels)
    for told, weights in FUSED_ONLY[name]:
        if not weights.keys() <= scored.components.keys():
            continue
        values = {**run.evaluate, "weights": weights}
        settings = params.parse(Evaluate, values, "evaluate")
        with fused(base, settings, scored, paths.scores(base)) as (out, _):
            yield told, evaluate(base, run, settings, out, None)["components"][FUSED]


def draw(rows: list[Row], path: Path, title: str) -> None:
    """Draw raw micro and macro AUC of all rows; of figure 12 a line a part."""
    with mpl.rc_context({"font.size": 9}), replacing(path) as beside:
        picture = Figure(figsize=(7, 4), layout="constrained")
        axes = picture.subplots()
        axes.set_title(title)
        axes.set_ylabel("raw micro AUC" if title.startswith("figure12") else "raw AUC")
        if title.startswith("figure12"):
            for part in ALL:
                values = [row["raw"]["micro_auc"]["mean"] for told, row in rows if told.startswith(f"{part} ")]
                axes.plot(STEPS, values, marker=".", label=part)
            axes.set_xlabel("weight, the other two 0.5")
            axes.legend()
        else:
            for metric, shift in (("micro_auc", -0.2), ("macro_auc", 0.2)):
                values = [row["raw"][metric]["mean"] or 0.0 for _, row in rows]
                axes.bar([place + shift for place in range(len(rows))], values, 0.4, label=metric.replace("_auc", ""))
            axes.set_xticks(range(len(rows)), [told for told, _ in rows], rotation=20, ha="right")
            axes.set_ylim(0, 1)
            axes.legend()
        picture.savefig(beside, format="png", dpi=100)


def main() -> None:
    known = [*TRAINED, *FUSED_ONLY]
    if len(sys.argv) != 3 or sys.argv[1] not in known:
        sys.exit(f"usage: python benchmarks/sdmae_ablations.py {'|'.join(known)} RUN")
    name, base = sys.argv[1:]
    rows = list(trained(name, base) if name in TRAINED else fused_only(name, base))
    header = ("", "micro AUC, raw", "macro, raw", "micro, smoothed", "macro, smoothed")
    cells = [
        (
            told,
            *(
                with_bootstrap(row[kind][metric])
                for kind in ("raw", "smoothed")
                for metric in ("micro_auc", "macro_auc")
            ),
        )
        for told, row in rows
    ]
    text = f"{name} of {base}\n\n{table(header, cells)}\n"
    OUT.mkdir(parents=True, exist_ok=True)
    write_text(OUT / f"{base}_{name}.md", text)
    draw(rows, OUT / f"{base}_{name}.png", f"{name} of {base}")
    print(f"{text}\n-> {OUT}/{base}_{name}.md, .png")


if __name__ == "__main__":
    main()
