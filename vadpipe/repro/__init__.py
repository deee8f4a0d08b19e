"""`dvc repro` with independent stages side by side, one that fails taking nothing from the others.

DVC runs stages one after the other. Several `dvc repro -s STAGE` at once are safe when each waits for the
lock, so each stage is started once those that it needs are done, and a plain `dvc repro` has the last word.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vadpipe import params, paths
from vadpipe.errors import UserError, writing
from vadpipe.evaluation.problems import read_available
from vadpipe.evaluation.summarize import write_summary
from vadpipe.evaluation.table import terminal
from vadpipe.parallel import cores
from vadpipe.progress import VARIABLE
from vadpipe.repro.graph import pending, run_in_order, stage_graph, wanted
from vadpipe.repro.processes import Processes
from vadpipe.repro.reasons import headline, reason
from vadpipe.repro.watch import Watch
from vadpipe.store.atomic import write_text

DVC = [sys.executable, "-m", "dvc"]


def repro(names: Sequence[str], jobs: int) -> int:
    """Run what changed, up to `jobs` stages at once, print the table, and return the exit code: 1 if one failed.

    Args:
        names: data sets, runs or stages; none stands for everything.

    Raises:
        UserError: DVC cannot read the pipeline, or a name is unknown; nothing has run.
    """
    loaded = params.load()
    graph = stage_graph(_ask("dag", "--dot"))
    chosen = wanted(loaded, graph, names)
    runs = [run for run in loaded.runs if f"evaluate@{run}" in chosen]
    if runs and not read_available(loaded, [run for run in loaded.runs if run not in runs])[1]:
        # The summary wants all runs, and the others are there.
        chosen |= {"summarize"} & set(graph)
    stages = pending(graph, set(json.loads(_ask("status", "--json")))) & chosen
    for stage in chosen - stages:
        paths.failure(stage).unlink(missing_ok=True)
    count = f"{len(stages)} stage{'s' * (len(stages) != 1)} to run" if stages else "nothing to run"
    what = f" for {', '.join(names)}" if names else ""
    print(f"{count}{what}{f', {jobs} at a time' if stages else ''}", flush=True)
    with Processes() as processes, Watch(len(stages)) as watch:
        work = _Work(processes, watch, _environment(jobs))
        failed = run_in_order(graph, stages, work.run, jobs)
        if not failed and not names:
            failed = run_in_order({"dvc repro": set()}, {"dvc repro"}, work.check, 1)
    if runs:
        _show(loaded, runs)
    if failed:
        rest = len(stages) - watch.done - len(failed)
        hang = f", {rest} that hang on it did not run" if rest > 0 else ""
        print(f"\n{', '.join(failed)} failed{hang}; mend it and run `vadpipe repro` again", file=sys.stderr)
    return 1 if failed else 0


def _show(loaded: params.Params, runs: Sequence[str]) -> None:
    """Print the table of some runs; where one of all runs failed or is missing, summarize the rest."""
    results, problems = read_available(loaded, list(loaded.runs))
    if problems:
        # Past DVC, whose stage `summarize` wants all runs: it counts as changed the next time.
        write_summary(results, problems)
    print(f"\n{terminal(*read_available(loaded, runs))}")


class _Work:
    """What is done with a stage: run by DVC, watched, and told of."""

    def __init__(self, processes: Processes, watch: Watch, environment: dict[str, str]) -> None:
        self._processes = processes
        self._watch = watch
        self._environment = environment

    def run(self, stage: str) -> int:
        """Run a stage alone and return the exit code of DVC; why it failed is in its failure file."""
        failure, progress = paths.failure(stage), paths.progress(stage)
        for path in (failure, progress):
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
        environment = {**self._environment, VARIABLE: str(progress.absolute())}
        command = [*DVC, "--wait-for-lock", "repro", "--single-item", stage]
        self._watch.started(stage)
        code = self._processes.run(command, environment, paths.log(stage))
        if self._processes.ended:
            failure.unlink(missing_ok=True)
            return code
        text = _end(paths.log(stage))
        if code == 0:
            self._watch.succeeded(stage, headline(text))
            return code
        if not failure.is_file():
            write_text(failure, reason(text, code) + "\n")
        self._watch.failed(stage, f"{' '.join(failure.read_text().split())} (all it said: {paths.log(stage)})")
        return code

    def check(self, name: str) -> int:
        """Let DVC go through the whole pipeline, which has run, and return its exit code."""
        log = paths.log("all")
        code = self._processes.run([*DVC, "--wait-for-lock", "repro"], self._environment, log)
        text = _end(log)
        last = (text.strip().splitlines() or [""])[-1]
        self._watch.say(f"`{name}` failed: {reason(text, code)} (all it said: {log})" if code else last)
        return code


def _end(log: Path) -> str:
    """Return the end of what was printed, where what matters stands."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 100_000))
        return file.read().decode(errors="replace")


def _ask(*arguments: str) -> str:
    answer = subprocess.run([*DVC, *arguments], capture_output=True, text=True, check=False)
    if answer.returncode:
        said = " ".join(answer.stderr.split()).removeprefix("ERROR: ")
        raise UserError(f"`dvc {' '.join(arguments)}` failed: {said}")
    return answer.stdout


def _environment(jobs: int) -> dict[str, str]:
    """Share the cores among the jobs, and let `python` be the one that runs this."""
    share = str(max(1, cores() // jobs))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # Threads that wait sleep: those that spin take the cores from the other jobs, and from whoever shares the machine.
    threads = {"VADPIPE_CORES": share, "OMP_NUM_THREADS": share, "OMP_WAIT_POLICY": "PASSIVE"}
    return {**os.environ, "PATH": path, **threads}
