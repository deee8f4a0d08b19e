"""Stage `summarize`: all runs side by side, to metrics/summary.json, metrics/summary.md and plots/summary."""

import csv

from vadpipe import params, paths
from vadpipe.evaluation.summary import read_results, roc_rows, summary
from vadpipe.evaluation.table import markdown
from vadpipe.stage import run_single
from vadpipe.store.atomic import replacing, write_json, write_text


def main() -> None:
    """Summarize the runs of params.yaml."""
    runs = list(params.load().runs)
    results = read_results(runs)
    curves = list(roc_rows(runs))
    with (
        replacing(paths.SUMMARY_PLOTS, folder=True) as folder,
        (folder / "roc.csv").open("w", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("run", "fpr", "tpr"))
        writer.writerows(curves)
    write_json(paths.SUMMARY, summary(results))
    write_text(paths.SUMMARY_TABLE, markdown(results))
    print(f"{len(runs)} runs -> {paths.SUMMARY}, {paths.SUMMARY_TABLE}; see them with `vadpipe results`")


if __name__ == "__main__":
    run_single(main)
