"""The scale on which maps are drawn: one for all images of a run, and none of them sets it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Heat = npt.NDArray[np.float32]


class Scale(NamedTuple):
    """Values of a map, dark < bright; what lies beyond them is drawn as they are.

    Attributes:
        meaning: what the two are, in words.
    """

    dark: float
    bright: float
    meaning: str

    def shares(self, heat: Heat) -> Heat:
        """Return how bright the values of a map (h, w) are, 0 to 1; NaN is dark.

        Brightness is the root of the way from dark to bright: what is little above training is seen beside what is far.
        """
        shares = (np.nan_to_num(heat, nan=self.dark) - self.dark) / (self.bright - self.dark)
        return np.asarray(np.sqrt(np.clip(shares, 0, 1)), np.float32)

    @property
    def ends(self) -> str:
        """Return the two values as text."""
        return f"{self.dark:.3g} to {self.bright:.3g}"
