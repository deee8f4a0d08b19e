"""What rolls: a bicycle, a skateboard and a cart, with their people, in the frame of a body (see people)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from vadpipe.scenes.arrays import Colour, Floats, vector
from vadpipe.scenes.figures.drawing import Part
from vadpipe.scenes.figures.people import GLIDE, PUSH, RUN, Look, arm, leg, person, torso

_GREY = (60, 60, 60)  # axles, handle and mast
_LID = 0.98  # metres above the ground, of the cart


Kind = Callable[[Look, float, float], list[Part]]  # of travelled metres and a vigour in 0..1


def cyclist(look: Look, travelled: float, vigour: float) -> list[Part]:
    """Return a person on a bicycle, who pedals as it rolls, whatever the vigour."""
    rear, front, crank = vector(-0.52, 0, 0.34), vector(0.54, 0, 0.34), vector(-0.06, 0, 0.30)
    saddle, head, bar = vector(-0.22, 0, 0.90), vector(0.38, 0, 0.88), vector(0.44, 0, 1.05)
    tubes = ((crank, saddle, rear, crank, head), (saddle, head), (bar, head, front))
    parts = [Part(np.stack(tube), 0.055, look.paint) for tube in tubes]
    for hub in (rear, front):
        parts += _wheel(hub, 0.34, travelled, (35, 35, 35), 4)
    parts.append(Part(bar + np.array(((0, -0.24, 0), (0, 0.24, 0))), 0.05, (50, 50, 50)))
    parts.append(Part(saddle + np.array(((-0.12, 0, 0.04), (0.1, 0, 0.04))), 0.08, (35, 35, 35)))
    hip = saddle + vector(0, 0, 0.10)
    rider, neck = torso(look, hip, lean=0.6)
    for side in (-1, 1):
        turn = np.pi / 2 * side - travelled / 0.75
        foot = crank + vector(0.17 * np.cos(turn), 0.12 * side, 0.17 * np.sin(turn) + 0.06)
        rider += leg(look, _bent(hip + vector(0, 0.09 * side, 0), foot, 0.245 * look.height))
        shoulder, hand = neck + vector(0, 0.19 * side, -0.08), bar + vector(0, 0.22 * side, 0.03)
        elbow = (shoulder + hand) / 2 + vector(-0.05, 0.05 * side, -0.08)
        rider += arm(look, np.stack((shoulder, elbow, hand)))
    return parts + rider


def skater(look: Look, travelled: float, vigour: float) -> list[Part]:
    """Return a person who glides sideways on a skateboard, whatever the vigour."""
    cos, sin = np.cos(np.radians(62)), np.sin(np.radians(62))
    sideways = np.array(((cos, sin, 0), (-sin, cos, 0), (0, 0, 1)))
    rider = person(look, travelled, 1.0, GLIDE)
    parts = [part._replace(points=part.points @ sideways + vector(0, 0, 0.13)) for part in rider]
    deck = np.array(((-0.48, 0, 0.16), (-0.36, 0, 0.11), (0.36, 0, 0.11), (0.48, 0, 0.16)))
    parts.append(Part(deck, 0.09, look.paint))
    for along in (-0.3, 0.3):
        parts.append(Part(np.array(((along, -0.08, 0.04), (along, 0.08, 0.04))), 0.08, _GREY))
    return parts


def pushed_cart(look: Look, travelled: float, vigour: float) -> list[Part]:
    """Return a person who pushes a cart by its handle."""
    handle = np.array(((-0.62, -0.3, 0.9), (-0.85, -0.3, 1.1), (-0.85, 0.3, 1.1), (-0.62, 0.3, 0.9)))
    behind = [part._replace(points=part.points - vector(1.25, 0, 0)) for part in person(look, travelled, vigour, PUSH)]
    return [*_cart(look.paint, travelled), Part(handle, 0.04, _GREY), *behind]


def driving_cart(look: Look, travelled: float, vigour: float) -> list[Part]:
    """Return a cart with a flag that drives by itself, whatever the vigour."""
    mast = np.array(((-0.5, 0, _LID), (-0.5, 0, 1.75), (-0.75, 0, 1.7)))
    return [*_cart(look.paint, travelled), Part(mast[:2], 0.05, _GREY), Part(mast[1:], 0.12, (40, 120, 230))]


def _cart(paint: Colour, travelled: float) -> list[Part]:
    """Return a box on four wheels."""
    length, breadth = 0.62, 0.40  # half of them
    corner = np.array([(x, y, z) for x in (-length, length) for y in (-breadth, breadth) for z in (0.26, _LID)])
    lid, sides, ends = ((1, 3, 7, 5),), ((0, 1, 5, 4), (2, 3, 7, 6)), ((0, 1, 3, 2), (4, 5, 7, 6))
    parts = []
    for faces, light in ((lid, 1.15), (sides, 0.9), (ends, 0.75)):
        blue, green, red = (min(light * value, 255.0) for value in paint)
        parts += [Part(corner[list(face)], 0.0, (blue, green, red)) for face in faces]
    for side in (-1, 1):
        stripe = np.array(((-length, 1.02 * breadth * side, 0.7), (length, 1.02 * breadth * side, 0.7)))
        parts.append(Part(stripe, 0.12, (215, 215, 215)))
        for along in (-0.38, 0.38):
            hub = vector(along, 0.42 * side, 0.2)
            parts += [Part(hub[None], 0.40, (40, 40, 42)), *_wheel(hub, 0.15, travelled, (80, 80, 80), 2)]
    return parts


def _wheel(hub: Floats, radius: float, travelled: float, tyre: Colour, spokes: int) -> list[Part]:
    """Return a wheel that turns in the plane of travel; a spoke goes from rim to rim."""
    rim = np.linspace(0, 2 * np.pi, 17)
    tips = (np.arange(2 * spokes) * np.pi / spokes - travelled / radius).repeat(2)
    star = radius * np.tile((0.0, 1.0), 2 * spokes)  # from the hub to a tip and back
    return [
        Part(_around(hub, radius, rim), 0.06, tyre),
        Part(_around(hub, star, tips), 0.02, (150, 150, 150)),
    ]


def _around(hub: Floats, distance: Floats | float, angles: Floats) -> Floats:
    """Return points (n, 3) around a hub at angles (n,) in the plane of travel."""
    offsets = (distance * np.cos(angles), np.zeros_like(angles), distance * np.sin(angles))
    return np.asarray(hub + np.stack(offsets, axis=1))


def _bent(root: Floats, end: Floats, bone: float) -> Floats:
    """Return the joints (3, 3) of two bones of equal length between two points, bent forward."""
    along = end - root
    reach = float(np.linalg.norm(along))
    aside = np.sqrt(max(0.0, bone**2 - reach**2 / 4))
    return np.stack((root, (root + end) / 2 + aside / reach * vector(-along[2], 0.0, along[0]), end))


BODIES: dict[str, Kind] = {
    "cyclist": cyclist,
    "cart": driving_cart,
    "pushed cart": pushed_cart,
    "skater": skater,
    "runner": partial(person, pose=RUN),
    "walker": person,
}
