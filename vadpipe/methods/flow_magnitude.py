"""`flow_magnitude`: the fastest place of a frame.

A baseline: on many sets of pedestrians whatever is faster than a walker is abnormal.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field

from vadpipe.methods.base import Method, Section
from vadpipe.nn.cells import cell_means
from vadpipe.store import FlowClip
from vadpipe.store.scores import Scores


class ScoreParams(Section):
    """Parameters of scoring."""

    cell: int = Field(ge=1)  # side of a cell in pixels of the frame


class FlowMagnitude(Method[FlowClip]):
    """Score = largest mean length of the flow vectors in a cell; the first frame of a clip is not covered."""

    needs = "flow"
    temporal = True
    Score = ScoreParams

    def score(self, clip: FlowClip) -> Iterator[Scores]:
        """Yield one component and its map of cells, `magnitude`, in pixels a frame."""
        for chunk in clip.chunks():
            flow = chunk.astype(np.float32)
            cells = cell_means(np.hypot(flow[..., 0], flow[..., 1]), *clip.cell(self.score_params.cell))
            yield Scores({"magnitude": cells.max((1, 2))}, {"magnitude": cells})
