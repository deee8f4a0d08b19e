"""Stage `flow`: optical flow of data/clips/NAME to data/flow/NAME."""

from vadpipe import params, paths
from vadpipe.prepare.flow import write_flow
from vadpipe.stage import run_stage


def main(name: str) -> None:
    """Compute the flow of the data set `name`."""
    values = params.item(params.load().flow, "flow", name)
    write_flow(values, paths.clips(name), paths.flow(name))


if __name__ == "__main__":
    run_stage(main)
