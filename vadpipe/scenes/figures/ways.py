"""Ways over the ground, and the actors that move along them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vadpipe.scenes.arrays import Floats
from vadpipe.scenes.figures.camera import Camera
from vadpipe.scenes.figures.drawing import Figure, Part, Standing

Body = Callable[[float, float], list[Part]]  # parts at a number of travelled metres and a vigour in 0..1


@dataclass(frozen=True)
class Way:
    """A line over the ground: x, z and heading (n,) at so many metres from its start (n,)."""

    metres: Floats
    x: Floats
    z: Floats
    heading: Floats
    closed: bool

    def place(self, travelled: float) -> tuple[float, float, float] | None:
        """Return metres x and z and the heading in radians; None beyond the ends."""
        if self.closed:
            travelled %= float(self.metres[-1])
        if not 0 <= travelled <= self.metres[-1]:
            return None
        x, z, heading = (float(np.interp(travelled, self.metres, axis)) for axis in (self.x, self.z, self.heading))
        return x, z, heading

    def reversed(self) -> Way:
        """Return the same way, walked in the other direction."""
        return replace(self, x=self.x[::-1], z=self.z[::-1], heading=self.heading[::-1] + np.pi)


def trace(corners: Sequence[tuple[float, float]], camera: Camera, closed: bool = False) -> Way:
    """Return the rounded way through corners (x, z), cut to what the camera sees with room for a figure."""
    line = np.array([*corners, corners[0]] if closed else corners, dtype=float)
    for _ in range(3):  # Chaikin's corner cutting
        inner = np.stack((0.75 * line[:-1] + 0.25 * line[1:], 0.25 * line[:-1] + 0.75 * line[1:]), axis=1)
        line = np.concatenate((line[:1], inner.reshape(-1, 2), line[-1:]))
    length = np.cumsum(np.hypot(*np.diff(line, axis=0, prepend=line[:1]).T))
    metres = np.arange(0.0, length[-1], 0.1)
    x, z = np.interp(metres, length, line[:, 0]), np.interp(metres, length, line[:, 1])
    column, row, depth = camera.project(np.stack((x, np.zeros_like(x), z), axis=1)).T
    scale = camera.focal / depth  # pixels of a metre
    seen = np.abs(column - camera.width / 2) < camera.width / 2 + 1.4 * scale
    seen &= (row < camera.height + 2.2 * scale) & (depth > 1.0)
    x, z = x[seen], z[seen]
    heading = np.unwrap(np.arctan2(np.gradient(z), np.gradient(x)))
    return Way(metres[: seen.sum()], x, z, heading, closed)


@dataclass(frozen=True)
class Actor:
    """Somebody on a way, `aside` metres to its left: metres travelled and vigour of the gait at every frame (n,)."""

    body: Body
    way: Way
    aside: float
    travelled: Floats
    vigour: Floats
    abnormal: bool  # wherever it is

    def stand(self, frame: int) -> Standing | None:
        """Return the figure where it is at a frame; None while the actor is off its way."""
        travelled = float(self.travelled[frame])
        place = self.way.place(travelled)
        if place is None:
            return None
        x, z, heading = place
        cos, sin = np.cos(heading), np.sin(heading)
        x, z = x - self.aside * sin, z + self.aside * cos
        figure = Figure(self.body(travelled, float(self.vigour[frame])))
        from_body = np.array(((cos, 0.0, sin), (-sin, 0.0, cos), (0.0, 1.0, 0.0)))  # forward, left, up to x, y, z
        figure.points = figure.points @ from_body + (x, 0.0, z)
        return Standing(figure, x, z)
