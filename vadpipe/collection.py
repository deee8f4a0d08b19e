"""The data sets of a repository: added with what they need, removed without a trace, archived once ingested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vadpipe import edit, params, paths, starter
from vadpipe.datasets import base as readers
from vadpipe.datasets.base import RawDataset
from vadpipe.errors import UserError
from vadpipe.files import read_text, there
from vadpipe.params import Ingest, Params
from vadpipe.prepare import place
from vadpipe.prepare.inspect import Report, inspect
from vadpipe.store.atomic import write_text

_LOCK = Path("dvc.lock")
# Of video with more frames a second than the first, the second is taken unless another rate is asked for: a fifth of
# the work at 25 a second. On UCSD Ped2 most methods lose little or gain (docs/results.md).
_FAST, _RATE = 7.5, 5.0
# Who reads video of one's own; of a benchmark, whose published figures hold for all frames, all are taken.
_OWN = "folder"


@dataclass(frozen=True)
class Belongings:
    """What belongs to a data set.

    Attributes:
        items: section of params.yaml -> keys.
        outputs: stores, models, scores, metrics and plots, whether they are there or not.
    """

    items: dict[str, list[str]]
    outputs: list[Path]

    @property
    def runs(self) -> list[str]:
        """Return the runs."""
        return self.items["runs"]


def belongings(loaded: Params, name: str) -> Belongings:
    """Return what belongs to a data set.

    Raises:
        UserError: there is no such data set.
    """
    params.item(loaded.datasets, "ingest", name)
    stores = [place(name) for place in paths.OF_DATASETS]
    used = {store.as_posix() for store in stores}
    features = [key for key, values in loaded.features.items() if values.uses in used]
    runs = [key for key, run in loaded.runs.items() if run.dataset == name]
    sections = ("generate", "ingest", "archived", "inpaint", "pool_mask", "composite", "flow")
    outputs = [*stores, *map(paths.features, features)]
    for run in runs:
        outputs += [paths.model(run), paths.scores(run), paths.run_metrics(run), paths.roc(run), paths.curve(run)]
        outputs.append(paths.plots(run))
    items = {section: [name] for section in sections if name in getattr(loaded, section)}
    return Belongings({**items, "features": features, "runs": runs}, outputs)


def add(name: str, source: Path, ingest: dict[str, Any], how: place.How) -> tuple[Report, list[str]]:
    """Check a data set, bring it to data/raw/NAME, and add it to params.yaml with runs that can work on it.

    Returns:
        What was found, and the names of its runs.

    Raises:
        UserError: the name is taken, or the data are not as they should be; then nothing is added.
    """
    params.check_key(name, "vadpipe data add")
    if name in params.load().datasets:
        raise UserError(
            f"params.yaml has a data set '{name}' already; choose another name, or `vadpipe data remove` it"
        )
    if there(paths.raw(name)):
        raise UserError(f"{paths.raw(name)} is there already; remove it or choose another name")
    dataset = readers.scan(source, ingest["reader"], ingest["objects"], ingest["labels"])
    ingest = _completed(ingest, dataset)
    report = inspect(params.parse(Ingest, ingest, f"ingest.{name}"), dataset, f"ingest.{name}")
    items = starter.items(name, ingest, report, params.load().methods)
    edit.check_items(items)
    place.place(source, paths.raw(name), how)
    try:
        # The file is read anew: it may have been edited while the data were checked and copied.
        edit.add_items(items)
    except BaseException:
        place.remove(paths.raw(name))
        raise
    return report, list(items["runs"])


def _completed(ingest: dict[str, Any], dataset: RawDataset) -> dict[str, Any]:
    """Return the parameters of stage `ingest` with those that were not given, in the order of the model."""
    # Decoded video is kept as JPEG, since PNG takes ten times the space; images are kept as they are, or exactly.
    quality = 95 if any(clip.fps for clip in dataset.clips) else None
    rate = ingest["rate"]
    # Who has taken frames out of a video has chosen their rate.
    video = all(clip.fps for clip in dataset.clips)
    if rate is None and video and ingest["reader"] == _OWN:
        fastest = max(ingest["fps"] or clip.fps or 0.0 for clip in dataset.clips)
        rate = _RATE if fastest > _FAST else None
    known = {"every": 1, "start": 0.0, "end": None, "quality": quality, **ingest, "rate": rate}
    return {name: known[name] for name in Ingest.model_fields}


def remove(name: str) -> Belongings:
    """Remove a data set: its items, raw data, stores, runs and their results.

    Raises:
        UserError: there is no such data set, or it cannot be removed.
    """
    found = belongings(params.load(), name)
    edit.remove_items(found.items)
    for output in [paths.raw(name), *found.outputs]:
        place.remove(output)
    for run in found.runs:
        place.remove(paths.checkpoints(run))
    _forget(_stages(found))
    return found


def archive(name: str) -> list[str]:
    """Let the raw data of an ingested data set go: its clips and labels are tracked in their place.

    Everything that comes after `ingest` runs as before. Returns what was removed.

    Raises:
        UserError: there is no such data set, it is generated, archived already, or not ingested.
    """
    loaded = params.load()
    values = params.item(loaded.ingest, "ingest", name)
    if name in loaded.generate:
        raise UserError(f"{name} is generated and takes no space that `generate` could not fill again; leave it")
    stores = [paths.clips(name), paths.labels(name)]
    for store in stores:
        if not store.is_dir():
            raise UserError(f"{store} is not here; run `dvc repro ingest@{name}` first")
    if json.loads(place.dvc("status", "--json", f"ingest@{name}")):
        raise UserError(f"{stores[0]} is not what ingest@{name} would write now; run `dvc repro ingest@{name}` first")
    edit.move_item("ingest", "archived", name, values.model_dump())
    _forget([f"ingest@{name}"])
    try:
        place.dvc("add", *map(str, stores))
    except UserError:
        edit.move_item("archived", "ingest", name, values.model_dump())
        raise
    raw = paths.raw(name)
    gone = [f"the link {raw} (the data it led to stay)" if raw.is_symlink() else str(raw)] if there(raw) else []
    place.remove(raw)
    return gone


def _stages(found: Belongings) -> Iterator[str]:
    for section, keys in found.items.items():
        stages = ("train", "score", "evaluate") if section == "runs" else (section,)
        yield from (f"{stage}@{key}" for stage in stages for key in keys)


def _forget(stages: Iterator[str] | list[str]) -> None:
    """Remove stages from dvc.lock, where DVC itself would keep them for ever."""
    if there(_LOCK):
        lines = read_text(_LOCK).splitlines(keepends=True)
        edit.remove_keys(lines, "stages", list(stages))
        write_text(_LOCK, "".join(lines))
