"""Stage `pool_mask`: data/inpainted/NAME to data/pools/NAME, with the region of the pool in each image."""

from vadpipe import params, paths
from vadpipe.prepare.pool_mask import write_pools
from vadpipe.stage import run_stage


def main(name: str) -> None:
    """Find the pool in the images of the data set `name`."""
    values = params.item(params.load().pool_mask, "pool_mask", name)
    write_pools(values, paths.inpainted(name), paths.pools(name))


if __name__ == "__main__":
    run_stage(main)
