"""`spade`: how far a place is from the nearest place of the normal images that are most like the image.

Cohen, Hoshen, "Sub-image anomaly detection with deep pyramid correspondences", 2020. The image scores its mean squared
distance to the k nearest training images, by the mean vector of a deep layer (DN2). A place scores its distance to the
nearest place, anywhere, of those k images: by each of the shallower layers, averaged, as the public port of
byungjae89 has it (whose search leaves out the last rows of the gallery; here all count), or by all of them joined, as
the paper has it. The map is blurred.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors.numpy import load_file, save_file

from vadpipe.methods.base import Fit, FitParams, Method, Section, training_clips
from vadpipe.nn.coreset import k_centre
from vadpipe.nn.maps import Maps, blurred, joined, resized
from vadpipe.nn.neighbours import Gallery, nearest_in_parts
from vadpipe.params import Device
from vadpipe.store import FeatureClip, Store
from vadpipe.store.scores import Scores

Halves = npt.NDArray[np.float16]


class TrainParams(FitParams):
    """Parameters of the gallery."""

    clips: list[str]
    image_layer: int = Field(ge=0)
    map_layers: list[int] = Field(min_length=1)
    images: int | None = Field(ge=1)


class ScoreParams(Section):
    """Parameters of scoring."""

    k: int = Field(ge=1)
    nearest: int = Field(ge=1)
    layers: Literal["averaged", "joined"]
    sigma: float = Field(ge=0)
    chunk: int = Field(ge=1)
    device: Device


class Spade(Method[FeatureClip]):
    """Score = mean squared distance to the k nearest training images; its map, of a place to their nearest places."""

    needs = "features"
    temporal = False
    features = "maps"
    Train = TrainParams
    Score = ScoreParams
    train: TrainParams

    def fit(self, store: Store[FeatureClip], fit: Fit) -> None:
        """Gather vectors and maps of the training images, or of a coreset of them.

        Raises:
            UserError: the features are no maps of these layers.
        """
        clips = training_clips(self, store)
        images, maps = [], []
        for clip in clips:
            for chunk in clip.chunks():
                images.append(self._vectors(clip, chunk))
                maps.append([one.astype(np.float16) for one in clip.maps(chunk, self.train.map_layers)])
        self.images = np.concatenate(images)
        self.maps: list[Halves] = [np.concatenate(layer) for layer in zip(*maps, strict=True)]
        if self.train.images is not None and self.train.images < len(self.images):
            # It begins with the image that is most like all.
            first = int(((self.images - self.images.mean(axis=0)) ** 2).sum(axis=1).argmin())
            kept = np.sort(k_centre(self.images, self.train.images, first))
            self.images, self.maps = self.images[kept], [layer[kept] for layer in self.maps]

    def save(self, folder: Path) -> None:
        """Save vectors and maps of the gallery."""
        layers = {f"map{index}": layer for index, layer in enumerate(self.maps)}
        save_file({"images": self.images, **layers}, folder / "gallery.safetensors")

    def load(self, folder: Path) -> None:
        """Load what `save` wrote."""
        found = load_file(folder / "gallery.safetensors")
        self.images = found["images"]
        self.maps = [found[f"map{index}"] for index in range(len(found) - 1)]
        self.__dict__.pop("gallery", None)

    @property
    def record(self) -> dict[str, Any]:
        """Return the size of the gallery."""
        return {"images": len(self.images), "places": [layer[0, ..., 0].size for layer in self.maps]}

    @cached_property
    def gallery(self) -> Gallery:
        """The images, searched."""
        return Gallery(self.images, self.score_params.k, self.score_params.device)

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield the components `image` and `place`, the highest value of its map, and the map.

        Raises:
            UserError: k is larger than the gallery.
        """
        for chunk in clip.chunks():
            # A training image is not its own neighbour: it would tell nothing of what is normal.
            squares, rows = self.gallery.nearest(self._vectors(clip, chunk), own=clip.split == "train")
            layers = clip.maps(chunk, self.train.map_layers)
            found = np.stack([self._places([one[index] for one in layers], near) for index, near in enumerate(rows)])
            found = blurred(found, self.score_params.sigma, clip.info["computed"]["height"])
            yield Scores({"image": squares.mean(axis=1), "place": found.max(axis=(1, 2))}, {"place": found})

    def _places(self, layers: list[Maps], rows: npt.NDArray[np.int64]) -> Maps:
        """Return the distance of each place of an image to places of its nearest images, (h, w)."""
        height, width = layers[0].shape[:2]
        if self.score_params.layers == "joined":
            layers = [joined([one[None] for one in layers])[0]]
        found = [self._distances(one, index, rows) for index, one in enumerate(layers)]
        sized = [resized(one[None, ..., None], height, width)[0, ..., 0] for one in found]
        mean: Maps = np.mean(sized, axis=0, dtype=np.float32)
        return mean

    def _distances(self, places: Maps, layer: int, rows: npt.NDArray[np.int64]) -> Maps:
        """Return the mean distance of places (h, w, channels) to the nearest ones of the gallery's images, (h, w)."""
        params = self.score_params
        squares = nearest_in_parts(
            places.reshape(-1, places.shape[-1]), self._parts(layer, rows), params.nearest, params.device
        )
        found: Maps = np.sqrt(squares).mean(axis=1).reshape(places.shape[:2])
        return found

    def _parts(self, layer: int, rows: npt.NDArray[np.int64]) -> Iterator[Maps]:
        """Yield the places of the gallery's images, (n, channels), at most `chunk` of them, but whole images."""
        size = self.maps[0 if self.score_params.layers == "joined" else layer][0, ..., 0].size
        step = max(1, self.score_params.chunk // size)
        for start in range(0, len(rows), step):
            near = rows[start : start + step]
            if self.score_params.layers == "joined":
                part = joined([one[near].astype(np.float32) for one in self.maps])
            else:
                part = self.maps[layer][near].astype(np.float32)
            yield part.reshape(-1, part.shape[-1])

    def _vectors(self, clip: FeatureClip, chunk: Maps) -> Maps:
        """Return the mean vector of the deep layer of each image, (n, channels)."""
        (deep,) = clip.maps(chunk, [self.train.image_layer])
        means: Maps = deep.mean(axis=(1, 2))
        return means
