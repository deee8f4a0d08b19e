"""Stage `summarize` on fabricated metrics of runs."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from stages.summarize import main as summarize_stage
from tests.conftest import REPO, ingest_params, tiny_params, write_params
from vadpipe import cli, params, paths
from vadpipe.errors import UserError
from vadpipe.evaluation.locate import RATES
from vadpipe.evaluation.problems import read_available
from vadpipe.evaluation.summarize import write_summary
from vadpipe.evaluation.summary import read_results
from vadpipe.evaluation.table import terminal

RUNS = {
    "p_lstm": ("ped2", "feature_lstm", [0.70, 0.72, 0.74]),
    "p_flow": ("ped2", "flow_magnitude", [0.81]),
    "p_bright": ("ped2", "brightness", [0.40]),
    "mine_knn": ("mine", "knn", [None]),
}


def figure(per_seed: list[float | None], **more: Any) -> dict[str, Any]:
    known = [value for value in per_seed if value is not None]
    mean = sum(known) / len(known) if known else None
    ci95 = [0.67, 0.77] if len(known) > 1 else None
    return {"mean": mean, "sd": 0.02 if ci95 else None, "ci95": ci95, "per_seed": per_seed, **more}


def write_run(name: str, dataset: str, method: str, aucs: list[float | None], **more: Any) -> None:
    """Write what stage `evaluate` leaves of a run."""
    boot = None if aucs == [None] else [0.612, 0.853]
    kind = {
        "micro_auc": figure(aucs, bootstrap95=boot, bootstrap_skipped=0),
        "macro_auc": figure(aucs, clips=8, bootstrap95=boot, bootstrap_skipped=0),
        **{metric: figure(aucs) for metric in ("macro_padded", "average_precision", "eer", "f1_max")},
    }
    result = {
        "run": name,
        "dataset": dataset,
        "method": method,
        "uses": "x",
        "seeds": list(range(len(aucs))),
        "ordered": True,
        "clips": 12,
        "frames": 2010,
        "abnormal_frames": None if aucs == [None] else 1648,
        "two_class_clips": 8,
        "note": "the test clips have no labels" if aucs == [None] else None,
        "component": "main",
        "coverage": 0.9876543,
        "components": {"main": {"coverage": 0.9876543, "raw": kind, "smoothed": kind, "per_clip_minmax": kind}},
        "pixels": None,
        "boxes": None,
        "kinds": {},
        "evaluate": {},
        "recorded": {},
        **more,
    }
    path = Path(f"metrics/runs/{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    roc = Path(f"metrics/roc/{name}.csv")
    roc.parent.mkdir(parents=True, exist_ok=True)
    roc.write_text("fpr,tpr\n" + ("" if aucs == [None] else "0.0,0.0\n0.5,0.75\n1.0,1.0\n"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, metrics and curves of four runs, and a stray file, as the current folder."""
    monkeypatch.chdir(tmp_path)
    ingest = ingest_params(reader="folder", fps=10.0)
    empty: dict[str, Any] = {"train": {}, "score": {}, "evaluate": {}}
    write_params(
        {
            "generate": {},
            "ingest": {"ped2": ingest, "mine": dict(ingest)},
            "archived": {},
            "inpaint": {},
            "pool_mask": {},
            "composite": {},
            "flow": {},
            "features": {},
            "methods": {method: {"train": {}, "score": {}} for _, method, _ in RUNS.values()},
            "evaluate": YAML(typ="safe").load(REPO / "params.yaml")["evaluate"]
            | {"smoothing_s": 0.3, "bootstrap": 100, "top_frames": 5},
            "runs": {
                name: {"dataset": dataset, "method": method, "uses": f"data/clips/{dataset}", **empty}
                for name, (dataset, method, _) in RUNS.items()
            },
        }
    )
    for name, run in RUNS.items():
        write_run(name, *run)
    write_run("removed", "ped2", "knn", [0.99])
    return tmp_path


