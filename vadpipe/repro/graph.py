"""The stages as a graph: which are wanted, which have to run, and in which order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter

from vadpipe import paths
from vadpipe.errors import UserError, did_you_mean
from vadpipe.params import Params

# Stage -> the stages that it needs.
Graph = dict[str, set[str]]


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


def wanted(params: Params, graph: Graph, names: Sequence[str]) -> set[str]:
    """Return the stages that make data sets, runs or stages, with all that they need; no name stands for everything.

    Of a data set that is what is made of it alone, so without the summary of all runs.

    Raises:
        UserError: a name is unknown.
    """
    if not names:
        return set(graph)
    found: set[str] = set()
    for name in names:
        stages = _named(params, graph, name)
        if not stages:
            known = did_you_mean(name, [*params.datasets, *params.runs])
            raise UserError(f"'{name}' is no data set, run or stage{known}")
        found |= stages
    return _closure(graph, found)


def _named(params: Params, graph: Graph, name: str) -> set[str]:
    found: set[str] = set()
    if name in params.datasets:
        after: Graph = {stage: set() for stage in graph}
        for stage, needs in graph.items():
            for need in needs:
                after[need].add(stage)
        # Of an archived data set DVC tracks what stage `ingest` wrote.
        first = {f"ingest@{name}", f"{paths.clips(name)}.dvc", f"{paths.labels(name)}.dvc"}
        found |= {stage for stage in _closure(after, first & set(graph)) if "@" in stage}
    if name in params.runs:
        found |= {f"evaluate@{name}"} & set(graph)
    return found or {stage for stage in graph if name in (stage, stage.split("@")[0])}


def _closure(graph: Graph, stages: Iterable[str]) -> set[str]:
    """Return stages and all that the edges of the graph lead to from there."""
    found: set[str] = set()
    left = list(stages)
    while left:
        stage = left.pop()
        if stage not in found:
            found.add(stage)
            left += graph[stage]
    return found


def pending(graph: Graph, changed: set[str]) -> set[str]:
    """Return the changed stages and all that hang on them."""
    found: set[str] = set()
    for stage in TopologicalSorter(graph).static_order():
        if stage in changed or graph[stage] & found:
            found.add(stage)
    return found


def run_in_order(graph: Graph, stages: set[str], run: Callable[[str], int], jobs: int) -> list[str]:
    """Run stages, each once those that it needs are done, and return the failed ones.

    Of those that could run, that which most stages wait for one after the other comes first: what has a long way to go
    does not begin when all else is done. Whatever ends this early does not wait for what runs.
    """
    needs = {stage: graph[stage] & stages for stage in sorted(stages)}
    behind = _chains(needs)
    order = TopologicalSorter(needs)
    order.prepare()
    failed: list[str] = []
    ready: list[str] = []
    running: dict[Future[int], str] = {}
    pool = ThreadPoolExecutor(jobs)
    try:
        while True:
            ready = sorted([*ready, *order.get_ready()], key=lambda stage: (-behind[stage], stage))
            free = jobs - len(running)
            running |= {pool.submit(run, stage): stage for stage in ready[:free]}
            ready = ready[free:]
            if not running:
                return failed
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                stage = running.pop(future)
                if future.result():
                    failed.append(stage)
                else:
                    order.done(stage)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _chains(needs: Graph) -> dict[str, int]:
    """Return how many stages wait for each one, one after the other at most."""
    behind = dict.fromkeys(needs, 0)
    for stage in reversed(list(TopologicalSorter(needs).static_order())):
        for need in needs[stage]:
            behind[need] = max(behind[need], behind[stage] + 1)
    return behind
