"""Stage `features`: a vector a frame from a backbone, to data/features/NAME.parquet."""

from vadpipe import params, paths
from vadpipe.errors import run_stage
from vadpipe.features.extract import extract


def main(name: str) -> None:
    """Extract the feature set `name`."""
    values = params.item(params.load().features, "features", name)
    extract(values, paths.clips(values.dataset), paths.features(name))


if __name__ == "__main__":
    run_stage(main)
