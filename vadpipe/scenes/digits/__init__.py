"""Handwritten digits, 8x8 pixels, as a set of classes without any download: they come with scikit-learn.

The test part of "Optical recognition of handwritten digits" (Alpaydin, Kaynak, 1998; CC BY 4.0), written as idx files
in the order in which it comes, so that the last images, which are those to test, are by other writers than the first.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field
from sklearn.datasets import load_digits

from vadpipe.datasets.idx import write_idx
from vadpipe.params import Section

_DARKEST = 16  # counts a pixel


class Params(Section):
    """Which share of the images, the last ones, is to test."""

    test: float = Field(gt=0, lt=1)


def write(params: Params, folder: Path) -> None:
    """Write the four files of the set into an existing empty `folder`."""
    found = load_digits()
    images = (found.images * (255 / _DARKEST)).round().astype(np.uint8)
    labels = found.target.astype(np.uint8)
    first = round(len(images) * (1 - params.test))
    for prefix, part in (("train", slice(first)), ("t10k", slice(first, None))):
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images[part])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels[part])
