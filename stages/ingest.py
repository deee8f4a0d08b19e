"""Stage `ingest`: read data/raw/NAME and write the clip store data/clips/NAME."""

from vadpipe import params, paths
from vadpipe.errors import run_stage
from vadpipe.prepare.ingest import ingest


def main(name: str) -> None:
    """Ingest the data set `name`."""
    values = params.item(params.load().ingest, "ingest", name)
    ingest(name, values, paths.raw(name), paths.clips(name))


if __name__ == "__main__":
    run_stage(main)
