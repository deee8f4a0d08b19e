"""All runs side by side, written to metrics/summary.json, metrics/summary.md and plots/summary."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from vadpipe import paths
from vadpipe.evaluation.problems import Problem
from vadpipe.evaluation.summary import Result, roc_rows, summary
from vadpipe.evaluation.table import markdown
from vadpipe.store.atomic import replacing, write_json, write_text


def write_summary(results: Sequence[Result], problems: Sequence[Problem] = ()) -> None:
    """Write the summary of runs, and what is wrong with others.

    Raises:
        UserError: a curve is missing, or the disk is full.
    """
    runs = [result["run"] for result in results]
    if problems:
        # Of a run that is to run again, the curve may be gone as well.
        runs = [run for run in runs if paths.roc(run).is_file()]
    curves = list(roc_rows(runs))
    with (
        replacing(paths.SUMMARY_PLOTS, folder=True) as folder,
        (folder / "roc.csv").open("w", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("run", "fpr", "tpr"))
        writer.writerows(curves)
    write_json(paths.SUMMARY, summary(results, {problem.run: problem.reason for problem in problems if problem.reason}))
    write_text(paths.SUMMARY_TABLE, markdown(results, problems))
