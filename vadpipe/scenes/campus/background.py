"""The painted background: paving, lawn and a brick facade behind, textured by noise and tiles."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Floats, Image, vector
from vadpipe.scenes.campus.plan import BED, FACADE, FAR, NEAR, beside_path, on_lawn
from vadpipe.scenes.figures.camera import Camera

_OVERSAMPLE = 3  # rays a pixel along rows and columns, averaged, or far joints would give moiré
_HORIZON = 200.0  # metres at which ground is cut off, since rays near the horizon meet it at no end of them


def paint(rng: Generator, camera: Camera) -> Image:
    """Return ground and facade (h, w, 3) without shadows, as the camera sees them."""
    across, up, ahead = np.moveaxis(camera.rays(_OVERSAMPLE), 2, 0)
    x, z = (axis * camera.altitude / np.maximum(-up, 1e-6) for axis in (across, ahead))
    to_wall = FACADE / ahead
    facade = _facade(rng, across * to_wall, camera.altitude + up * to_wall)
    ground = _ground(rng, np.clip(x, -_HORIZON, _HORIZON), np.clip(z, 0, _HORIZON))
    fine = np.where((z > FACADE)[..., None], facade, ground).astype(np.float32)
    return np.asarray(cv2.resize(fine, (camera.width, camera.height), interpolation=cv2.INTER_AREA))


def _facade(rng: Generator, x: Floats, y: Floats) -> Floats:
    """Return the colours (h, w, 3) of the brick wall at x and height y (h, w) in metres."""
    bricks = _tiles(rng, x, y + 50, 0.5, 0.25) + 0.05 * _noise(rng, x, y, 2.5)
    colour = vector(88, 105, 142) * bricks[..., None]
    across, up = np.abs(np.mod(x, 3.2) - 1.6), np.mod(y - 0.9, 3.4)  # from the middle and the sill of a window
    frame = (across < 1.0) & (up < 1.9)
    glass = (across < 0.88) & (across > 0.05) & (up > 0.14) & (up < 1.76)
    reflection = 1 + 0.35 * _noise(rng, x, y, 1.7, 4.0) + 0.25 * (up - 0.9)
    colour[frame] = (178, 184, 186)
    colour[glass] = (vector(112, 98, 82) * reflection[..., None])[glass]
    colour[(y > 3.35) & (y < 3.7)] = (160, 166, 170)
    colour[y < 0.45] = (100, 104, 108)
    return colour


def _ground(rng: Generator, x: Floats, z: Floats) -> Floats:
    """Return the colours (h, w, 3) of the ground at x and z (h, w) in metres."""
    grain, stains = _noise(rng, x, z, 0.07, 0.2), _noise(rng, x, z, 1.3, 3.1)
    rough = 1 + 0.05 * grain + 0.05 * stains
    stripes = 0.05 * np.sign(np.sin(2 * np.pi * (x + 0.5 * z) / 2.6))  # of the mower
    lawn = vector(62, 122, 98) * (1 + 0.13 * grain + 0.11 * stains + stripes)[..., None]
    lawn[..., 2] *= 1 + 0.10 * _noise(rng, x, z, 5.0, 0.9)  # drier and greener spots
    colour = np.where(on_lawn(x, z)[..., None], lawn, vector(128, 150, 165) * (rough + 0.05 * grain)[..., None])
    plaza = vector(142, 150, 156) * (rough * _tiles(rng, x, z, 0.9, 0.6))[..., None]
    walk = vector(128, 130, 130) * (rough - 0.12 * (np.mod(x, 2.4) < 0.12))[..., None]
    bed = vector(50, 72, 78) * (1 + 0.2 * grain)[..., None]
    for place, colours in ((z <= NEAR, plaza), (z >= FAR, walk), (z >= BED, bed)):
        colour = np.where(place[..., None], colours, colour)
    kerb = (np.abs(z - NEAR) < 0.11) | (np.abs(z - FAR) < 0.13) | (np.abs(z - BED) < 0.13)
    kerb |= (np.abs(beside_path(x, z)) < 0.07) & (z > NEAR) & (z < FAR)
    colour[kerb] = (165, 172, 176)
    return colour


def _tiles(rng: Generator, x: Floats, z: Floats, length: float, breadth: float) -> Floats:
    """Return the brightness (h, w) of tiles of so many metres, of different shades, with dark joints."""
    row = np.floor(z / breadth)
    along = x / length + 0.5 * np.mod(row, 2)  # every second row is set off by half a tile
    shade = rng.uniform(-1, 1, (256, 256))[row.astype(int) % 256, np.floor(along).astype(int) % 256]
    joints = (np.mod(z, breadth) < 0.06) | (np.mod(along, 1) * length < 0.06)
    return np.asarray(1 + 0.06 * shade - 0.14 * joints)


def _noise(rng: Generator, x: Floats, z: Floats, *scales: float) -> Floats:
    """Return smooth noise of about unit range over coordinates (h, w) in metres, with octaves of these scales."""
    total = np.zeros(x.shape)
    for scale in scales:
        table = rng.uniform(-1, 1, (256, 256)).astype(np.float32)
        u, v = (np.mod(axis / scale, 255).astype(np.float32) for axis in (x, z))
        total += cv2.remap(table, u, v, cv2.INTER_LINEAR)
    return np.asarray(total / np.sqrt(len(scales)))
