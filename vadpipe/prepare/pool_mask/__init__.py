"""The region of the pool in each image, on all cores: `find_pool` for one image, `write_pools` for a store."""

from vadpipe.prepare.pool_mask.find import Pool, find_pool
from vadpipe.prepare.pool_mask.stage import write_pools

__all__ = ["Pool", "find_pool", "write_pools"]
