"""Stage `composite`: data/clips/NAME to data/composites/NAME, virtual anomalies beside the training clips."""

from vadpipe import params, paths
from vadpipe.prepare.composite import write_composites
from vadpipe.stage import run_stage


def main(name: str) -> None:
    """Paste virtual anomalies into the training clips of the data set `name`."""
    values = params.item(params.load().composite, "composite", name)
    write_composites(values, paths.clips(name), paths.composites(name))


if __name__ == "__main__":
    run_stage(main)
