"""`patchcore`: how far a place is from the nearest of all normal places, wherever that lay.

Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler, "Towards total recall in industrial anomaly detection", CVPR 2022.
Maps of the middle layers, averaged over 3x3 cells and joined at the size of the first, give a vector a place; a coreset
of those of the training images is the memory. The map is the distance to the nearest vector of the memory, blurred; the
image scores its largest distance, weighted by how lonely that nearest vector is (Eq. 7). The authors' code also brings
the channels of both layers to 1,024 by mixing neighbours, and does not weight; here all channels are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import load_file, save_file

from vadpipe.errors import UserError
from vadpipe.methods.base import Fit, FitParams, Method, Section, training_clips
from vadpipe.nn.coreset import k_centre
from vadpipe.nn.maps import Maps, blurred, joined, neighbourhood_means
from vadpipe.nn.neighbours import Gallery, Indices
from vadpipe.params import Device, Seeds
from vadpipe.store import FeatureClip, Store
from vadpipe.store.atomic import write_json
from vadpipe.store.scores import Scores


class TrainParams(FitParams):
    """Parameters of fitting."""

    seeds: Seeds
    clips: list[str]
    layers: list[int] = Field(min_length=1)
    coreset: float = Field(gt=0, le=1)
    projection: int = Field(ge=1)


class ScoreParams(Section):
    """Parameters of scoring."""

    neighbours: int = Field(ge=1)
    sigma: float = Field(ge=0)
    device: Device


class PatchCore(Method[FeatureClip]):
    """Score = the largest distance of a place to the nearest vector of a memory of normal places."""

    needs = "features"
    temporal = False
    features = "maps"
    Train = TrainParams
    Score = ScoreParams
    train: TrainParams

    def fit(self, store: Store[FeatureClip], fit: Fit) -> None:
        """Gather the places of all training images, and keep a coreset, found after a random projection.

        Raises:
            UserError: the features are no maps of these layers.
        """
        clips = training_clips(self, store)
        cells = np.concatenate([self._cells(clip, chunk) for clip in clips for chunk in clip.chunks()])
        starts = np.cumsum([0, *(clip.length for clip in clips)]).tolist()
        self.starts = dict(zip([clip.name for clip in clips], starts, strict=False))
        self.sources = np.repeat(np.arange(len(cells), dtype=np.int32), cells[0, ..., 0].size)
        cells = cells.reshape(-1, cells.shape[-1])
        count = max(1, round(self.train.coreset * len(cells)))
        if count < len(cells):
            chance = np.random.default_rng(fit.seed)
            shape = cells.shape[1], min(self.train.projection, cells.shape[1])
            projection = chance.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[1]))
            first = int(chance.integers(len(cells)))
            kept = np.sort(k_centre(cells @ projection, count, first))
            cells, self.sources = cells[kept], self.sources[kept]
        self.bank = cells

    def save(self, folder: Path) -> None:
        """Save the memory, and which image each vector comes from."""
        arrays = {"memory": np.ascontiguousarray(self.bank), "sources": self.sources}
        save_file(arrays, folder / "memory.safetensors")
        write_json(folder / "starts.json", self.starts)

    def load(self, folder: Path) -> None:
        """Load the memory."""
        found = load_file(folder / "memory.safetensors")
        self.bank, self.sources = found["memory"], found["sources"]
        self.starts = json.loads((folder / "starts.json").read_text())
        self.__dict__.pop("whole", None)

    @property
    def record(self) -> dict[str, Any]:
        """Return the size of the memory."""
        return {"memory": len(self.bank), "channels": self.bank.shape[1]}

    @cached_property
    def whole(self) -> Memory:
        """The memory, searched."""
        if self.score_params.neighbours > len(self.bank):
            raise UserError(
                f"patchcore: score.neighbours is {self.score_params.neighbours}, but the memory has {len(self.bank)} "
                "vectors; lower it"
            )
        return Memory(self.bank, self.score_params)

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield the component `distance` and its map.

        Raises:
            UserError: the memory has fewer vectors than neighbours are asked for.
        """
        start = self.starts[clip.name] if clip.split == "train" else 0
        for chunk in clip.chunks():
            cells = self._cells(clip, chunk)
            if clip.split == "train":
                # A training image is compared with what others left in the memory: its own would tell nothing.
                parts = [self._without(start + index).look(one[None]) for index, one in enumerate(cells)]
                found, scores = (np.concatenate(values) for values in zip(*parts, strict=True))
                start += len(cells)
            else:
                found, scores = self.whole.look(cells)
            maps = blurred(found, self.score_params.sigma, clip.info["computed"]["height"])
            yield Scores({"distance": scores}, {"distance": maps})

    def _without(self, image: int) -> Memory:
        """Return the memory without what one training image left in it; whole where little else would be there."""
        others = self.sources != image
        if others.all() or others.sum() < self.score_params.neighbours:
            return self.whole
        return Memory(self.bank[others], self.score_params)

    def _cells(self, clip: FeatureClip, chunk: Maps) -> Maps:
        """Return the vectors of all places, (n, h, w, channels)."""
        return joined([neighbourhood_means(one) for one in clip.maps(chunk, self.train.layers)])


class Memory:
    """Vectors of normal places (N, channels), which those of an image are compared with."""

    def __init__(self, bank: Maps, params: ScoreParams) -> None:
        self.bank, self.neighbours = bank, params.neighbours
        self.gallery = Gallery(bank, 1, params.device, spare=0)

    def look(self, cells: Maps) -> tuple[Maps, Maps]:
        """Return of places (n, h, w, channels) the distances to the nearest vector, (n, h, w), and scores (n,)."""
        squares, rows = self.gallery.nearest(cells.reshape(-1, cells.shape[-1]))
        found = np.sqrt(squares[:, 0]).reshape(cells.shape[:3])
        place = found.reshape(len(found), -1).argmax(1) + np.arange(len(found)) * found[0].size
        scores = self._images(cells.reshape(-1, cells.shape[-1])[place], found.ravel()[place], rows[place, 0])
        return found, scores

    def _images(self, cells: Maps, largest: Maps, rows: Indices) -> Maps:
        """Return the scores of images, (n,): the largest distance times how lonely that place's nearest vector is.

        Args:
            cells: the vectors of the places with the largest distances, (n, channels).
            largest: these distances, (n,).
            rows: of the memory that they are from, (n,).
        """
        if self.neighbours == 1:
            return largest
        bank = torch.from_numpy(self.bank)
        apart = torch.cdist(bank[rows], bank, compute_mode="donot_use_mm_for_euclid_dist")
        beside = apart.topk(self.neighbours, largest=False).indices.numpy()
        around = np.sqrt(((self.bank[beside] - cells[:, None]) ** 2).sum(axis=2))
        # 1 - exp(largest) / sum(exp(around)), without numbers that overflow
        scores: Maps = largest * (1 - 1 / np.exp(around - largest[:, None]).sum(axis=1))
        return scores
