"""Sheets of what `conv_ae` is trained with: all target modifications, and augmented images with their masks.

    dvc repro pool_mask@pool_demo
    python benchmarks/pool_pictures.py pool_demo

Writes docs/DATASET_targets.png and docs/DATASET_augmentation.png from the first training image.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import PIL.Image

from vadpipe import paths
from vadpipe.methods.conv_ae import Autoencoder
from vadpipe.store import open_store
from vadpipe.training.augment import Sample, augmented
from vadpipe.training.loop import seeded
from vadpipe.training.samples import planes, resized, samples
from vadpipe.training.targets import TARGETS, modified

HEIGHT, WIDTH, GAP = 144, 256, 4


def captioned(image: np.ndarray, text: str) -> np.ndarray:
    tile = np.full((HEIGHT + 22, WIDTH, 3), 255, np.uint8)
    tile[22:] = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    cv2.putText(tile, text, (2, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return cv2.copyMakeBorder(tile, 0, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def write(path: Path, rows: list[list[np.ndarray]]) -> None:
    sheet = np.vstack([np.hstack(row) for row in rows])
    PIL.Image.fromarray(sheet).quantize(256).save(path, "png", optimize=True)
    print(f"-> {path}")


def targets(sample: Sample) -> list[list[np.ndarray]]:
    """The target with the output of an untrained network in the pool, and the loss of that output."""
    with seeded(0):
        network = Autoencoder([3, 5, 7, 9], [8, 16, 32, 64], [2, 2, 2, 2], 0.0)
    images = sample.image[None].astype(np.float32) / np.float32(255)
    output = network(planes(images)).detach().permute(0, 2, 3, 1).numpy()
    outside = ~sample.region[None]
    rows = [[captioned(sample.image, "input")], [captioned(np.full_like(sample.image, 255), "")]]
    for target in TARGETS:
        asked = modified(target, images, outside, 0.2, np.random.default_rng(0))
        shown = np.where(outside[..., None], asked, output)[0]
        loss = np.square(output - asked).mean(-1)[0]
        if target == "plain":
            loss[outside[0]] = 0
        heat = cv2.applyColorMap((loss.clip(0, 0.4) / 0.4 * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
        rows[0].append(captioned((shown * 255).astype(np.uint8), f"{target}: target outside the pool"))
        rows[1].append(captioned(heat, "loss, 0 (dark) to 0.4"))
    return rows


def variants(found: list[Sample]) -> list[list[np.ndarray]]:
    """The image and nine variants, each above its mask: white the pool, grey what was made up."""
    made = augmented(found[:1], 10, seed=0)
    masks = [np.where(one.filled & one.region, 128, one.region * 255).astype(np.uint8) for one in made]
    rows = []
    for start in (0, 5):
        names = ["image" if index == 0 else f"variant {index}" for index in range(start, start + 5)]
        rows.append([captioned(one.image, name) for one, name in zip(made[start:], names, strict=False)])
        rows.append([captioned(np.dstack([mask] * 3), "its mask") for mask in masks[start : start + 5]])
    return rows


def main() -> None:
    (dataset,) = sys.argv[1:]
    clip = max(open_store(paths.pools(dataset), "pools").clips("train"), key=lambda one: one.name)
    found = list(samples(clip, 0.4))[:1]
    small = resized(found[0], *(side // 2 for side in found[0].region.shape))
    write(Path("docs") / f"{dataset}_targets.png", targets(small))
    write(Path("docs") / f"{dataset}_augmentation.png", variants(found))


if __name__ == "__main__":
    main()
