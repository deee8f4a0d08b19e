"""`dvc repro` with independent stages side by side.

DVC runs stages one after the other. Several `dvc repro -s STAGE` at once are safe when each waits for the
lock, so each stage is started once those that it needs are done, and a plain `dvc repro` has the last word.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path

from vadpipe.errors import UserError
from vadpipe.parallel import cores

DVC = [sys.executable, "-m", "dvc"]

Graph = dict[str, set[str]]


def repro(jobs: int) -> int:
    """Run what changed, up to `jobs` stages at once, and return the exit code of the final `dvc repro`.

    Raises:
        UserError: DVC cannot read the pipeline, or a stage failed; what does not hang on it has run.
    """
    environment = _environment(jobs)
    if jobs > 1:
        graph = stage_graph(_ask("dag", "--dot"))
        stages = pending(graph, set(json.loads(_ask("status", "--json"))))
        failed = run_in_order(graph, stages, lambda stage: _run(stage, environment), jobs)
        if failed:
            raise UserError(f"{', '.join(failed)} failed (see above); mend it and run `vadpipe repro` again")
    return subprocess.run([*DVC, "repro"], env=environment, check=False).returncode


def _environment(jobs: int) -> dict[str, str]:
    """Share the cores among the jobs, and let `python` be the one that runs this."""
    share = str(max(1, cores() // jobs))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "VADPIPE_CORES": share, "OMP_NUM_THREADS": share}


def _ask(*arguments: str) -> str:
    answer = subprocess.run([*DVC, *arguments], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed: {answer.stderr.strip()}")
    return answer.stdout


def stage_graph(dot: str) -> Graph:
    """Return stage -> the stages that it needs, from the output of `dvc dag --dot`."""
    graph: Graph = {}
    for line in dot.splitlines():
        match re.findall(r'"([^"]+)"', line):
            case [stage]:
                graph.setdefault(stage, set())
            case [before, after]:
                graph.setdefault(before, set())
                graph.setdefault(after, set()).add(before)
    return graph


def pending(graph: Graph, changed: set[str]) -> set[str]:
    """Return the changed stages and all that hang on them."""
    found: set[str] = set()
    for stage in TopologicalSorter(graph).static_order():
        if stage in changed or graph[stage] & found:
            found.add(stage)
    return found


def run_in_order(graph: Graph, stages: set[str], run: Callable[[str], int], jobs: int) -> list[str]:
    """Run stages, each once those that it needs are done, and return the failed ones."""
    order = TopologicalSorter({stage: graph[stage] & stages for stage in sorted(stages)})
    order.prepare()
    failed: list[str] = []
    running: dict[Future[int], str] = {}
    finished = 0
    with ThreadPoolExecutor(jobs) as pool:
        while True:
            running |= {pool.submit(run, stage): stage for stage in order.get_ready()}
            if not running:
                return failed
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                if future.result():
                    failed.append(stage)
                else:
                    order.done(stage)
                    finished += 1
                    print(f"{finished} of {len(stages)} stages done", flush=True)


def _run(stage: str, environment: dict[str, str]) -> int:
    start = time.monotonic()
    print(f"{stage} started", flush=True)
    command = [*DVC, "--wait-for-lock", "repro", "--quiet", "--single-item", stage]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    took = f"in {time.monotonic() - start:.0f} s"
    if done.returncode:
        print(f"{stage} failed {took}\n{done.stdout}{done.stderr}", file=sys.stderr, flush=True)
    else:
        # The last line of a stage says what it made.
        print(f"{stage} done {took}. {(done.stdout.strip().splitlines() or [''])[-1]}".strip(), flush=True)
    return done.returncode
