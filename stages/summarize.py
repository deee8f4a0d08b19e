"""Stage `summarize`: all runs side by side, to metrics/summary.json, metrics/summary.md and plots/summary."""

from vadpipe import params, paths
from vadpipe.evaluation.summarize import write_summary
from vadpipe.evaluation.summary import read_results
from vadpipe.stage import run_single


def main() -> None:
    """Summarize the runs of params.yaml."""
    runs = list(params.load().runs)
    write_summary(read_results(runs))
    print(f"{len(runs)} runs -> {paths.SUMMARY}, {paths.SUMMARY_TABLE}; see them with `vadpipe results`")


if __name__ == "__main__":
    run_single(main)
