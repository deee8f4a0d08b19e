"""Nearest neighbours of vectors, exactly: faiss on a CPU, PyTorch in steps on a GPU or where there is no faiss.

For the one nearest a CPU goes through tiles of distances that stay in its cache: of vectors as short as those of
feature maps it finds several times as many a second as faiss (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from vadpipe.errors import UserError

# Gallery rows a step on a GPU: 65,536 rows against 256 queries are 64 MiB of distances.
_GALLERY_STEP = 65_536
# Candidates searched beyond k. A search computes |x|^2 - 2xy + |y|^2, a small difference of large numbers;
# with some to spare, and the distances of the candidates computed anew, rounding cannot lose a neighbour.
_SPARE = 8
# Training vectors, about, that the centre is taken of.
_CENTRE_OF = 10_000
# Queries and gallery rows of a tile: 4 MiB of distances. Square, for the product of long vectors is fastest then.
_TILE = 1024, 1024
# Floats of candidates that are compared anew at once.
_AT_ONCE = 2**24

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]
Search = Callable[[Vectors], Indices]


class Gallery:
    """Vectors (N, D), among which the k nearest of others are found.

    A vector so long that its square is no number any more is left out: it is nobody's neighbour.

    Args:
        centre: (D,), about in the middle of all vectors; None = it is sought.
        spare: candidates beyond k that are compared.

    Raises:
        UserError: k is larger than the gallery.
    """

    def __init__(
        self, vectors: Vectors, k: int, device: str, centre: Vectors | None = None, spare: int = _SPARE
    ) -> None:
        # Distances do not change when everything moves, but near the origin they lose fewer digits. The median, since
        # one absurd vector moves a mean to where all digits are lost.
        self.centre = np.median(vectors[:: max(1, len(vectors) // _CENTRE_OF)], axis=0) if centre is None else centre
        with np.errstate(over="ignore"):
            vectors = vectors - self.centre
            self.kept = np.flatnonzero(np.isfinite((vectors**2).sum(1)))
            self.vectors = vectors[self.kept] if len(self.kept) < len(vectors) else vectors
        if k > len(self.vectors):
            raise UserError(
                f"k = {k} is larger than the gallery of {len(self.vectors)} training vectors; lower score.k"
            )
        self.k = k
        self.search = _nearest(self.vectors, min(k + spare, len(self.vectors)), device)

    def nearest(self, queries: Vectors, own: bool = False) -> tuple[Vectors, Indices]:
        """Return the squared distances of queries (n, D) to the k nearest, (n, k), nearest first, and their rows.

        Args:
            own: the queries are vectors of the gallery: none is its own neighbour, where there are others.
        """
        queries = queries - self.centre
        candidates = self.search(queries)
        distances = np.empty(candidates.shape, np.float32)
        step = max(1, _AT_ONCE // (candidates.shape[1] * self.vectors.shape[1]))
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            near = self.vectors[candidates[part]]
            distances[part] = ((queries[part, None] - near) ** 2).sum(2)
        order = np.argsort(distances, axis=1, kind="stable")
        if own and order.shape[1] > self.k:
            itself = np.take_along_axis(distances, order[:, :1], axis=1) == 0
            order = np.where(itself, order[:, 1 : self.k + 1], order[:, : self.k])
        order = order[:, : self.k]
        rows = np.take_along_axis(candidates, order, axis=1)
        return np.take_along_axis(distances, order, axis=1), self.kept[rows]


def nearest_in_parts(queries: Vectors, parts: Iterable[Vectors], k: int, device: str) -> Vectors:
    """Return the squared distances of queries (n, D) to the k nearest vectors of a gallery that comes in parts, (n, k).

    Raises:
        UserError: k is larger than the gallery.
    """
    best = np.full((len(queries), 0), np.inf, np.float32)
    # Near the queries those that matter keep their digits, and a search for one is several times as fast as for nine.
    centre = queries.mean(axis=0)
    for part in parts:
        near, _ = Gallery(part, min(k, len(part)), device, centre, spare=0).nearest(queries)
        best = np.sort(np.concatenate([best, near], axis=1), axis=1)[:, :k]
    if best.shape[1] < k:
        raise UserError(f"{k} nearest places are wanted, but the gallery has {best.shape[1]}; lower score.nearest")
    return best


def _nearest(gallery: Vectors, count: int, device: str) -> Search:
    """Return a search: vectors (n, D) -> indices (n, count) of the nearest gallery rows."""
    if device not in {"auto", "cpu"} or (device == "auto" and _gpu_is_there()):
        return _torch_search(gallery, count, device)
    if count == 1:
        return _tiled_search(gallery)
    try:
        import faiss
    except ModuleNotFoundError:
        return _torch_search(gallery, count, device)
    index = faiss.IndexFlatL2(gallery.shape[1])
    index.add(gallery)
    return lambda vectors: index.search(vectors, count)[1]


def _gpu_is_there() -> bool:
    import torch

    return torch.cuda.is_available()


def _tiled_search(gallery: Vectors) -> Search:
    """Return a search for the nearest row, (n, 1), on the CPU."""
    import torch

    from vadpipe.nn.device import choose_device

    choose_device("cpu")
    rows, columns = _TILE
    parts = [torch.from_numpy(gallery[start : start + columns]) for start in range(0, len(gallery), columns)]
    tiles = [(part.T.contiguous(), part.square().sum(1)) for part in parts]

    def search(vectors: Vectors) -> Indices:
        queries = torch.from_numpy(np.ascontiguousarray(vectors, np.float32))
        best, tile = torch.full((len(queries),), torch.inf), torch.zeros(len(queries), dtype=torch.int64)
        for start in range(0, len(queries), rows):
            some = slice(start, start + rows)
            for number, (part, norms) in enumerate(tiles):
                # Without the square of the query, which is the same for all rows. Where it stands is asked later: a
                # minimum alone is several times as fast.
                values = torch.addmm(norms, queries[some], part, alpha=-2).amin(1)
                nearer = values < best[some]
                best[some] = torch.where(nearer, values, best[some])
                tile[some] = torch.where(nearer, number, tile[some])
        index = torch.empty(len(queries), dtype=torch.int64)
        for number in np.unique(tile.numpy()).tolist():
            (chosen,) = torch.where(tile == number)
            part, norms = tiles[number]
            index[chosen] = torch.addmm(norms, queries[chosen], part, alpha=-2).argmin(1) + number * columns
        return index[:, None].numpy()

    return search


def _torch_search(gallery: Vectors, count: int, device: str) -> Search:
    import torch

    from vadpipe.nn.device import choose_device

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