def row(name: str) -> list[str]:
    """Return the cells of a run in the table."""
    lines = [line for line in Path("metrics/summary.md").read_text().splitlines() if line.startswith(f"| {name} ")]
    assert len(lines) == 1
    return [cell.strip() for cell in lines[0].strip("|").split("|")]


def test_json_holds_rounded_means_of_the_runs_in_params(here: Path) -> None:
    summarize_stage()
    summary = json.loads(Path("metrics/summary.json").read_text())
    assert list(summary) == list(RUNS)
    assert summary["p_lstm"]["coverage"] == 0.9877
    assert summary["p_lstm"]["raw"]["micro_auc"] == 0.72
    assert set(summary["p_lstm"]) == {"coverage", "raw", "smoothed", "per_clip_minmax"}
    assert set(summary["p_lstm"]["raw"]) == {
        "micro_auc",
        "macro_auc",
        "macro_padded",
        "average_precision",
        "eer",
        "f1_max",
    }
    assert summary["mine_knn"]["raw"]["micro_auc"] is None


def test_the_table_is_sorted_and_shows_intervals(here: Path) -> None:
    summarize_stage()
    text = Path("metrics/summary.md").read_text()
    places = [text.index(f"| {name} |") for name in ("mine_knn", "p_flow", "p_lstm", "p_bright")]
    assert places == sorted(places)
    assert text.index("## mine") < text.index("## ped2")
    cells = row("p_lstm")
    assert cells[1:5] == ["feature_lstm", "3", "98.8%", "**0.720** ± 0.050 [0.61, 0.85]"]
    assert cells[7] == "0.720 ± 0.050 (8)"
    assert row("p_flow")[4] == "**0.810** [0.61, 0.85]"
    assert row("mine_knn")[4] == "-"
    assert "mine_knn: the test clips have no labels." in text
    assert "removed" not in text


def test_a_note_of_several_runs_is_told_once(here: Path) -> None:
    runs = [name for name, (dataset, _, _) in RUNS.items() if dataset == "ped2"]
    for name in runs:
        write_run(name, *RUNS[name], note="a note")
    summarize_stage()
    assert "\n- all runs: a note.\n" in Path("metrics/summary.md").read_text()
    write_run(runs[0], *RUNS[runs[0]])
    summarize_stage()
    told = [line for line in Path("metrics/summary.md").read_text().splitlines() if "a note" in line]
    assert len(told) == 1
    assert set(told[0][2:].partition(":")[0].split(", ")) == set(runs[1:])


def test_published_figures_stand_beside_ours_with_source_and_protocol(here: Path) -> None:
    summarize_stage()
    assert "0.885 Scotto 2021" in row("p_lstm")[-1]
    assert "ResNet-50" in row("p_lstm")[-1]
    assert row("p_flow")[-1] == "-"
    assert "micro or macro not said" in Path("metrics/summary.md").read_text()


def test_a_method_below_a_baseline_is_named(here: Path) -> None:
    summarize_stage()
    remark = "p_lstm (0.720) is below p_flow (0.810), a baseline without a network."
    text = Path("metrics/summary.md").read_text()
    assert text.count("is below") == 1
    assert remark in text
    assert remark in terminal(read_results(list(RUNS)))


def test_the_terminal_table_is_aligned_and_says_where_pictures_are(here: Path) -> None:
    out = terminal(read_results(list(RUNS)))
    table = out.split("ped2\n")[1].splitlines()[:4]
    assert len({len(line) for line in table}) == 1
    assert max(len(line) for line in out.splitlines()) < 100
    # Pictures moved to a folder of their own, since DVC wants one name for what a run may or may not have.
    assert "pictures in plots/RUN/pictures: timelines.png" in out


