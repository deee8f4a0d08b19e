"""Stage `features`: a vector a frame from a backbone, to data/features/NAME."""

from pathlib import Path

from vadpipe import params, paths
from vadpipe.features.extract import extract
from vadpipe.stage import run_stage


def main(name: str) -> None:
    """Extract the feature set `name`."""
    values = params.item(params.load().features, "features", name)
    extract(values, Path(values.uses), paths.features(name))


if __name__ == "__main__":
    run_stage(main)
