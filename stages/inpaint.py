"""Stage `inpaint`: data/clips/NAME to data/inpainted/NAME, what the boxes of training images hold filled in."""

from vadpipe import params, paths
from vadpipe.prepare.inpaint import write_inpainted
from vadpipe.stage import run_stage


def main(name: str) -> None:
    """Fill the annotated boxes of the training images of the data set `name`."""
    values = params.item(params.load().inpaint, "inpaint", name)
    write_inpainted(values, paths.clips(name), paths.labels(name), paths.inpainted(name))


if __name__ == "__main__":
    run_stage(main)
