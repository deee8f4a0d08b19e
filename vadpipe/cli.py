"""The command `vadpipe`. Heavy imports stand inside the commands, so that `--help` answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vadpipe import __version__, params, paths
from vadpipe.errors import UserError, did_you_mean

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="From raw video to an honest table of anomaly-detection results.\n\nExample: vadpipe repro -j 2",
)
data = typer.Typer(no_args_is_help=True, help="Data sets.\n\nExample: vadpipe data list")
runs = typer.Typer(no_args_is_help=True, help="Runs: rows of the results table.\n\nExample: vadpipe runs list")
methods = typer.Typer(no_args_is_help=True, help="Methods.\n\nExample: vadpipe methods list")
app.add_typer(data, name="data")
app.add_typer(runs, name="runs")
app.add_typer(methods, name="methods")


class Place(StrEnum):
    """How raw data come to data/raw/NAME."""

    copy = "copy"
    link = "link"
    dvc = "dvc"


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        typer.echo(f"vadpipe {__version__}")
        raise typer.Exit


@app.command()
def check() -> None:
    """Check params.yaml: keys, types, names, data sets, methods, what each run uses, and what this machine can do.

    Example: vadpipe check
    """
    from vadpipe import demands

    loaded = params.load()
    demands.check(loaded)
    typer.echo(f"{paths.PARAMS} is right: {len(loaded.datasets)} data set(s), {len(loaded.runs)} run(s)")


@app.command()
def repro(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets, runs or stages; none = everything.")] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Stages to run at once.")] = 1,
) -> None:
    """Check params.yaml, then run every stage that changed, independent ones side by side, and print the table.

    A stage that fails stops only those that hang on it; the exit code is then 1. Ctrl-C keeps what is done.

    Example: vadpipe repro mine -j 2
    """
    from vadpipe.repro import repro as run
    from vadpipe.repro.processes import ending_in_one_line

    with ending_in_one_line():
        check()
        raise typer.Exit(run(names or [], jobs))


@app.command()
def results(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets or runs; none = all.")] = None,
    categories: Annotated[bool, typer.Option("--categories", help="A row a category, below its run.")] = False,
    kinds: Annotated[
        bool, typer.Option("--kinds", help="A row a folder of abnormal images, such as a defect.")
    ] = False,
) -> None:
    """Print the results table in short, and which runs failed or are not here yet; metrics/summary.md has all columns.

    Example: vadpipe results mine --categories
    """
    from vadpipe.evaluation.problems import read_available, runs_of
    from vadpipe.evaluation.table import terminal

    loaded = params.load()
    typer.echo(terminal(*read_available(loaded, runs_of(loaded, names or [])), categories, kinds))


@data.command("add")
def data_add(
    name: Annotated[str, typer.Argument(help="Name of the data set: lower-case letters, digits, _.")],
    path: Annotated[Path, typer.Argument(help="The folder that holds it.")],
    reader: Annotated[
        str,
        typer.Option(
            help="Who reads its layout: folder, pool, ucsd, avenue, shanghaitech, ubnormal, mvtec, one_class."
        ),
    ],
    place: Annotated[Place, typer.Option(help="Copy it and `dvc add` it, copy it only, or link to it.")] = Place.dvc,
    fps: Annotated[float | None, typer.Option(help="Frames a second; without it, what the video says.")] = None,
    rate: Annotated[float | None, typer.Option(help="Take so many frames a second; 5 of own video by default.")] = None,
    side: Annotated[int | None, typer.Option(help="Longest side of what is stored, pixels.")] = None,
    objects: Annotated[list[str] | None, typer.Option(help="Take annotations of this name only; repeat it.")] = None,
    labels: Annotated[str | None, typer.Option(help="Which truth of Avenue: masks or intervals.")] = None,
) -> None:
    """Check a data set, bring it to data/raw/NAME, and add it with runs that can work on it to params.yaml.

    Every frame, mask and label is read first, as `vadpipe data check` does; what is refused adds nothing.

    Layout `ucsd`: Train/Train001/*.tif, Test/Test001/*.tif, Test/Test001_gt/*.bmp, Test/*.m.
    Layout `folder`: train/CLIP.mp4 or train/CLIP/*.jpg, test/..., and optionally labels.csv
    (clip,first,last: abnormal frames, both included), masks/CLIP.npy or masks/CLIP/*.png, tracks.csv.
    Layout `pool`: train/images/*.jpg and train/annotations/*.xml (Pascal VOC), train_empty/images; test likewise.
    Layouts `avenue`, `shanghaitech` and `ubnormal`: as they are published.
    What is read how, and what is refused: docs/data.md.

    Example: vadpipe data add gate ~/recordings --reader folder --rate 10
    """
    from vadpipe import collection

    ingest = {"reader": reader, "fps": fps, "rate": rate, "side": side, "objects": objects or None, "labels": labels}
    report, added = collection.add(name, path, ingest, place.value)
    for line in report.lines:
        typer.echo(line)
    typer.echo(f"{name} -> {paths.raw(name)} ({place.value}); params.yaml has {len(added)} runs: {', '.join(added)}")
    if place is not Place.dvc:
        typer.echo(
            f"a clone or `dvc exp run --temp` will not have {paths.raw(name)}; to share it: `dvc add {paths.raw(name)}`"
        )
    typer.echo(f"next: vadpipe repro {name} -j 2")


@data.command("remove")
def data_remove(
    name: Annotated[str, typer.Argument(help="A data set of params.yaml.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a data set whole: its raw data here, items of params.yaml, stores, runs, models and results.

    Where the raw data are linked, the link is removed and what it leads to stays.

    Example: vadpipe data remove gate
    """
    from vadpipe import collection

    found = collection.belongings(params.load(), name)
    there = [str(path) for path in (paths.raw(name), *found.outputs) if path.exists()]
    typer.echo(f"{name}: {len(found.runs)} runs; to be removed: {', '.join(there) or 'nothing on the disk'}")
    if not yes:
        typer.confirm("Remove all of it?", abort=True)
    collection.remove(name)
    typer.echo(f"{name} is gone; `dvc gc --workspace` frees what DVC's cache holds of it")


@data.command("archive")
def data_archive(name: Annotated[str, typer.Argument(help="A data set of params.yaml that is ingested.")]) -> None:
    """Let raw footage go once it is ingested; DVC tracks its clips and labels, and all that comes after still runs.

    Example: vadpipe data archive gate
    """
    from vadpipe import collection

    gone = collection.archive(name)
    typer.echo(
        f"{name}: DVC tracks {paths.clips(name)} and {paths.labels(name)}; removed: {', '.join(gone) or 'nothing'}"
    )


@data.command("check")
def data_check(name: Annotated[str, typer.Argument(help="A data set of params.yaml.")]) -> None:
    """Decode every frame and mask of a data set and report what it holds.

    Example: vadpipe data check ped2
    """
    from vadpipe.datasets import base as readers
    from vadpipe.prepare.inspect import inspect

    values = params.item(params.load().ingest, "ingest", name)
    for line in inspect(
        values, readers.scan(paths.raw(name), values.reader, values.objects, values.labels), f"ingest.{name}"
    ).lines:
        typer.echo(line)
    typer.echo(f"{paths.raw(name)} is right")


@data.command("list")
def data_list() -> None:
    """List the data sets of params.yaml.

    Example: vadpipe data list
    """
    loaded = params.load()
    rows = [
        (
            name,
            values.reader,
            "-" if values.fps is None else f"{values.fps:g}",
            "archived" if name in loaded.archived else _whence(name, loaded),
        )
        for name, values in loaded.datasets.items()
    ]
    _table(("data set", "reader", "fps", "raw data"), rows)


def _whence(name: str, loaded: params.Params) -> str:
    path = paths.raw(name)
    if name in loaded.generate:
        return "generated"
    if path.is_symlink():
        return f"linked to {path.readlink()}"
    return "here" if path.is_dir() else "not here"


@runs.command("list")
def runs_list() -> None:
    """List the runs of params.yaml, with their raw micro AUC where they are evaluated.

    Example: vadpipe runs list
    """
    from vadpipe.files import read_json, there

    figures = read_json(paths.SUMMARY, "run `dvc repro summarize`") if there(paths.SUMMARY) else {}
    rows = []
    for name, run in params.load().runs.items():
        auc = figures.get(name, {}).get("raw", {}).get("micro_auc")
        rows.append((name, run.dataset, run.method, run.uses, "-" if auc is None else f"{auc:.3f}"))
    _table(("run", "data set", "method", "uses", "raw micro AUC"), rows)


@runs.command("add")
def runs_add(
    name: Annotated[str, typer.Argument(help="Name of the run: lower-case letters, digits, _.")],
    dataset: Annotated[str, typer.Option(help="A data set of params.yaml.")],
    method: Annotated[str, typer.Option(help="A method, see `vadpipe methods list`.")],
    uses: Annotated[str | None, typer.Option(help="The store it reads; found where there is one choice.")] = None,
    preset: Annotated[str | None, typer.Option(help="Parameters as somebody else has them.")] = None,
) -> None:
    """Add a run to params.yaml; change its train, score and evaluate there to differ from the defaults.

    Example: vadpipe runs add ped2_knn_resnet --dataset ped2 --method knn --uses data/features/ped2_resnet

    Example: vadpipe runs add ped2_sdmae --dataset ped2 --method sdmae --preset paper
    """
    from vadpipe import edit, starter
    from vadpipe.methods import base

    params.check_key(name, "vadpipe runs add")
    loaded = params.load()
    if name in loaded.runs:
        raise UserError(f"params.yaml has a run '{name}' already; choose another name")
    if dataset not in loaded.datasets:
        raise UserError(f"params.yaml has no data set '{dataset}'{did_you_mean(dataset, loaded.datasets)}")
    cls = base.get(method)
    needs = cls.needs
    if uses is None and cls.prefers in starter.prepared(loaded, dataset):
        uses = starter.uses(str(cls.prefers), dataset, "")
    elif uses is None:
        stores = {starter.uses(kind, dataset, "") for kind in ("clips", "inpainted", "pools")}
        sets = [key for key, values in loaded.features.items() if values.uses in stores]
        if needs == "features" and len(sets) != 1:
            choices = ", ".join(paths.features(key).as_posix() for key in sets) or "none, add one under `features`"
            raise UserError(f"{method} needs features of {dataset}; say which with --uses: {choices}")
        uses = starter.uses(needs, dataset, sets[0] if sets else "")
    if preset is not None and preset not in cls.presets:
        raise UserError(f"{method} has no preset '{preset}'{did_you_mean(preset, cls.presets)}")
    values = starter.run(
        dataset, method, uses, loaded.datasets[dataset].reader, cls.presets[preset] if preset else None
    )
    params.item(loaded.methods, "methods", method)
    run = params.parse(params.Run, values, f"vadpipe runs add {name}")
    base.create(loaded.model_copy(update={"runs": {name: run}}).run(name), name)
    edit.add_items({"runs": {name: values}})
    typer.echo(f"params.yaml has the run {name}; next: vadpipe repro")


@methods.command("list")
def methods_list() -> None:
    """List the methods: what they need and what they do.

    Example: vadpipe methods list
    """
    from vadpipe.methods import base

    rows = []
    for name in base.names():
        cls = base.get(name)
        rows.append((name, cls.needs, "yes" if cls.temporal else "no", (cls.__doc__ or "").strip().splitlines()[0]))
    _table(("method", "needs", "temporal", "what it does"), rows)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print aligned columns."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