def test_curves_of_all_runs_lie_in_one_file(here: Path) -> None:
    summarize_stage()
    with Path("plots/summary/roc.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["run"] for r in rows] == ["p_lstm"] * 3 + ["p_flow"] * 3 + ["p_bright"] * 3
    assert rows[1] == {"run": "p_lstm", "fpr": "0.5", "tpr": "0.75"}


def test_a_missing_or_damaged_run_is_named(here: Path) -> None:
    Path("metrics/runs/p_flow.json").write_text("<<<<<<< HEAD\n{")
    with pytest.raises(UserError, match=r"metrics/runs/p_flow\.json is no JSON"):
        summarize_stage()
    Path("metrics/runs/p_flow.json").unlink()
    with pytest.raises(UserError, match=r"metrics/runs/p_flow\.json is not here; run `dvc repro`"):
        summarize_stage()
    assert not Path("metrics/summary.json").exists()


DAMAGED = {
    "": "is no JSON",
    '{"run": "p_fl': "is no JSON",
    "[1, 2]": "the whole: input should be a valid dictionary",
    "{}": "lacks 'run'",
    '{"accuracy": 1.0, "run": "p_flow"}': "lacks 'dataset'",
    "[" * 100_000: "is no JSON",
    "\x00\x01": "is no JSON",
}


@pytest.mark.parametrize(("text", "message"), DAMAGED.items(), ids=lambda value: str(value)[:12])
def test_a_damaged_file_is_refused_by_the_stage_and_a_row_of_the_results(here: Path, text: str, message: str) -> None:
    path = Path("metrics/runs/p_flow.json")
    path.write_text(text)
    with pytest.raises(UserError, match=rf"metrics/runs/p_flow\.json {re.escape(message)}.*; remove it and run"):
        summarize_stage()
    assert not Path("metrics/summary.json").exists()
    out = results()
    assert re.search(rf"^p_flow    metrics/runs/p_flow\.json {re.escape(message)}", out, re.MULTILINE)
    assert "p_lstm        0.720" in out


def test_a_file_without_a_figure_or_of_another_run_is_damaged(here: Path) -> None:
    path = Path("metrics/runs/p_flow.json")
    result = json.loads(path.read_text())
    del result["components"]["main"]["smoothed"]["eer"]
    path.write_text(json.dumps(result))
    with pytest.raises(UserError, match=r"p_flow\.json lacks 'components\.main\.smoothed\.eer'; remove it"):
        summarize_stage()
    write_run("p_flow", *RUNS["p_flow"], component="max")
    with pytest.raises(UserError, match=r"p_flow\.json has no component 'max'"):
        summarize_stage()
    path.write_text(Path("metrics/runs/p_lstm.json").read_text())
    with pytest.raises(UserError, match=r"p_flow\.json is of the run 'p_lstm'"):
        summarize_stage()
    Path("metrics/roc/p_lstm.csv").write_text("x,y\n")
    write_run("p_flow", *RUNS["p_flow"])
    with pytest.raises(UserError, match=r"metrics/roc/p_lstm\.csv is no ROC curve"):
        summarize_stage()


CURVE = "fpr,tpr\n0.0,0.0\n1e-06,0.75\n1.0,1.0\n"


@pytest.mark.parametrize("text", [CURVE[:-8], CURVE[:-10], CURVE[:-1], CURVE.replace("0.75", "0,5"), CURVE + "\0", ""])
def test_a_curve_that_is_cut_off_or_damaged_is_named(here: Path, text: str) -> None:
    paths.roc("p_lstm").write_text(CURVE)
    summarize_stage()
    paths.roc("p_lstm").write_text(text)
    with pytest.raises(UserError, match=r"p_lstm.* is no ROC curve from 0,0 to 1,1; remove it"):
        summarize_stage()


def results(*names: str) -> str:
    """Return what `vadpipe results` prints."""
    done = CliRunner().invoke(cli.app, ["results", *names], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def fail(stage: str, reason: str, seconds: float = 0) -> None:
    """Leave what a stage leaves that failed this many seconds from now."""
    path = paths.failure(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{reason}\n")
    os.utime(path, times=(time.time() + seconds,) * 2)


def test_results_show_what_is_there_and_count_the_rest(here: Path) -> None:
    for run in ("p_lstm", "p_bright"):
        Path(f"metrics/runs/{run}.json").unlink()
    out = results()
    assert "p_flow      0.810" in out
    assert "2 of 4 runs are not here yet: p_lstm, p_bright; run `vadpipe repro`" in out
    Path("metrics/runs/p_flow.json").unlink()
    assert results("ped2") == "3 of 3 runs are not here yet: p_lstm, p_flow, p_bright; run `vadpipe repro`\n"
    assert "not here" not in results("mine")
    assert "1 of 2 runs is not here yet: p_flow" in results("p_flow", "mine")
    with pytest.raises(UserError, match="'pad2' is no data set or run; did you mean 'ped2'"):
        results("mine", "pad2")


def test_a_failed_run_is_a_row_with_the_reason(here: Path) -> None:
    Path("metrics/runs/p_lstm.json").unlink()
    fail("score@p_lstm", "a vector holds NaN")
    fail("data/raw/mine.dvc", "data/raw/mine is not here", 5)
    out = results()
    assert "p_lstm    score@p_lstm failed: a vector holds NaN\n" in out
    # There are figures of before, which are not hidden but told.
    assert "mine_knn          -" in out
    assert "mine_knn: data/raw/mine.dvc failed: data/raw/mine is not here; its row is of before\n" in out
    assert "not here yet" not in out
    # What came after the failure, out of DVC's cache for instance, settles it.
    fail("evaluate@p_flow", "long ago", -5)
    assert "long ago" not in results()


def test_what_failed_or_is_missing_stands_in_the_summary(here: Path) -> None:
    Path("metrics/runs/p_lstm.json").unlink()
    Path("metrics/runs/p_bright.json").unlink()
    Path("metrics/roc/p_flow.csv").unlink()
    fail("train@p_lstm", "the loss | is NaN")
    write_summary(*read_available(params.load(), RUNS))
    text = Path("metrics/summary.md").read_text()
    assert "1 of 4 runs is not here yet: p_bright; run `vadpipe repro`" in text
    assert row("p_lstm")[1:5] == ["feature_lstm", "-", "-", "**failed**"]
    assert len(row("p_lstm")) == len(row("p_flow"))
    assert "- p_lstm: train@p_lstm failed: the loss | is NaN\n" in text
    summary = json.loads(Path("metrics/summary.json").read_text())
    assert summary["p_lstm"] == {"failed": "train@p_lstm failed: the loss | is NaN"}
    assert set(summary) == {"p_flow", "mine_knn", "p_lstm"}


def test_the_stages_of_a_run_are_those_that_it_hangs_on(here: Path) -> None:
    tree = tiny_params()
    write_params(tree)
    loaded = params.load()
    by_store = {
        "tiny_knn": "features@tiny_net",
        "tiny_flow_magnitude": "flow@tiny",
        "tiny_conv_ae": "inpaint@tinypool",
        "tiny_dfr": "features@tinypool_cells",
        "tiny_brightness": "evaluate@tiny_brightness",
    }
    for run, stage in by_store.items():
        fail(stage, f"reason of {run}")
    _, problems = read_available(loaded, loaded.runs)
    found = {problem.run: problem.reason for problem in problems}
    # The pool that is missing for conv_ae is missing for the cells of dfr too, and comes before them.
    assert found.pop("tiny_dfr") == found["tiny_conv_ae"] == "inpaint@tinypool failed: reason of tiny_conv_ae"
    for run in found.keys() & by_store.keys():
        assert found[run] == f"{by_store[run]} failed: reason of {run}"
    assert found["tiny_frame_difference"] is None


def test_the_stage_needs_no_key_and_imports_no_torch(here: Path) -> None:
    code = (
        f"import runpy, sys; runpy.run_path({str(REPO / 'stages' / 'summarize.py')!r}, run_name='__main__'); "
        "assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    Path("metrics/runs/p_flow.json").unlink()
    script = [sys.executable, str(REPO / "stages" / "summarize.py")]
    failed = subprocess.run(script, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: metrics/runs/p_flow.json")
    assert "Traceback" not in failed.stderr


def write_map_runs() -> None:
    """Write runs of a set of loose images, `p_lstm` and `p_flow`, with maps; `p_bright` has none."""
    for name, ap in (("p_lstm", 0.41), ("p_flow", 0.37)):
        dataset, method, aucs = RUNS[name]
        boot = {"bootstrap95": [0.25, 0.55], "bootstrap_skipped": 0}
        common = {"component": "main", "images": 125, "images_with_truth": 60}
        rates = {rate: figure([value]) for rate, value in zip(RATES, (0.6, 0.3, 1.4, 0.2), strict=True)}
        pixels = {
            "coverage": 0.8765,
            "auroc": figure([0.9]),
            "average_precision": figure([ap, ap], **boot),
            "aupro": figure([0.55]),
            "aupro_per_image": figure([0.71]),
        }
        boxes = {
            "true_boxes": 321,
            "iou30": {"average_precision": figure([0.22], **boot), **rates},
            "iou50": {"average_precision": figure([None], bootstrap95=None, bootstrap_skipped=9), **rates},
            **dict.fromkeys(("tracks", "rbdc", "tbdc")),  # loose images have no tracks
        }
        more = {"ordered": False, "two_class_clips": 0, "pixels": common | pixels, "boxes": common | boxes}
        write_run(name, dataset, method, aucs, **more)
    write_run("p_bright", *RUNS["p_bright"], ordered=False, two_class_clips=0)


def test_pixels_and_boxes_have_a_table_of_their_own(here: Path) -> None:
    summarize_stage()
    assert "Pixels and boxes" not in Path("metrics/summary.md").read_text()
    write_map_runs()
    summarize_stage()
    text = Path("metrics/summary.md").read_text()
    table = text.split("### Pixels and boxes")[1].split("##")[0]
    assert "125 test images of known truth, 60 of them with something abnormal: 321 true boxes." in table
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "| p_" in line]
    assert [cells[0] for cells in rows] == ["p_lstm", "p_flow"]  # by pixel AP, where the other table has AUC
    pixels = ["3", "87.6%", "0.900", "**0.410** ± 0.050 [0.25, 0.55]", "0.550", "0.710"]
    assert rows[0] == ["p_lstm", "feature_lstm", *pixels, "0.220 [0.25, 0.55]", "-", "0.600", "0.300", "1.400", "0.200"]
    assert "AUPRO**: mean share" in text


def test_a_set_of_images_has_headings_of_its_own(here: Path) -> None:
    write_map_runs()
    summarize_stage()
    text = Path("metrics/summary.md").read_text()
    images = text.split("## ped2")[1].split("###")[0]
    assert "2,010 test images, 1,648 abnormal (82.0%)." in images
    assert "| **image AUROC** | AP | EER | F1-max, oracle |" in images
    assert "macro," not in images
    assert "| p_flow | flow_magnitude | 1 | 98.8% | **0.810** [0.61, 0.85] | 0.810 | 0.810 | 0.810 | - |" in images
    assert "micro AUC, raw" in text.split("## mine")[1].split("##")[0]


def test_figures_of_maps_are_in_json_and_in_the_terminal(here: Path) -> None:
    write_map_runs()
    summarize_stage()
    summary = json.loads(Path("metrics/summary.json").read_text())
    assert summary["p_lstm"]["maps"] == {
        "pixel_auroc": 0.9,
        "pixel_ap": 0.41,
        "aupro": 0.55,
        "box_ap30": 0.22,
        "box_ap50": None,
    }
    assert "maps" not in summary["p_bright"]
    out = terminal(read_results(list(RUNS)))
    table = out.split("ped2\n")[1].splitlines()[:4]
    assert table[0].split() == ["run", "image", "AUROC", "coverage", "pixel", "AP", "AUPRO", "AP@0.3"]
    assert table[2].split() == ["p_lstm", "0.720", "98.8%", "0.410", "0.550", "0.220"]
    assert table[3].split() == ["p_bright", "0.400", "98.8%", "-", "-", "-"]
    assert "pixel AP" not in out.split("ped2\n")[0]
    assert max(len(line) for line in out.splitlines()) < 100
