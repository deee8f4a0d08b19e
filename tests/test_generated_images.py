"""The embedded sets of images: digits and products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from vadpipe.datasets import base
from vadpipe.datasets.idx import read_idx
from vadpipe.errors import UserError
from vadpipe.scenes import generate
from vadpipe.scenes.products import picture
from vadpipe.scenes.products.defects import DEFECTS
from vadpipe.scenes.products.parts import PRODUCTS

SMALL: dict[str, dict[str, Any]] = {
    "digits": {"test": 0.3},
    "products": {"seed": 3, "train": 3, "good": 2, "defective": 2, "side": 64},
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", SMALL)
def test_equal_parameters_give_equal_files(tmp_path: Path, name: str) -> None:
    for number in (1, 2):
        generate(name, SMALL[name], tmp_path / str(number))
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_digits_are_those_of_scikit_learn(tmp_path: Path) -> None:
    generate("digits", SMALL["digits"], tmp_path / "digits")
    images = [read_idx(tmp_path / "digits" / f"{prefix}-images-idx3-ubyte.gz", 3) for prefix in ("train", "t10k")]
    assert [len(part) for part in images] == [1258, 539]
    found = load_digits().images
    assert (np.concatenate(images) / 255 * 16).round().tolist() == found.tolist()
    dataset = base.scan(tmp_path / "digits", "one_class", None)
    assert sorted(clip.name for clip in dataset.clips if clip.split == "train") == [f"class{n}" for n in range(10)]


def test_products_are_read_without_a_word(tmp_path: Path) -> None:
    generate("products", SMALL["products"], tmp_path / "products")
    dataset = base.scan(tmp_path / "products", "mvtec", None)
    assert dataset.oddities == []
    assert {clip.categories for clip in dataset.clips} == {("board",), ("flange",), ("sweets",)}
    assert len(dataset.clips) == 3 * 5


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_mask_is_where_the_picture_differs_from_a_good_one(product: str, defect: str) -> None:
    for seed in range(6):
        shown, mask = picture(product, defect, 96, np.random.default_rng(seed))
        whole, nothing = picture(product, None, 96, np.random.default_rng(seed))
        assert not nothing.any()
        assert 4 <= mask.sum() < 0.1 * mask.size
        apart = np.abs(shown.astype(float) - whole).mean(-1)
        assert apart[mask].mean() > 3 * apart[~mask].mean()
        # In one piece: what is missing, bent in or scratched is one thing.
        assert cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] <= 3


def test_a_side_that_is_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"generate\.products\.side.*48"):
        generate("products", {**SMALL["products"], "side": 20}, tmp_path / "out")
