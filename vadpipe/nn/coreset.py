"""A few vectors that cover many: greedy k-centre, exactly (Gonzalez, 1985), as PatchCore takes its memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


def k_centre(vectors: Vectors, count: int, first: int) -> Indices:
    """Return rows of vectors (N, D): the first, then again and again the one that is farthest from all before.

    A new centre c is nearer to a vector x than its centre m only if |c - m| < 2 |x - m|, so that most distances need
    not be computed: what comes out is what comparing all of them gives.

    Args:
        count: of rows; all of them, if there are no more. Rows that equal one that was taken are not taken.
    """
    vectors = np.ascontiguousarray(vectors - vectors.mean(axis=0), np.float32)
    count = min(count, len(vectors))
    chosen = np.empty(count, np.int64)
    centres = np.empty((count, vectors.shape[1]), np.float32)
    chosen[0], centres[0] = first, vectors[first]
    owner = np.zeros(len(vectors), np.int32)
    # Room for differences and bounds: asking for it anew takes as long as what is computed in it.
    room, bound = np.empty_like(vectors), np.empty(len(vectors), np.float32)
    reach = _lengths(np.subtract(vectors, vectors[first], out=room))
    for step in range(1, count):
        farthest = int(reach.argmax())
        if reach[farthest] == 0:
            return chosen[:step]
        centre = vectors[farthest]
        half = _lengths(np.subtract(centres[:step], centre, out=room[:step])) / 2
        # `clip` is never needed, but without it `take` fills a copy first.
        np.take(half, owner, out=bound, mode="clip")
        maybe = np.flatnonzero(reach > bound)
        apart = np.take(vectors, maybe, axis=0, out=room[: len(maybe)], mode="clip")
        apart -= centre
        distance = _lengths(apart)
        nearer = distance < reach[maybe]
        moved = maybe[nearer]
        reach[moved], owner[moved] = distance[nearer], step
        chosen[step], centres[step] = farthest, centre
        reach[farthest] = 0
    return chosen


def _lengths(vectors: Vectors) -> Vectors:
    squares: Vectors = np.einsum("ij,ij->i", vectors, vectors)
    return np.sqrt(squares, out=squares)
