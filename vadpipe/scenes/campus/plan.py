"""The site plan of the campus, in metres: plaza, lawn, path and far walk, what stands there, where people walk."""

from __future__ import annotations

import numpy as np

from vadpipe.scenes.arrays import Bools, Floats
from vadpipe.scenes.figures.camera import Mount

CAMERA = Mount(altitude=6.0, pitch=18, yaw=10, focal=1.6)

Corners = tuple[tuple[float, float], ...]  # x and z of the corners of a way

NEAR, FAR, BED, FACADE = 15.5, 30.0, 34.0, 38.0  # z where plaza, lawn and far walk end, and of the facade
_PATH = np.array(((-1.5, 15.0), (9.5, 30.5)))  # x and z of the ends of the path through the lawn

TREES = ((-4.2, 21.5, 6.5, 0.025), (15.0, 25.0, 7.5, 0.02))  # x, z, height, and how far the wind bends it
LAMPS = ((4.6, 15.9), (4.5, 29.6))  # x and z, as for the benches
BENCHES = ((6.9, 16.2), (-4.4, 29.3))

# Ways of normal walkers: half the breadth that they use, and the corners.
WALKS: dict[str, tuple[float, Corners]] = {
    "front": (0.6, ((-30, 9.8), (30, 9.8))),
    "near": (1.7, ((-30, 12.8), (30, 12.8))),
    "far": (1.6, ((-50, 32), (80, 32))),
    "path from left": (1.2, ((-30, 13), (-4, 13), (-1.2, 15.5), (9.2, 30), (11, 32), (60, 32))),
    "path from right": (1.2, ((30, 11.5), (2.5, 12), (-1.0, 15.2), (9.2, 30), (7, 32), (-60, 32))),
    "path from below": (1.2, ((1.5, 4), (1, 10), (-0.8, 15.5), (9.2, 30), (11, 32), (60, 32))),
    "plaza": (1.0, ((3.5, 4), (2.5, 9), (-8, 14.2), (-30, 14.2))),
    "plaza right": (1.0, ((0.0, 4), (0.5, 9), (7, 14.0), (30, 14.2))),
}
LAWN_WALKS: dict[str, Corners] = {
    "lawn left": ((-20, 12.5), (-5, 13), (-3, 15.5), (0.5, 30), (3, 32), (30, 32)),
    "lawn across": ((-30, 24.5), (-4, 24), (4.5, 23.6), (9.2, 30), (11, 32), (60, 32)),
}
LAWN_LOOPS: dict[str, Corners] = {
    "lawn loop": ((4.0, 17.2), (7.5, 17.5), (10.0, 22.0), (10.5, 26.5), (8.3, 24.0)),
}


def on_lawn(x: Floats, z: Floats) -> Bools:
    """Return whether ground points are grass, where no normal walker goes."""
    return np.asarray((z > NEAR) & (z < FAR) & (beside_path(x, z) > 0))


def beside_path(x: Floats, z: Floats) -> Floats:
    """Return metres from the edge of the path through the lawn, negative on it; it widens at both ends."""
    along = (_PATH[1] - _PATH[0]) / np.linalg.norm(_PATH[1] - _PATH[0])
    flare = 1.6 * np.exp(-np.maximum(z - NEAR, 0)) + 1.6 * np.exp(-np.maximum(FAR - z, 0))
    across = (x - _PATH[0, 0]) * along[1] - (z - _PATH[0, 1]) * along[0]
    return np.asarray(np.abs(across) - 1.6 - flare)
