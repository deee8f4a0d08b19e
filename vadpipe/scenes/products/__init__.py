"""Small products from above, in the layout of MVTec AD: good ones, and such with scratches, dents and missing parts.

Each is set down a little turned and shifted, under light from one side. Masks are exact: the pixels that a defect
changed, before noise.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from pydantic import Field

from vadpipe.params import Section
from vadpipe.scenes.arrays import Bools, Bytes
from vadpipe.scenes.products.defects import DEFECTS
from vadpipe.scenes.products.parts import PRODUCTS, Pose, drawn

_CHANGED = 5.0  # levels from which a pixel is another one
_NOISE = 2.5


class Params(Section):
    """Seed, images to train, good ones to test, images a defect to test, and their side in pixels; of each product."""

    seed: int = Field(ge=0)
    train: int = Field(ge=1, le=10_000)
    good: int = Field(ge=1, le=10_000)
    defective: int = Field(ge=1, le=10_000)
    side: int = Field(ge=48, le=2048)


def write(params: Params, folder: Path) -> None:
    """Write all products into an existing empty `folder`."""
    for number, name in enumerate(PRODUCTS):
        for kind, split, count in (("good", "train", params.train), ("good", "test", params.good)):
            for index in range(count):
                chance = np.random.default_rng((params.seed, number, len(split), index))
                image, _ = picture(name, None, params.side, chance)
                _save(folder / name / split / kind / f"{index:03d}.png", image)
        for place, defect in enumerate(DEFECTS):
            for index in range(params.defective):
                chance = np.random.default_rng((params.seed, number, 10 + place, index))
                image, mask = picture(name, defect, params.side, chance)
                _save(folder / name / "test" / defect / f"{index:03d}.png", image)
                _save(folder / name / "ground_truth" / defect / f"{index:03d}_mask.png", mask.astype(np.uint8) * 255)


def picture(name: str, defect: str | None, side: int, chance: np.random.Generator) -> tuple[Bytes, Bools]:
    """Return a picture of a product, uint8 (side, side, 3) RGB, and which pixels a defect changed, (side, side)."""
    pose = Pose.at_random(chance)
    paint_seed = int(chance.integers(2**32))
    whole = drawn(name, pose, side, np.random.default_rng(paint_seed))
    shown = whole
    if defect is not None:
        shown = DEFECTS[defect](name, pose, side, whole, paint_seed, chance)
    changed = (np.abs(shown - whole).max(axis=-1) >= _CHANGED).astype(np.uint8)
    # On the line across the light a hollow is as bright as before, and yet of one piece.
    mask = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
    noisy = shown + chance.normal(0, _NOISE, shown.shape)
    return noisy.round().clip(0, 255).astype(np.uint8), mask


def _save(path: Path, image: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", image[..., ::-1] if image.ndim == 3 else image)[1].tobytes())
