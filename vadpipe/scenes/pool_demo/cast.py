"""Who swims in a photograph: swimmers that can be seen, drawn among the ropes, and what is seen of each."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Bools
from vadpipe.scenes.pool_demo import ropes, swimmers, wakes
from vadpipe.scenes.pool_demo.backdrop import Setting
from vadpipe.scenes.pool_demo.camera import Camera
from vadpipe.scenes.pool_demo.painter import Painter
from vadpipe.scenes.pool_demo.swimmers import Swimmer
from vadpipe.scenes.pool_demo.views import View

_FIRST = 10  # owner of the pixels of the first swimmer
_LEAST = (8, 4)  # pixels of width and height of a box
Box = tuple[int, int, int, int]
Drawn = tuple[Swimmer, Painter]


def cast(view: View, camera: Camera, hidden: Bools, rng: Generator) -> list[Drawn]:
    """Return three to eight swimmers that can be seen."""
    wanted = int(rng.integers(3, 9))
    seen: list[Drawn] = []
    for swimmer in swimmers.candidates(view, camera, rng):
        body = swimmers.sprite(camera, view, swimmer)
        if body is None:
            continue
        alone = Painter(camera, body.window)
        alone.lay(body, _FIRST)
        left, top, width, height = body.window
        if _large(_mask(alone, _FIRST, hidden[top : top + height, left : left + width])):
            seen.append((swimmer, body))
        if len(seen) == wanted:
            break
    return seen


def settled(
    setting: Setting, here: list[Drawn], hidden: Bools, seed: int
) -> tuple[Painter, list[Swimmer], list[Bools]]:
    """Draw ropes and swimmers, without those that ropes and splashes hide too much.

    Args:
        setting: camera and ropes.
        here: swimmers and their drawings.
        hidden: pixels (h, w) that something stands before.
        seed: of the waves that wash over the ropes.

    Returns:
        the canvas, who is left, and the pixels (h, w) of each.
    """
    while True:
        top = _afloat(setting, here, seed)
        masks = [_mask(top, _FIRST + index, hidden) for index in range(len(here))]
        if all(_large(mask) for mask in masks):
            return top, [swimmer for swimmer, _ in here], masks
        here = [drawn for drawn, mask in zip(here, masks, strict=True) if _large(mask)]


def _afloat(setting: Setting, here: list[Drawn], seed: int) -> Painter:
    """Draw ropes and swimmers from the far side of the pool to the near one."""
    painter, view = Painter(setting.camera), setting.view
    for number in reversed(range(view.lanes + 1)):
        ropes.draw(painter, view, number, setting.bow[number], np.random.default_rng((seed, number)))
        for index, (swimmer, body) in enumerate(here):
            if swimmer.lane == number - 1:
                painter.lay(body, _FIRST + index)
                wakes.splash(painter, swimmer)
    return painter


def _mask(painter: Painter, owner: int, hidden: Bools) -> Bools:
    """Return the pixels (h, w) of an owner that nothing hides."""
    fine = (painter.owner == owner).astype(np.uint8) * np.uint8(255)
    height, width = hidden.shape
    part = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray((part > 110) & ~hidden)


def _large(mask: Bools) -> bool:
    """Return whether a mask (h, w) is worth a box."""
    if not mask.any():
        return False
    left, top, right, bottom = around(mask)
    return right - left >= _LEAST[0] and bottom - top >= _LEAST[1]


def around(mask: Bools) -> Box:
    """Return the box around a mask (h, w)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
