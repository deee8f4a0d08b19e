"""People: what they look like, and how they walk, run, push and glide.

A body is given in its own frame: forward, left and up in metres, from the ground below its centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Colour, Floats, vector
from vadpipe.scenes.figures.drawing import Part

# fmt: off
_TOPS = (
    (60, 60, 65), (150, 95, 50), (70, 70, 150), (190, 190, 195), (105, 125, 95), (90, 60, 40),
    (80, 145, 175), (140, 115, 145), (205, 200, 180), (50, 50, 105), (120, 120, 125), (90, 125, 70),
)
_TROUSERS = (
    (95, 65, 45), (45, 42, 42), (115, 135, 148), (95, 95, 98), (75, 85, 95), (125, 95, 70), (55, 47, 58),
)
# fmt: on
_SKINS = ((135, 165, 215), (110, 145, 195), (75, 105, 150), (55, 75, 110))
_HAIRS = ((30, 35, 40), (40, 60, 90), (90, 140, 170), (130, 135, 140), (28, 32, 55))
_PAINTS = ((60, 60, 180), (165, 95, 45), (70, 125, 70), (200, 200, 205), (45, 145, 205), (50, 50, 52))
_PAVING = 128  # grey that colours fade to


@dataclass(frozen=True)
class Look:
    """Height in metres and colours of a person, and of the bag or vehicle (`paint`)."""

    height: float
    skin: Colour
    hair: Colour
    top: Colour
    trousers: Colour
    shoes: Colour
    paint: Colour
    coat: bool
    bag: bool


def random_look(rng: Generator, fade: float) -> Look:
    """Return a person with colours that are moved by `fade` (0..1) towards the grey of the paving."""

    def one_of(colours: Sequence[tuple[int, int, int]]) -> Colour:
        colour = np.array(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.8, 1.2) * rng.uniform(0.96, 1.04, 3)
        blue, green, red = ((1 - fade) * np.clip(colour, 0, 235) + fade * _PAVING).tolist()
        return blue, green, red

    return Look(
        height=float(np.clip(rng.normal(1.72, 0.10), 1.45, 1.95)),
        skin=one_of(_SKINS),
        hair=one_of(_HAIRS),
        top=one_of(_TOPS),
        trousers=one_of(_TROUSERS),
        shoes=one_of(_TROUSERS),
        paint=one_of(_PAINTS),
        coat=bool(rng.random() < 0.3),
        bag=bool(rng.random() < 0.35),
    )


class Pose(NamedTuple):
    """A gait: stride in body heights, then angles in radians; swing, flex and arms vary over a stride."""

    stride: float = 0.8
    swing: float = 0.42
    flex: float = 0.85
    crouch: float = 0.04
    lean: float = 0.03
    arms: float = 0.35
    reach: float = 0.0
    elbow: float = 0.3
    spread: float = 0.08


WALK = Pose()
RUN = Pose(1.35, swing=0.72, flex=1.5, crouch=0.12, lean=0.2, arms=0.8, reach=-0.1, elbow=1.5)
PUSH = Pose(lean=0.12, arms=0.0, reach=0.75, elbow=0.35)
GLIDE = Pose(9.0, swing=0.06, flex=0.1, crouch=0.3, lean=0.18, arms=0.2, reach=0.1, elbow=0.2, spread=0.75)


def person(look: Look, travelled: float, vigour: float, pose: Pose = WALK) -> list[Part]:
    """Return somebody on foot; the phase of the gait follows from the travelled metres."""
    height = look.height
    phases = 2 * np.pi * travelled / (pose.stride * height) + vector(0.0, np.pi)
    thighs = vigour * pose.swing * np.sin(phases) + pose.crouch
    shanks = thighs - vigour * pose.flex * np.maximum(0, np.cos(phases)) - 2 * pose.crouch
    bone = 0.24 * height
    # the lower foot stays on the ground
    hip = vector(0.0, 0.0, bone * np.max(np.cos(thighs) + np.cos(shanks)) + 0.03 * height)
    parts, neck = torso(look, hip, pose.lean)
    for side, thigh, shank in zip((-1, 1), thighs, shanks, strict=True):
        parts += leg(look, _limb(hip + vector(0, 0.05 * side * height, 0), thigh, shank, bone))
        shoulder = neck + vector(0, 0.115 * side, -0.045) * height
        upper = pose.reach - pose.arms / pose.swing * (thigh - pose.crouch)  # against the leg
        joints = _limb(shoulder, upper, upper + pose.elbow, 0.155 * height)
        joints[1:, 1] += side * vector(0.5, 1.0) * pose.spread * 0.3 * height
        parts += arm(look, joints)
    return parts


def _limb(root: Floats, first: float, second: float, bone: float) -> Floats:
    """Return the joints (3, 3) of two bones of equal length that hang from a root, turned forward by two angles."""
    middle = root + bone * vector(np.sin(first), 0.0, -np.cos(first))
    return np.stack((root, middle, middle + bone * vector(np.sin(second), 0.0, -np.cos(second))))


def torso(look: Look, hip: Floats, lean: float) -> tuple[list[Part], Floats]:
    """Return torso and head over a hip point (3,), and the neck point (3,)."""
    height = look.height
    spine = height * vector(np.sin(lean), 0.0, np.cos(lean))
    neck, head = hip + 0.33 * spine, (hip + 0.43 * spine)[None]
    parts = [Part(np.stack((neck, head[0])), 0.06 * height, look.skin), Part(head, 0.12 * height, look.skin)]
    parts.append(Part(head + vector(-0.02, 0, 0.03) * height, 0.115 * height, look.hair))
    for side in (-1, 1):
        low, high = vector(0, 0.035 * side, 0.02) * height, vector(0, 0.075 * side, -0.05) * height
        parts.append(Part(np.stack((hip + low, neck + high)), 0.125 * height, look.top))
        if look.coat and lean < 0.3:  # nobody cycles in a long coat
            skirt = np.array(((0, 0.045 * side, 0.03), (0, 0.045 * side, -0.17)))
            parts.append(Part(hip + skirt * height, 0.13 * height, look.top))
    if look.bag:
        back = hip + np.outer((0.12, 0.25), spine) - vector(0.10 * height, 0.0, 0.0)
        parts.append(Part(back, 0.14 * height, look.paint))
    return parts, neck


def leg(look: Look, joints: Floats) -> list[Part]:
    """Return a leg through hip, knee and ankle (3, 3), with its foot."""
    height = look.height
    foot = joints[2] + np.array(((0, 0, 0), (0.085, 0, -0.015))) * height
    thigh = Part(joints[:2], 0.095 * height, look.trousers)
    return [thigh, Part(joints[1:], 0.07 * height, look.trousers), Part(foot, 0.05 * height, look.shoes)]


def arm(look: Look, joints: Floats) -> list[Part]:
    """Return an arm through shoulder, elbow and wrist (3, 3), with its hand."""
    return [Part(joints, 0.055 * look.height, look.top), Part(joints[2:], 0.05 * look.height, look.skin)]
