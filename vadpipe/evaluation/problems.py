"""Runs without figures of now: failed, damaged, or not here yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vadpipe import paths
from vadpipe.errors import UserError, did_you_mean
from vadpipe.evaluation.summary import Result, read_result
from vadpipe.params import Params

# Stage -> what it writes.
_OUTPUTS: dict[str, Callable[[str], Path]] = {
    "generate": paths.raw,
    "ingest": paths.clips,
    "inpaint": paths.inpainted,
    "pool_mask": paths.pools,
    "composite": paths.composites,
    "flow": paths.flow,
    "features": paths.features,
    "train": paths.model,
    "score": paths.scores,
    "evaluate": paths.run_metrics,
}
# Kind of store -> the stages behind `ingest` that make it.
_STORES = {
    "clips": (),
    "inpainted": ("inpaint",),
    "pools": ("inpaint", "pool_mask"),
    "composites": ("composite",),
    "flow": ("flow",),
}


@dataclass(frozen=True)
class Problem:
    """A run whose figures are missing or of before; `reason` is None if it was not run yet."""

    run: str
    dataset: str
    method: str
    reason: str | None


def runs_of(params: Params, names: Sequence[str]) -> list[str]:
    """Return the runs that names of data sets and runs stand for, all if there is no name.

    Raises:
        UserError: a name is unknown.
    """
    for name in names:
        if name not in params.datasets and name not in params.runs:
            known = did_you_mean(name, [*params.datasets, *params.runs])
            raise UserError(f"'{name}' is no data set or run{known}")
    return [name for name, run in params.runs.items() if not names or {name, run.dataset} & set(names)]


def read_available(params: Params, names: Iterable[str]) -> tuple[list[Result], list[Problem]]:
    """Return what was measured for runs, as far as it is there, and what is wrong with the others.

    A run that failed and has figures of an earlier time is in both.
    """
    results, problems = [], []
    for name in names:
        reason, here = _failure(params, name), os.path.lexists(paths.run_metrics(name))
        if here:
            try:
                results.append(read_result(name))
            except UserError as damaged:
                reason = reason or str(damaged)
        if reason or not here:
            run = params.runs[name]
            problems.append(Problem(name, run.dataset, run.method, reason))
    return results, problems


def _failure(params: Params, name: str) -> str | None:
    """Return why the first failed stage of a run failed."""
    for stage in stages_of(params, name):
        written = paths.failure(stage)
        if written.is_file() and not _newer(stage, written):
            return f"{stage} failed: {' '.join(written.read_text(errors='replace').split())}"
    return None


def _newer(stage: str, failure: Path) -> bool:
    """Return whether the stage's output came after its failure, as when DVC took it from the cache."""
    step, _, key = stage.partition("@")
    output = _OUTPUTS[step](key) if key else Path(stage).with_suffix("")
    return output.exists() and output.stat().st_mtime_ns > failure.stat().st_mtime_ns


def stages_of(params: Params, name: str) -> list[str]:
    """Return the stages of a run, in the order in which they run."""
    run = params.runs[name]
    uses, last = run.uses, [f"{step}@{name}" for step in ("train", "score", "evaluate")]
    if run.store_kind == "features":
        key = Path(uses).stem
        uses, last = params.features[key].uses, [f"features@{key}", *last]
    steps = ("generate", "ingest", *_STORES[paths.STORE_KINDS[Path(uses).parent.as_posix()]])
    # Raw data may be DVC's own, in a file beside them.
    return [f"{paths.raw(run.dataset)}.dvc", *(f"{step}@{run.dataset}" for step in steps), *last]
