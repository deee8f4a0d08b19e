"""`patchcore`: how far a place is from the nearest of all normal places, wherever that lay.

Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler, "Towards total recall in industrial anomaly detection", CVPR 2022.
Maps of the middle layers, averaged over 3x3 cells and joined at the size of the first, give a vector a place; a coreset
of those of the training images is the memory. The map is the distance to the nearest vector of the memory, blurred; the
image scores its largest distance, weighted by how lonely that nearest vector is (Eq. 7). The authors' code also brings
the channels of both layers to 1,024 by mixing neighbours, and does not weight; here all channels are kept.
"""

from __future__ import annotations

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
        cells = cells.reshape(-1, cells.shape[-1])
        count = max(1, round(self.train.coreset * len(cells)))
        if count < len(cells):
            chance = np.random.default_rng(fit.seed)
            shape = cells.shape[1], min(self.train.projection, cells.shape[1])
            projection = chance.standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[1]))
            first = int(chance.integers(len(cells)))
            cells = cells[np.sort(k_centre(cells @ projection, count, first))]
        self.bank = cells

    def save(self, folder: Path) -> None:
        """Save the memory."""
        save_file({"memory": np.ascontiguousarray(self.bank)}, folder / "memory.safetensors")

    def load(self, folder: Path) -> None:
        """Load the memory."""
        self.bank = load_file(folder / "memory.safetensors")["memory"]
        self.__dict__.pop("gallery", None)

    @property
    def record(self) -> dict[str, Any]:
        """Return the size of the memory."""
        return {"memory": len(self.bank), "channels": self.bank.shape[1]}

    @cached_property
    def gallery(self) -> Gallery:
        """The memory, searched."""
        if self.score_params.neighbours > len(self.bank):
            raise UserError(
                f"patchcore: score.neighbours is {self.score_params.neighbours}, but the memory has {len(self.bank)} "
                "vectors; lower it"
            )
        return Gallery(self.bank, 1, self.score_params.device, spare=0)

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield the component `distance` and its map.

        Raises:
            UserError: the memory has fewer vectors than neighbours are asked for.
        """
        for chunk in clip.chunks():
            cells = self._cells(clip, chunk)
            squares, rows = self.gallery.nearest(cells.reshape(-1, cells.shape[-1]))
            found = np.sqrt(squares[:, 0]).reshape(cells.shape[:3])
            place = found.reshape(len(found), -1).argmax(1) + np.arange(len(found)) * found[0].size
            scores = self._images(cells.reshape(-1, cells.shape[-1])[place], found.ravel()[place], rows[place, 0])
            maps = blurred(found, self.score_params.sigma, clip.info["computed"]["height"])
            yield Scores({"distance": scores}, {"distance": maps})

    def _images(self, cells: Maps, largest: Maps, rows: Indices) -> Maps:
        """Return the scores of images, (n,): the largest distance times how lonely that place's nearest vector is.

        Args:
            cells: the vectors of the places with the largest distances, (n, channels).
            largest: these distances, (n,).
            rows: of the memory that they are from, (n,).
        """
        if self.score_params.neighbours == 1:
            return largest
        bank = torch.from_numpy(self.bank)
        apart = torch.cdist(bank[rows], bank, compute_mode="donot_use_mm_for_euclid_dist")
        beside = apart.topk(self.score_params.neighbours, largest=False).indices.numpy()
        around = np.sqrt(((self.bank[beside] - cells[:, None]) ** 2).sum(axis=2))
        # 1 - exp(largest) / sum(exp(around)), without numbers that overflow
        scores: Maps = largest * (1 - 1 / np.exp(around - largest[:, None]).sum(axis=1))
        return scores

    def _cells(self, clip: FeatureClip, chunk: Maps) -> Maps:
        """Return the vectors of all places, (n, h, w, channels)."""
        return joined([neighbourhood_means(one) for one in clip.maps(chunk, self.train.layers)])
