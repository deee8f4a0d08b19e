"""`knn`: distance of a frame's vector to its nearest training vectors (DN2).

Bergman, Cohen, Hoshen, "Deep Nearest Neighbor Anomaly Detection", 2020: nothing is trained, the gallery is
all training vectors, and the score is the sum of the squared L2 distances to the k = 2 nearest of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors.numpy import load_file, save_file

from vadpipe.errors import UserError
from vadpipe.methods.base import Fit, Method, Section
from vadpipe.params import Device
from vadpipe.store import FeatureClip, Store
from vadpipe.store.features import Vectors
from vadpipe.store.scores import Scores

# Gallery rows a step on a GPU: 65,536 rows against 256 queries are 64 MiB of distances.
_GALLERY_STEP = 65_536
# Candidates searched beyond k. A search computes |x|^2 - 2xy + |y|^2, a small difference of large numbers;
# with some to spare, and the distances of the candidates computed anew, rounding cannot lose a neighbour.
_SPARE = 8

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
        """Gather the training vectors."""
        self.gallery = np.concatenate([clip.vectors() for clip in store.clips("train")])
        self.search: Search | None = None

    def save(self, folder: Path) -> None:
        """Save the gallery."""
        save_file({"gallery": self.gallery}, folder / "gallery.safetensors")

    def load(self, folder: Path) -> None:
        """Load the gallery."""
        self.gallery = load_file(folder / "gallery.safetensors")["gallery"]
        self.search = None

    def score(self, clip: FeatureClip) -> Iterator[Scores]:
        """Yield one component, `distance`, in squared units of the features.

        Raises:
            UserError: k is larger than the gallery.
        """
        if self.search is None:
            self.search = _search(self.gallery, self.score_params.k, self.score_params.device)
        for vectors in clip.chunks():
            candidates = self.search(vectors)
            distances = np.stack([((vectors - self.gallery[column]) ** 2).sum(1) for column in candidates.T], axis=1)
            yield Scores({"distance": np.sort(distances, axis=1)[:, : self.score_params.k].sum(1)})


def _search(gallery: Vectors, k: int, device: str) -> Search:
    """Return a search: vectors (n, D) -> indices (n, k and some to spare) of the nearest gallery rows."""
    if k > len(gallery):
        raise UserError(f"knn: k = {k} is larger than the gallery of {len(gallery)} training vectors; lower score.k")
    count = min(k + _SPARE, len(gallery))
    # Distances do not change when everything moves, but near the origin they lose fewer digits.
    centre = gallery.mean(0)
    search = _nearest(gallery - centre, count, device)
    return lambda vectors: search(vectors - centre)


def _nearest(gallery: Vectors, count: int, device: str) -> Search:
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
