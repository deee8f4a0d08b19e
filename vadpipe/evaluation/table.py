"""The table of all runs, for a page (Markdown) and for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from vadpipe import paths
from vadpipe.evaluation.map_table import NOTES as MAP_NOTES
from vadpipe.evaluation.map_table import map_table
from vadpipe.evaluation.markdown import figure, table, with_bootstrap
from vadpipe.evaluation.problems import Problem
from vadpipe.evaluation.summary import (
    Result,
    by_category,
    by_dataset,
    by_kind,
    headline,
    map_mean,
    mean,
    published,
    remarks,
)

_HEADER = (
    "run",
    "method",
    "seeds",
    "coverage",
    "**micro AUC, raw**",
    "micro, smoothed",
    "micro, per clip †",
    "macro, raw (clips)",
    "macro, smoothed",
    "macro, padded",
    "AP",
    "EER",
    "published",
)

# Of a kind of abnormal images: title of a table -> where the figure stands.
_KIND_FIGURES = {"image AUROC": ("image_auroc",), "AUPRO": ("pixels", "aupro")}

# Loose images have neither an order nor clips.
_IMAGE_HEADER = ("run", "method", "seeds", "coverage", "**image AUROC**", "AP", "EER", "F1-max, oracle", "published")

_NOTES = """\
- **micro AUC, raw** is the headline: area under the ROC of all covered test frames together, scores as
  the method gave them, mean over seeds. `±` is the half-width of the 95 % interval of that mean
  (Student's t; several seeds only). `[low, high]` is the 95 % bootstrap interval over the test clips:
  what other clips could have given.
- **image AUROC** is the same of a set of loose images, where a frame is an image and the bootstrap draws
  images. There is nothing to smooth and there are no clips.
- **smoothed**: after a centred Gaussian in time inside each clip; its width is set in `params.yaml`.
- **per clip †**: the scores of each clip are mapped to 0..1 first, as in many papers. It looks at the
  whole test clip, so it cannot run online, and it takes for granted that a clip has both classes. For
  comparison only.
- **macro**: mean of the AUCs of the clips that have both classes; their number in brackets. Mapping each
  clip to 0..1 leaves the order inside a clip, and so the macro AUC, as it is.
- **macro, padded**: as some papers publish it, every clip gets one certain normal and one certain
  abnormal frame, so that a clip of one class counts with 1.0. Where there are such clips, a random scorer
  is above 0.5 (0.69 on UCSD Ped2).
- **AP**: average precision; a random scorer has the share of abnormal frames. **EER**: false positive
  rate where it equals the miss rate, interpolated. Both raw, all frames together.
- **F1-max, oracle**: F1 at the threshold that is best on the labels of the test set, which nobody knows beforehand.
- Of a data set with **categories** a run has a model for each, and its row is the mean over them, those in which
  a figure is undefined left out. Each seed's figures are averaged first, then `±` is over seeds; the bootstrap draws
  the clips of each category by itself. `vadpipe results --categories` has a row a category.
- Of loose images each **folder** of abnormal ones, such as a kind of defect, is measured beside all normal images:
  `vadpipe results --kinds`.
- **coverage**: share of test frames with a score; the others leave all metrics.
- **published**: what others report; their protocol is told under the table and is rarely ours.
- The pipeline chooses nothing on test labels: no threshold, no checkpoint, no sign, no smoothing.
  Parameters that you change after a look at this table are chosen on it."""


def markdown(results: Sequence[Result], problems: Sequence[Problem] = ()) -> str:
    """Return the page: a table a data set, the highest raw micro AUC first, then what failed or is not here yet."""
    parts = ["# Results", *_missing(results, problems)]
    for dataset, (group, failed) in _groups(results, problems).items():
        parts.append(f"## {dataset}")
        if group:
            header = _HEADER if group[0]["ordered"] else _IMAGE_HEADER
            without = [problem for problem in failed if not _measured(problem, group)]
            rows = [*map(_row, group), *(_failed_row(problem, header) for problem in without)]
            parts += [_test_set(group[0]), table(header, rows)]
        lines = [
            *(_told(problem, group) for problem in failed),
            *remarks(group),
            *_protocols(group),
            *_noted(group),
        ]
        if lines:
            parts.append("\n".join(f"- {line}" for line in lines))
        parts += filter(None, [map_table(group), _category_table(group), *_kind_tables(group)])
    notes = [_NOTES, MAP_NOTES] if any(result["pixels"] for result in results) else [_NOTES]
    parts.append("## What the columns are\n\n" + "\n".join(notes))
    return "\n\n".join(parts) + "\n"


def _category_table(group: Sequence[Result]) -> str | None:
    """Return a row a category and a column a run: what lies behind the means; None without categories."""
    runs = {result["run"]: by_category(result) for result in group}
    names = sorted({category for found in runs.values() for category in found})
    if not names:
        return None
    what = "micro AUC, raw" if group[0]["ordered"] else "image AUROC"
    rows = [
        (name, *(figure(headline(found[name])) if name in found else "-" for found in runs.values())) for name in names
    ]
    return f"### {what}, by category\n\n{table(('category', *runs), rows)}"


def _kind_tables(group: Sequence[Result]) -> Iterator[str]:
    """Yield a table a figure, a row a kind of defect and a column a run."""
    runs = {result["run"]: by_kind(result) for result in group}
    names = list(dict.fromkeys(name for found in runs.values() for name in found))
    if len(names) < 2:
        return
    for what, place in _KIND_FIGURES.items():
        measured = {run: kinds for run, kinds in runs.items() if any(_kind(one, place) for one in kinds.values())}
        rows = [
            (name, *(figure(_kind(found.get(name), place) or {"mean": None}) for found in measured.values()))
            for name in names
        ]
        if measured:
            yield f"### {what}, by folder of abnormal images\n\n{table(('folder', *measured), rows)}"


def _kind(kind: Result | None, place: Sequence[str]) -> Result | None:
    """Return a figure of a kind; None where there is none."""
    for key in place:
        kind = kind and kind[key]
    return kind


def terminal(
    results: Sequence[Result], problems: Sequence[Problem] = (), categories: bool = False, kinds: bool = False
) -> str:
    """Return the columns that matter most, aligned, what failed or is not here yet, and where the rest lies.

    Args:
        categories: whether the categories of a run have a row each below it.
        kinds: whether the kinds of abnormal images have one.
    """
    parts = []
    for dataset, (group, failed) in _groups(results, problems).items():
        rows = _terminal_rows(group, categories, kinds) if group else []
        without = [problem for problem in failed if not _measured(problem, group)]
        names = [row[0] for row in rows] + [problem.run for problem in without]
        widths = [max(map(len, names)), *(max(map(len, column)) for column in list(zip(*rows, strict=True))[1:])]
        lines = ["  ".join(_aligned(row, widths)) for row in rows]
        lines += [f"{problem.run.ljust(widths[0])}  {problem.reason}" for problem in without]
        lines += [_told(problem, group) for problem in failed if _measured(problem, group)]
        parts.append("\n".join([dataset, *lines, *remarks(group)]))
    parts += _missing(results, problems)
    if results:
        parts.append(
            "* looks at the whole test clip: for comparison only\n"
            f"all columns: {paths.SUMMARY_TABLE}\n"
            f"pictures in {paths.plots('RUN')}/pictures: timelines.png (images: scores.png), top_frames.png, "
            "strips.png"
        )
    return "\n\n".join(parts)


def _groups(
    results: Sequence[Result], problems: Sequence[Problem]
) -> dict[str, tuple[Sequence[Result], list[Problem]]]:
    """Return the runs and the failed runs of each data set."""
    failed: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.reason:
            failed.setdefault(problem.dataset, []).append(problem)
    groups = by_dataset(results)
    return {name: (groups.get(name, []), failed.get(name, [])) for name in sorted({*groups, *failed})}


def _missing(results: Sequence[Result], problems: Sequence[Problem]) -> list[str]:
    """Say which runs are not here yet, if any."""
    missing = [problem.run for problem in problems if problem.reason is None]
    if not missing:
        return []
    count = len({result["run"] for result in results} | {problem.run for problem in problems})
    are = "is" if len(missing) == 1 else "are"
    return [f"{len(missing)} of {count} runs {are} not here yet: {', '.join(missing)}; run `vadpipe repro`"]


def _measured(problem: Problem, group: Sequence[Result]) -> bool:
    return any(result["run"] == problem.run for result in group)


def _told(problem: Problem, group: Sequence[Result]) -> str:
    """Say why a run failed, and that its row, if there is one, is of before."""
    return f"{problem.run}: {problem.reason}" + ("; its row is of before" if _measured(problem, group) else "")


def _failed_row(problem: Problem, header: Sequence[str]) -> tuple[str, ...]:
    return (problem.run, problem.method, "-", "-", "**failed**", *("-" for _ in header[5:]))


def _terminal_rows(group: Sequence[Result], categories: bool, kinds: bool) -> list[tuple[str, ...]]:
    """Return the header and a row a run; of loose images, and of runs without maps, only columns that apply."""
    columns = {"raw micro": ("raw", "micro_auc")}
    if group[0]["ordered"]:
        columns |= {"smoothed": ("smoothed", "micro_auc"), "per-clip*": ("per_clip_minmax", "micro_auc")}
        columns |= {"macro": ("raw", "macro_auc")}
    else:
        columns = {"image AUROC": ("raw", "micro_auc")}
    maps = {"pixel AP": "pixel_ap", "AUPRO": "aupro", "AP@0.3": "box_ap30"}
    if not any(result["pixels"] for result in group):
        maps = {}
    rows: list[tuple[str, ...]] = [("run", *columns, "coverage", *maps)]
    for result in group:
        parts = by_category(result) if categories else {}
        for name, one in [(result["run"], result), *((f"  {name}", one) for name, one in parts.items())]:
            rows.append(
                (
                    name,
                    *(_number(mean(one, *place)) for place in columns.values()),
                    f"{one['coverage']:.1%}",
                    *(_number(map_mean(one, metric)) for metric in maps.values()),
                )
            )
            # Those of a category stand below it, else below the run.
            if kinds and not (parts and one is result):
                rows += _kind_rows(one["kinds"] if parts else by_kind(one), maps)
    return rows


def _kind_rows(kinds: Mapping[str, Result], maps: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Yield a row a kind of abnormal images, in the columns of loose images."""
    places = {"pixel_ap": ("pixels", "average_precision"), "aupro": ("pixels", "aupro")}
    for name, kind in kinds.items():
        found = [_kind(kind, places[metric]) if metric in places else None for metric in maps.values()]
        figures = [_number(one["mean"]) if one else "-" for one in found]
        yield f"    {name}", _number(kind["image_auroc"]["mean"]), "", *figures


def _row(result: Result) -> tuple[str, ...]:
    figures = result["components"][result["component"]]
    raw = figures["raw"]
    by_clip = (
        figure(figures["smoothed"]["micro_auc"]),
        figure(figures["per_clip_minmax"]["micro_auc"]),
        f"{figure(raw['macro_auc'])} ({raw['macro_auc']['clips']})",
        figure(figures["smoothed"]["macro_auc"]),
        figure(raw["macro_padded"]),
    )
    return (
        result["run"],
        result["method"],
        str(len(result["seeds"])),
        f"{result['coverage']:.1%}",
        with_bootstrap(headline(result), strong="**"),
        *(by_clip if result["ordered"] else ()),
        *(figure(raw[metric]) for metric in ("average_precision", "eer")),
        *(() if result["ordered"] else (figure(raw["f1_max"]),)),
        "; ".join(f"{float(row['value']):.3f} {row['source']}" for row in _published(result)) or "-",
    )


def _test_set(result: Result) -> str:
    text = f"{result['clips']} test clips, {result['frames']:,} frames"
    if not result["ordered"]:
        text = f"{result['frames']:,} test images"
    if categories := result.get("categories"):
        text = f"{len(categories)} categories, a model each; {text} in all"
    if result["abnormal_frames"] is None:
        return text + ", no labels."
    share = result["abnormal_frames"] / result["frames"]
    text += f", {result['abnormal_frames']:,} abnormal ({share:.1%})"
    return f"{text}; {result['two_class_clips']} clips have both classes." if result["ordered"] else f"{text}."


def _noted(group: Sequence[Result]) -> list[str]:
    """Tell a note once, with the runs that have it unless all do."""
    runs: dict[str, list[str]] = {}
    for result in group:
        if result["note"]:
            runs.setdefault(result["note"], []).append(result["run"])
    return [
        f"{'all runs' if len(names) == len(group) > 1 else ', '.join(names)}: {note}." for note, names in runs.items()
    ]


def _protocols(group: Sequence[Result]) -> list[str]:
    """Tell once a method how the published figures were made."""
    rows = {row["source"]: row for result in group for row in _published(result)}
    return [f"Published {float(row['value']):.3f}, {source}: {row['protocol']}." for source, row in rows.items()]


def _published(result: Result) -> list[dict[str, str]]:
    return published(result["dataset"], result["method"])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
