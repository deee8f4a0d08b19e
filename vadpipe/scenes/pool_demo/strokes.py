"""Bodies of swimmers in the phases of crawl, breast stroke and back stroke, as limbs in space."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Colour, Floats
from vadpipe.scenes.pool_demo.people import SKINS

_CAPS: tuple[Colour, ...] = (
    (232, 232, 230),
    (236, 210, 40),
    (196, 30, 40),
    (28, 30, 36),
    (30, 60, 160),
    (20, 140, 90),
    (236, 120, 40),
    (230, 120, 160),
    (70, 170, 220),
    (60, 40, 30),
)
_SUITS: tuple[Colour, ...] = ((22, 24, 30), (26, 34, 80), (120, 20, 40), (20, 80, 90), (40, 40, 46))


class Limb(NamedTuple):
    """A stroke through points (n, 3) ahead, to the left and up, in metres; its width and colour."""

    points: Floats
    width: float
    colour: Colour


class Look(NamedTuple):
    """How a swimmer looks."""

    skin: Colour
    cap: Colour
    suit: Colour
    whole_suit: bool


def random_look(rng: Generator) -> Look:
    """Return one of many swimmers."""
    skin, cap, suit = (choices[rng.integers(len(choices))] for choices in (SKINS, _CAPS, _SUITS))
    return Look(skin, cap, suit, bool(rng.random() < 0.45))


def crawl(look: Look, phase: float) -> list[Limb]:
    """Return a swimmer on the belly whose arms turn in turn; phase in 0..1."""
    turn = 2 * np.pi * phase
    limbs = _legs(look, 0.10 * np.sin(3 * turn), -0.07) + _trunk(look, 0.0, look.suit)
    for side, angle in ((1.0, turn), (-1.0, turn + np.pi)):
        up = 0.42 * np.sin(angle) if np.sin(angle) > 0 else 0.55 * np.sin(angle)
        shoulder = np.array((0.36, 0.19 * side, 0.02))
        hand = shoulder + np.array((0.62 * np.cos(angle), 0.14 * side, up))
        elbow = (shoulder + hand) / 2 + (0.0, 0.16 * side, 0.22 * max(np.sin(angle), 0.0))
        limbs.append(Limb(np.stack((shoulder, elbow, hand)), 0.12, look.skin))
    turned = 0.1 * np.cos(turn)
    return [*limbs, *_head(look, np.array((0.62, turned, 0.06)), face=np.array((0.0, turned, -0.04)))]


def back(look: Look, phase: float) -> list[Limb]:
    """Return a swimmer on the back with one arm up; phase in 0..1."""
    turn = 2 * np.pi * phase
    limbs = _legs(look, 0.12 * np.sin(3 * turn), -0.10) + _trunk(look, 0.01, look.suit)
    for side, angle in ((1.0, turn), (-1.0, turn + np.pi)):
        up = 0.66 * np.sin(angle) if np.sin(angle) > 0 else 0.35 * np.sin(angle)
        shoulder = np.array((0.38, 0.2 * side, 0.02))
        hand = shoulder + np.array((0.66 * np.cos(angle), 0.10 * side, up))
        limbs.append(Limb(np.stack((shoulder, (shoulder + hand) / 2, hand)), 0.115, look.skin))
    return [*limbs, *_head(look, np.array((0.64, 0.0, 0.05)), face=np.array((-0.08, 0.0, 0.07)))]


def breast(look: Look, phase: float) -> list[Limb]:
    """Return a swimmer whose arms and legs move alike on both sides; phase in 0..1 from glide to glide."""
    pull, kick = np.sin(np.pi * phase) ** 2, np.sin(np.pi * (phase + 0.75)) ** 2
    rise = 0.14 * pull
    limbs = []
    for side in (1.0, -1.0):
        hip, knee = np.array((-0.38, 0.12 * side, -0.06)), np.array((-0.75, (0.12 + 0.24 * kick) * side, -0.16))
        foot = np.array((-1.22 + 0.3 * kick, (0.08 + 0.34 * kick) * side, -0.14))
        limbs.append(Limb(np.stack((hip, knee, foot)), 0.13, look.skin))
    limbs += _trunk(look, 0.4 * rise, look.suit)
    for side in (1.0, -1.0):
        shoulder = np.array((0.36, 0.18 * side, 0.6 * rise))
        hand = np.array((1.0 - 0.55 * pull, (0.08 + 0.5 * pull * (1 - 0.5 * phase)) * side, -0.06 - 0.12 * pull))
        elbow = (shoulder + hand) / 2 + (0.0, 0.14 * pull * side, -0.05)
        limbs.append(Limb(np.stack((shoulder, elbow, hand)), 0.115, look.skin))
    head = np.array((0.6, 0.0, 0.03 + rise))
    return [*limbs, *_head(look, head, face=np.array((0.09, 0.0, -0.03)))]


STROKES: dict[str, Callable[[Look, float], list[Limb]]] = {"crawl": crawl, "breast": breast, "back": back}


def _legs(look: Look, beat: float, depth: float) -> list[Limb]:
    """Return legs that beat up and down by so many metres, at a depth."""
    limbs = []
    for side in (1.0, -1.0):
        hip, knee = (
            np.array((-0.35, 0.1 * side, depth + 0.02)),
            np.array((-0.78, 0.1 * side, depth - 0.3 * beat * side)),
        )
        foot = np.array((-1.25, 0.09 * side, depth + beat * side))
        limbs.append(Limb(np.stack((hip, knee, foot)), 0.13, look.skin))
    return limbs


def _trunk(look: Look, up: float, suit: Colour) -> list[Limb]:
    """Return hips, sides and back; the shoulders are broader than the hips."""
    skin = suit if look.whole_suit else look.skin
    limbs = [
        Limb(np.array(((-0.1, 0.09 * side, -0.05), (0.36, 0.15 * side, -0.02 + up))), 0.2, skin) for side in (1.0, -1.0)
    ]
    limbs.append(Limb(np.array(((-0.42, 0.0, -0.03), (-0.12, 0.0, -0.02 + 0.3 * up))), 0.32, suit))
    limbs.append(Limb(np.array(((-0.05, 0.0, 0.03 + 0.5 * up), (0.38, 0.0, 0.06 + up))), 0.2, skin))
    return limbs


def _head(look: Look, at: Floats, face: Floats) -> list[Limb]:
    """Return the neck, the face off the middle of the head, and the cap."""
    neck = Limb(np.stack((np.array((0.42, 0.0, at[2] - 0.02)), at)), 0.14, look.skin)
    return [neck, Limb((at + 0.8 * face)[None], 0.2, look.skin), Limb(at[None], 0.23, look.cap)]
