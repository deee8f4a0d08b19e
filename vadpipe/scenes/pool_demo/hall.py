"""The box around the pool, of painted walls and a roof: what a ray meets, seen directly or mirrored by the water."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from vadpipe.scenes.arrays import Bytes, Image
from vadpipe.scenes.pool_demo import surroundings
from vadpipe.scenes.pool_demo.texture import PIXELS
from vadpipe.scenes.pool_demo.views import View

_DEPTH = 7.0  # metres of deck between the pool and a wall
_NEAR = -17.0  # metres v where the hall ends behind the camera


class Box:
    """The hall of a view, in metres, with one texture (rows, columns, 3) of three walls and the roof."""

    def __init__(self, seed: int, view: View) -> None:
        rng = np.random.default_rng((seed, 98, int(view.name[4:])))
        self.low, self.high, self.far = -_DEPTH, view.length + _DEPTH, view.breadth + _DEPTH
        self.height = surroundings.height(view.hall)
        along, across = self.high - self.low, self.far - _NEAR
        lengths = (along, across, across)
        walls = [surroundings.wall(rng, view.hall, metres, number) for number, metres in enumerate(lengths)]
        self.atlas: Bytes = _stacked([*walls, surroundings.roof(rng, view.hall, along, across)])

    def look(self, u: Image | float, v: Image | float, z: float, rays: Image) -> Image:
        """Return the light (h, w, 3) that comes to u, v (h, w) at height z from where the rays (h, w, 3) point."""
        tiny = np.float32(1e-4)
        du, dv, dz = (rays[..., axis] for axis in range(3))
        to_roof = (np.float32(self.height) - z) / np.maximum(dz, tiny)
        to_far = (np.float32(self.far) - v) / np.maximum(dv, tiny)
        end = np.where(du > 0, np.float32(self.high), np.float32(self.low))
        to_end = (end - u) / np.where(np.abs(du) < tiny, tiny, du)
        to_end = np.where(to_end > 0, to_end, np.float32(1e6))  # an end behind the camera is not in its way
        far, roof = to_far <= np.minimum(to_end, to_roof), to_roof < np.minimum(to_end, to_far)
        distance = np.minimum(np.minimum(to_end, to_far), to_roof)
        hit_u, hit_v, hit_z = u + du * distance, v + dv * distance, z + dz * distance
        rows = np.float32(self.height) - np.clip(hit_z, 0.03, self.height - 0.05)
        rows += np.float32(self.height) * np.where(far, np.float32(0), np.where(du > 0, np.float32(2), np.float32(1)))
        rows = np.where(roof, np.float32(3 * self.height) + hit_v - np.float32(_NEAR), rows)
        # text must not be mirrored
        sideways = np.where(du > 0, np.float32(self.far) - hit_v, hit_v - np.float32(_NEAR))
        columns = np.where(far | roof, hit_u - np.float32(self.low), sideways)
        pixels = np.float32(PIXELS)
        colours = cv2.remap(
            self.atlas, columns * pixels, rows * pixels, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(colours, np.float32)


@lru_cache(maxsize=16)
def box(seed: int, view: View) -> Box:
    """Return the hall of a view, which is the same in all its pictures."""
    return Box(seed, view)


def lamp_light(colours: Image, strength: float) -> Image:
    """Return the light (h, w, 1) above the scale of 8 bits, of what is painted as the brightest: lamps."""
    return np.asarray(np.maximum(colours[..., 1:2] - 244, 0) * np.float32(strength))


def _stacked(textures: list[Bytes]) -> Bytes:
    """Return textures (rows, columns, 3) one below the other, filled up at the right."""
    width = max(texture.shape[1] for texture in textures)
    filled = [np.pad(texture, ((0, 0), (0, width - texture.shape[1]), (0, 0)), mode="edge") for texture in textures]
    return np.ascontiguousarray(np.concatenate(filled))
