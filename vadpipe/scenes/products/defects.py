"""What can be wrong with a product."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from vadpipe.scenes.arrays import Image
from vadpipe.scenes.products.parts import PRODUCTS, Pose, covered, drawn

# name, pose, side, the whole product, the seed of its paint, chance -> the product with the defect
Defect = Callable[[str, Pose, int, Image, int, np.random.Generator], Image]


def scratch(name: str, pose: Pose, side: int, whole: Image, paint: int, chance: np.random.Generator) -> Image:
    """Draw a bent line, brighter or darker than the ground part that it lies on."""
    start = _inside(name, pose, side, chance)
    angle, length = chance.uniform(0, np.pi), chance.uniform(0.12, 0.3) * side
    along = np.linspace(0, 1, 12)
    bend = chance.normal(0, 0.12)
    steps = length * np.stack([along * np.cos(angle + bend * along), along * np.sin(angle + bend * along)], axis=1)
    fine = np.zeros((side * 4, side * 4), np.uint8)
    points = ((start + steps - steps.mean(axis=0)) * 4).round().astype(np.int32)
    cv2.polylines(fine, [points], False, 255, max(3, side // 24))
    alpha = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    alpha *= covered(PRODUCTS[name][0], pose, side)[..., None]
    return np.asarray(whole + alpha * chance.choice([-55.0, 60.0]), np.float32)


def dent(name: str, pose: Pose, side: int, whole: Image, paint: int, chance: np.random.Generator) -> Image:
    """Shade a hollow: dark towards the light, bright away from it."""
    x, y = _inside(name, pose, side, chance)
    radius = chance.uniform(0.05, 0.1) * side
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    right, down = (columns - x) / radius, (rows - y) / radius
    depth = np.clip(1 - right**2 - down**2, 0, 1)
    slope = (np.cos(pose.light) * right + np.sin(pose.light) * down) * np.sqrt(depth)
    hollow = (slope * 95 - depth * 18) * covered(PRODUCTS[name][0], pose, side)
    return np.asarray(whole + hollow[..., None], np.float32)


def missing(name: str, pose: Pose, side: int, whole: Image, paint: int, chance: np.random.Generator) -> Image:
    """Leave out a part; its paint, and that of the others, is as before."""
    loose = [index for index, part in enumerate(PRODUCTS[name]) if part.loose]
    return drawn(name, pose, side, np.random.default_rng(paint), without=int(chance.choice(loose)))


def _inside(name: str, pose: Pose, side: int, chance: np.random.Generator) -> np.ndarray:
    """Return a place on the ground part, x and y in pixels."""
    rows, columns = np.nonzero(cv2.erode(covered(PRODUCTS[name][0], pose, side), np.ones((side // 8, side // 8))))
    place = int(chance.integers(len(rows)))
    return np.array([columns[place], rows[place]], float)


DEFECTS: dict[str, Defect] = {"scratch": scratch, "dent": dent, "missing": missing}
