"""`knn`: distance of a frame's vector to its nearest training vectors (DN2).

Bergman, Cohen, Hoshen, "Deep Nearest Neighbor Anomaly Detection", 2020: nothing is trained, the gallery is
all training vectors, and the score is the sum of the squared L2 distances to the k = 2 nearest of them.

Where the feature set has a grid, each cell has a gallery of its own (the camera stands still, and what is
normal depends on the place), and a frame scores what its worst cell does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors.numpy import load_file, save_file

from vadpipe.errors import UserError
from vadpipe.methods.base import Fit, Method, Section, training_clips
from vadpipe.params import Device
from vadpipe.store import FeatureClip, Store
from vadpipe.store.features import Vectors
from vadpipe.store.scores import Scores

# Gallery rows a step on a GPU: 65,536 rows against 256 queries are 64 MiB of distances.
_GALLERY_STEP = 65_536
# Candidates searched beyond k. A search computes |x|^2 - 2xy + |y|^2, a small difference of large numbers;
# with some to spare, and the distances of the candidates computed anew, rounding cannot lose a neighbour.
_SPARE = 8
# Training vectors, about, that the centre is taken of.
_CENTRE_OF = 10_000

Indices = npt.NDArray[np.int64]
Search = Callable[[Vectors], Indices]


class ScoreParams(Section):
    """Parameters of scoring."""

    k: int = Field(ge=1)
    device: Device


class Knn(Method[FeatureClip]):
    """Score = sum of the squared L2 distances to the k nearest training vectors; exact."""

    needs = "features"
    temporal = False
    Score = ScoreParams

    def fit(self, store: Store[FeatureClip], fit: Fit) -> None:
        """Gather the training vectors, (N, cells, D)."""
        self.vectors = np.concatenate([clip.cells(clip.vectors()) for clip in training_clips(self, store)])

    def save(self, folder: Path) -> None:
        """Save the training vectors."""
        save_file({"vectors": self.vectors}, folder / "gallery.safetensors")

    def load(self, folder: Path) -> None:
        """Load the training vectors."""
        self.vectors = load_file(folder / "gallery.safetensors")["vectors"]
        self.__dict__.pop("galleries", None)

    @cached_property
    def galleries(self) -> list[Gallery]:
        """A gallery a cell."""
        params = self.score_params
        return [Gallery(np.ascontiguousarray(cell), params.k, params.device) for cell in self.vectors.swapaxes(0, 1)]

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield one component, `distance`, in squared units of the features.

        Of a grid it is the largest over the cells, and the map `distance` (n, rows, columns) holds all.

        Raises:
            UserError: k is larger than the gallery.
        """
        for chunk in clip.chunks():
            cells = clip.cells(chunk).swapaxes(0, 1)
            values = np.stack([gallery.distances(cell) for gallery, cell in zip(self.galleries, cells, strict=True)], 1)
            maps = {"distance": values.reshape(-1, *clip.grid)} if len(cells) > 1 else {}
            yield Scores({"distance": values.max(1)}, maps)


class Gallery:
    """Training vectors (N, D), and the sum of the squared distances to the k nearest of them.

    A vector so long that its square is no number any more is left out: it is nobody's neighbour.

    Raises:
        UserError: k is larger than the gallery.
    """

    def __init__(self, vectors: Vectors, k: int, device: str) -> None:
        # Distances do not change when everything moves, but near the origin they lose fewer digits. The median, since
        # one absurd vector moves a mean to where all digits are lost.
        self.centre = np.median(vectors[:: max(1, len(vectors) // _CENTRE_OF)], axis=0)
        with np.errstate(over="ignore"):
            vectors = vectors - self.centre
            self.vectors = vectors[np.isfinite((vectors**2).sum(1))]
        if k > len(self.vectors):
            raise UserError(
                f"knn: k = {k} is larger than the gallery of {len(self.vectors)} training vectors; lower score.k"
            )
        self.k = k
        self.search = _nearest(self.vectors, min(k + _SPARE, len(self.vectors)), device)

    def distances(self, queries: Vectors) -> Vectors:
        """Return the score (n,) of queries (n, D)."""
        queries = queries - self.centre
        candidates = self.search(queries).T
        distances = np.stack([((queries - self.vectors[column]) ** 2).sum(1) for column in candidates], axis=1)
        nearest: Vectors = np.sort(distances, axis=1)[:, : self.k].sum(1)
        return nearest


def _nearest(gallery: Vectors, count: int, device: str) -> Search:
    """Return a search: vectors (n, D) -> indices (n, count) of the nearest gallery rows."""
    if device in {"auto", "cpu"}:
        try:
            import faiss
        except ModuleNotFoundError:
            return _torch_search(gallery, count, device)
        if device == "cpu" or not _gpu_is_there():
            index = faiss.IndexFlatL2(gallery.shape[1])
            index.add(gallery)
            return lambda vectors: index.search(vectors, count)[1]
    return _torch_search(gallery, count, device)


def _gpu_is_there() -> bool:
    import torch

    return torch.cuda.is_available()


def _torch_search(gallery: Vectors, count: int, device: str) -> Search:
    import torch

    from vadpipe.training.device import choose_device

    place = choose_device(device)
    rows = torch.tensor(gallery, device=place)
    norms = (rows**2).sum(1)

    def search(vectors: Vectors) -> Indices:
        queries = torch.tensor(vectors, device=place)
        best: Any = None
        for start in range(0, len(rows), _GALLERY_STEP):
            part = rows[start : start + _GALLERY_STEP]
            distances = norms[start : start + len(part)] - 2 * queries @ part.T
            values, indices = distances.topk(min(count, len(part)), largest=False)
            indices = indices + start
            if best is not None:
                values, indices = torch.cat([best[0], values], 1), torch.cat([best[1], indices], 1)
                values, order = values.topk(min(count, values.shape[1]), largest=False)
                indices = indices.gather(1, order)
            best = values, indices
        return best[1].cpu().numpy()  # type: ignore[no-any-return]

    return search
