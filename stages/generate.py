"""Stage `generate`: write a generated data set to data/raw/NAME."""

from vadpipe import params, paths
from vadpipe.scenes import generate
from vadpipe.stage import run_stage


def main(name: str) -> None:
    """Generate the data set `name`."""
    values = params.item(params.load().generate, "generate", name)
    generate(name, values, paths.raw(name))


if __name__ == "__main__":
    run_stage(main)
