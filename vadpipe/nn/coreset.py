"""A few vectors that cover many: greedy k-centre, exactly (Gonzalez, 1985), as PatchCore takes its memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from vadpipe import progress
from vadpipe.nn.device import choose_device

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

# Share of the vectors above which comparing all of them in their order takes less time than bringing those together
# that a bound leaves over.
_ALL = 0.25


def k_centre(vectors: Vectors, count: int, first: int) -> Indices:
    """Return rows of vectors (N, D): the first, then again and again the one that is farthest from all before.

    A new centre c is nearer to a vector x than its centre m only if |c - m| < 2 |x - m|, so that of short vectors most
    distances need not be computed: what comes out is what comparing all of them gives.

    Args:
        count: of rows; all of them, if there are no more. Rows that equal one that was taken are not taken.
    """
    choose_device("cpu")
    vectors = np.ascontiguousarray(vectors - vectors.mean(axis=0), np.float32)
    count = min(count, len(vectors))
    chosen = np.empty(count, np.int64)
    centres = np.empty((count, vectors.shape[1]), np.float32)
    chosen[0], centres[0] = first, vectors[first]
    owner = np.zeros(len(vectors), np.int32)
    # Room for bounds and vectors: asking for it anew takes as long as what is computed in it.
    bound, room = np.empty(len(vectors), np.float32), np.empty_like(vectors[: int(_ALL * len(vectors))])
    everything = np.arange(len(vectors))
    reach = _distances(vectors, vectors[first])
    with progress.bar(count, "vectors", "coreset", done=1) as bar:
        for step in range(1, count):
            farthest = int(reach.argmax())
            if reach[farthest] == 0:
                return chosen[:step]
            centre = vectors[farthest]
            half = _distances(centres[:step], centre) / 2
            # `clip` is never needed, but without it `take` fills a copy first.
            np.take(half, owner, out=bound, mode="clip")
            maybe = np.flatnonzero(reach > bound)
            if len(maybe) > len(room):
                maybe, some = everything, vectors
            else:
                some = np.take(vectors, maybe, axis=0, out=room[: len(maybe)], mode="clip")
            distance = _distances(some, centre)
            nearer = distance < reach[maybe]
            moved = maybe[nearer]
            reach[moved], owner[moved] = distance[nearer], step
            chosen[step], centres[step] = farthest, centre
            reach[farthest] = 0
            bar.update()
    return chosen


def _distances(vectors: Vectors, centre: Vectors) -> Vectors:
    """Return the distances of vectors (n, D) to a centre, (n,), from differences, which lose no digits."""
    ends = torch.from_numpy(vectors), torch.from_numpy(centre[None])
    apart = torch.cdist(*ends, compute_mode="donot_use_mm_for_euclid_dist")
    found: Vectors = apart[:, 0].numpy()
    return found
