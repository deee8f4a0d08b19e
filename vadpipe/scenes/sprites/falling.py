"""Somebody who falls and lies, in the frame of a body (see people)."""

from __future__ import annotations

import numpy as np

from vadpipe.scenes.arrays import vector
from vadpipe.scenes.figures.drawing import Part
from vadpipe.scenes.figures.people import Look, Pose, person

FALL_S = 1.1  # seconds from standing to lying
_LYING = np.radians(84)
_LIMP = Pose(arms=0.2, reach=1.1, elbow=0.4, spread=0.5)


def falling(look: Look, travelled: float, vigour: float) -> list[Part]:
    """Return a person who walks at vigour 1, lies at vigour 0, and falls forward in between, ever faster."""
    if vigour == 1:
        return person(look, travelled, 1.0)
    turn = _LYING * (1 - vigour) ** 2
    # Forward and up, turned about the feet; what lies is as thick as a body.
    turned = np.array(((np.cos(turn), 0, -np.sin(turn)), (0, 1, 0), (np.sin(turn), 0, np.cos(turn))))
    lifted = vector(0, 0, 0.06 * look.height * np.sin(turn))
    parts = person(look, travelled, vigour, _LIMP)
    return [part._replace(points=part.points @ turned + lifted) for part in parts]
