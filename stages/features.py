"""Stage `features`: a vector a frame from a backbone, to data/features/NAME.parquet."""

from pathlib import Path

from vadpipe import params, paths
from vadpipe.errors import run_stage
from vadpipe.features.extract import extract


def main(name: str) -> None:
    """Extract the feature set `name`."""
    values = params.item(params.load().features, "features", name)
    extract(values, Path(values.uses), paths.features(name))


if __name__ == "__main__":
    run_stage(main)
