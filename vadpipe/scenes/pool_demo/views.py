"""A view: one pool, its hall or garden, and where the camera stands."""

from __future__ import annotations

from dataclasses import dataclass

from vadpipe.scenes.arrays import Colour

LANE, MARGIN = 2.5, 0.5  # metres of breadth of a lane, and of water beside the outermost ropes


@dataclass(frozen=True)
class Ropes:
    """Colours of the lane ropes: sections at both ends, and alternating floats between, for each rope in turn."""

    ends: Colour
    middles: tuple[tuple[Colour, ...], ...]


@dataclass(frozen=True)
class Water:
    """Colours of floor, lines and the water itself, its clarity in metres, and the floor's tiles in 0..1."""

    floor: Colour
    line: Colour
    body: Colour
    clarity: float
    tiles: float
    depths: tuple[float, float]  # metres at both ends
    waves: float  # standard deviation of the slope


@dataclass(frozen=True)
class Hall:
    """What is around the pool: colours of wall, roof and deck, and whether there is a roof at all."""

    wall: Colour
    roof: Colour
    deck: Colour
    lamps: tuple[float, float, float]  # metres between them; part of the breadth and metres up of their rows
    banners: tuple[Colour, ...]
    board: Colour
    outdoors: bool = False
    sun: tuple[float, float] = (0.0, 0.0)  # u and v of the direction to it, for one metre up


@dataclass(frozen=True)
class View:
    """A pool, its surroundings, and a camera: positions in metres, roll in degrees, focal length in image widths."""

    name: str
    length: float
    lanes: int
    position: tuple[float, float, float]
    target: tuple[float, float]
    roll: float
    focal: float
    water: Water
    ropes: Ropes
    hall: Hall
    blocks: float = 0.0  # the end of the lanes where the starting blocks are, 0 or 1
    audience: int = 6  # people seen from behind in front of the camera

    @property
    def breadth(self) -> float:
        """Return the metres across all lanes."""
        return self.lanes * LANE + 2 * MARGIN

    def rope(self, number: int) -> float:
        """Return metres v of a rope, 0..lanes."""
        return MARGIN + number * LANE
