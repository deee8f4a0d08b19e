"""Stage `ingest`: read data/raw/NAME and write the clip store data/clips/NAME and the label store data/labels/NAME."""

from vadpipe import params, paths
from vadpipe.prepare.ingest import ingest
from vadpipe.stage import run_stage


def main(name: str) -> None:
    """Ingest the data set `name`."""
    values = params.item(params.load().ingest, "ingest", name)
    ingest(name, values, paths.raw(name), paths.clips(name), paths.labels(name))


if __name__ == "__main__":
    run_stage(main)
