"""`dvc repro` with independent stages side by side.

DVC runs stages one after the other. Several `dvc repro -s STAGE` at once are safe when each waits for the
lock, so the stages to run are started level by level, and a plain `dvc repro` has the last word.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from graphlib import TopologicalSorter
from pathlib import Path

from vadpipe.errors import UserError
from vadpipe.parallel import cores

DVC = [sys.executable, "-m", "dvc"]

Graph = dict[str, set[str]]


def repro(jobs: int) -> int:
    """Run what changed, up to `jobs` stages at once, and return the exit code of the final `dvc repro`.

    Raises:
        UserError: DVC cannot read the pipeline, or a stage failed.
    """
    environment = _environment(jobs)
    if jobs > 1:
        graph = stage_graph(_ask("dag", "--dot"))
        changed = set(json.loads(_ask("status", "--json")))
        levels = pending_levels(graph, changed)
        total, done = sum(map(len, levels)), 0
        for level in levels:
            with ThreadPoolExecutor(jobs) as pool:
                results = list(pool.map(lambda stage: _run(stage, environment), level))
            done += len(level)
            failed = [stage for stage, code in zip(level, results, strict=True) if code]
            if failed:
                raise UserError(f"{', '.join(failed)} failed (see above); mend it and run `vadpipe repro` again")
            print(f"{done} of {total} stages done", flush=True)
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


def pending_levels(graph: Graph, changed: set[str]) -> list[list[str]]:
    """Return the changed stages and all that hang on them, in levels whose members are independent."""
    order = TopologicalSorter(graph)
    order.prepare()
    pending: set[str] = set()
    depth: dict[str, int] = {}
    while order.is_active():
        for stage in order.get_ready():
            if stage in changed or graph[stage] & pending:
                pending.add(stage)
                depth[stage] = max((depth[before] + 1 for before in graph[stage] & pending), default=0)
            order.done(stage)
    levels: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for stage in sorted(pending):
        levels[depth[stage]].append(stage)
    return levels


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
