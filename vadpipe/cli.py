"""The command `vadpipe`. Heavy imports stand inside the commands, so that `--help` answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vadpipe import __version__, params, paths
from vadpipe.errors import UserError, exit_code_2

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


def main() -> None:
    """Run the command line."""
    with exit_code_2():
        app()


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        typer.echo(f"vadpipe {__version__}")
        raise typer.Exit


@app.command()
def check() -> None:
    """Check params.yaml: keys, types, names, data sets, methods and what each run uses.

    Example: vadpipe check
    """
    from vadpipe.methods import base
    from vadpipe.prepare import generators

    loaded = params.load()
    for name, values in loaded.generate.items():
        generators.check(name, values)
    base.check(loaded)
    typer.echo(f"{paths.PARAMS} is right: {len(loaded.ingest)} data set(s), {len(loaded.runs)} run(s)")


@app.command()
def repro(
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, help="Stages to run at once.")] = 1,
) -> None:
    """Check params.yaml, then run every stage that changed, independent ones side by side.

    Example: vadpipe repro -j 2
    """
    from vadpipe.repro import repro as run

    check()
    raise typer.Exit(run(jobs))


@app.command()
def results() -> None:
    """Print the results table in short; metrics/summary.md has every column.

    Example: vadpipe results
    """
    from vadpipe.evaluation.summary import read_results
    from vadpipe.evaluation.table import terminal

    typer.echo(terminal(read_results(list(params.load().runs))))


@data.command("add")
def data_add(
    name: Annotated[str, typer.Argument(help="Name of the data set: lower-case letters, digits, _.")],
    path: Annotated[Path, typer.Argument(help="The folder that holds it.")],
    reader: Annotated[str, typer.Option(help="Who reads its layout: ucsd, folder or pool.")],
    place: Annotated[Place, typer.Option(help="Copy it, link to it, or copy and `dvc add` it.")] = Place.copy,
    fps: Annotated[float, typer.Option(help="Frames a second, of video.")] = 10.0,
) -> None:
    """Check a data set's layout, bring it to data/raw/NAME, and add it with a run of each method to params.yaml.

    Layout `ucsd`: Train/Train001/*.tif, Test/Test001/*.tif, Test/Test001_gt/*.bmp, Test/*.m.
    Layout `folder`: train/CLIP.mp4 or train/CLIP/*.jpg, test/..., and optionally labels.csv
    (clip,first,last: abnormal frames, from 0, both included), masks/CLIP.npy or masks/CLIP/*.png, tracks.csv.
    Layout `pool`: train/images/*.jpg and train/annotations/*.xml (Pascal VOC), train_empty/images; test likewise.

    Example: vadpipe data add ped2 ~/UCSDped2 --reader ucsd --place link
    """
    from vadpipe import edit, starter
    from vadpipe.datasets import base as readers
    from vadpipe.prepare.place import place as bring
    from vadpipe.store.atomic import write_text

    params.check_key(name, "vadpipe data add")
    loaded = params.load()
    if name in loaded.ingest:
        raise UserError(f"params.yaml has a data set '{name}' already; choose another name or remove that one")
    found = readers.get(reader)(path)
    # Decoded video is kept as JPEG, since PNG takes ten times the space; UCSD frames are TIFF, kept exact.
    quality = 95 if reader == "folder" else None
    ingest = {"reader": reader, "fps": fps if found.ordered else None, "quality": quality}
    params.parse(params.Ingest, ingest, "vadpipe data add")
    start = starter.video if found.ordered else starter.pools
    text = edit.with_items(start(name, ingest, loaded.methods))
    bring(path, paths.raw(name), place.value)
    write_text(paths.PARAMS, text)
    typer.echo(f"{name}: {len(found.clips)} clips -> {paths.raw(name)} ({place.value}); params.yaml has its runs")
    typer.echo(f"next: vadpipe data check {name}, then vadpipe repro -j 2")


@data.command("check")
def data_check(name: Annotated[str, typer.Argument(help="A data set of params.yaml.")]) -> None:
    """Decode every frame and mask of a data set and report what it holds.

    Example: vadpipe data check ped2
    """
    from vadpipe.prepare.inspect import inspect

    reader = params.item(params.load().ingest, "ingest", name).reader
    for line in inspect(reader, paths.raw(name)):
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
            "generated" if name in loaded.generate else _whence(paths.raw(name)),
        )
        for name, values in loaded.ingest.items()
    ]
    _table(("data set", "reader", "fps", "raw data"), rows)


def _whence(path: Path) -> str:
    if path.is_symlink():
        return f"linked to {path.readlink()}"
    return "here" if path.is_dir() else "not here"


@runs.command("list")
def runs_list() -> None:
    """List the runs of params.yaml, with their raw micro AUC where they are evaluated.

    Example: vadpipe runs list
    """
    import json

    figures = json.loads(paths.SUMMARY.read_text()) if paths.SUMMARY.is_file() else {}
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
) -> None:
    """Add a run to params.yaml; change its train, score and evaluate there to differ from the defaults.

    Example: vadpipe runs add ped2_knn_resnet --dataset ped2 --method knn --uses data/features/ped2_resnet
    """
    from vadpipe import edit, starter
    from vadpipe.methods import base

    params.check_key(name, "vadpipe runs add")
    loaded = params.load()
    if name in loaded.runs:
        raise UserError(f"params.yaml has a run '{name}' already; choose another name")
    needs = base.get(method).needs
    if uses is None:
        stores = {starter.uses(kind, dataset, "") for kind in ("clips", "inpainted", "pools")}
        sets = [key for key, values in loaded.features.items() if values.uses in stores]
        if needs == "features" and len(sets) != 1:
            choices = ", ".join(paths.features(key).as_posix() for key in sets) or "none, add one under `features`"
            raise UserError(f"{method} needs features of {dataset}; say which with --uses: {choices}")
        uses = starter.uses(needs, dataset, sets[0] if sets else "")
    values = starter.run(dataset, method, uses)
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


if __name__ == "__main__":
    main()
