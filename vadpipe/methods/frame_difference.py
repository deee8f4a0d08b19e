"""`frame_difference`: how much the grey of a frame changed since the frame before.

A baseline: the amount of change, wherever it is and whatever moves.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vadpipe.methods.base import Method
from vadpipe.store import Clip
from vadpipe.store.scores import Scores


class FrameDifference(Method[Clip]):
    """Score = mean |grey(t) - grey(t - 1)|; the first frame of a clip is not covered."""

    needs = "clips"
    temporal = True

    def score(self, clip: Clip) -> Iterator[Scores]:
        """Yield one component, `difference`, in grey levels."""
        before = None
        for chunk in clip.chunks(grey=True):
            frames = chunk.astype(np.int16)
            earlier = frames[:1] if before is None else before
            difference = np.abs(np.diff(frames, axis=0, prepend=earlier)).mean((1, 2)).astype(np.float32)
            if before is None:
                difference[0] = np.nan
            before = frames[-1:]
            yield Scores({"difference": difference})
