"""A folder of labelled images, `FOLDER/CLASS/*.jpg`, such as a part of what a backbone was pretrained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from vadpipe.errors import UserError
from vadpipe.files import check_folder, reading
from vadpipe.store.image_files import read_image
from vadpipe.store.images import encode_png


@dataclass(frozen=True)
class Labelled:
    """Images and their classes.

    Attributes:
        names: of the classes, in the order of their folders' names, which is that of ImageNet's labels for its folders.
        files: of all images.
        labels: (N,), the class of each.
    """

    names: list[str]
    files: list[Path]
    labels: npt.NDArray[np.int64]

    def some(self, most: int, generator: np.random.Generator) -> Labelled:
        """Return at most so many of the images, drawn by chance."""
        if len(self.files) <= most:
            return self
        rows = np.sort(generator.choice(len(self.files), most, replace=False))
        return Labelled(self.names, [self.files[row] for row in rows], self.labels[rows])


def find_labelled(folder: Path) -> Labelled:
    """Find the images of a folder of class folders.

    Raises:
        UserError: it cannot be read, it has fewer than two classes, or one of them has no file.
    """
    check_folder(folder)
    classes = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    if len(classes) < 2:
        raise UserError(
            f"{folder} is no folder of labelled images: it needs two classes at least, FOLDER/CLASS/*.jpg, and has "
            f"{len(classes)}"
        )
    classes.sort(key=lambda path: path.name)
    found = [sorted(file for file in path.iterdir() if not file.name.startswith(".")) for path in classes]
    for path, files in zip(classes, found, strict=True):
        if not files:
            raise UserError(f"{path} has no images; add some, or remove it")
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in found])
    return Labelled([path.name for path in classes], [file for files in found for file in files], labels)


def encoded(path: Path) -> bytes:
    """Return an image file as the clip store would hold it: as it is shown, 8 bit a channel.

    Raises:
        UserError: it is no image, or damaged.
    """
    with reading(path):
        data = path.read_bytes()
    try:
        image = read_image(data)
    except ValueError as error:
        raise UserError(f"{path}: {error}; mend or remove it") from None
    if image.kept:
        return data
    bright = image.pixels // 257 if image.pixels.dtype == np.uint16 else image.pixels
    return encode_png(bright.astype(np.uint8))


def linear_classifier(vectors: npt.NDArray[np.float32], labels: Sequence[int] | npt.NDArray[np.int64]) -> nn.Linear:
    """Return the logistic regression of classes on vectors (N, D), as a layer from vectors to logits."""
    mean, scale = vectors.mean(axis=0), vectors.std(axis=0)
    scale[scale < 1e-6 * max(float(scale.max()), 1e-12)] = np.inf  # what never changes says nothing
    fitted = LogisticRegression(max_iter=1000).fit((vectors - mean) / scale, labels)
    weight, bias = fitted.coef_ / scale, fitted.intercept_ - fitted.coef_ @ (mean / scale)
    if len(weight) == 1:  # of two classes scikit-learn gives the difference of the logits
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    layer = nn.Linear(weight.shape[1], len(weight))
    layer.load_state_dict({"weight": torch.tensor(weight).float(), "bias": torch.tensor(bias).float()})
    return layer
