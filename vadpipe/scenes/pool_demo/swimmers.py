"""Swimmers in the water: where they are, and their drawing, sunken parts dimmed, tinted and broken by waves."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from vadpipe.scenes.arrays import Floats, Image
from vadpipe.scenes.pool_demo.camera import Camera
from vadpipe.scenes.pool_demo.painter import SCALE, Painter
from vadpipe.scenes.pool_demo.strokes import STROKES, Limb, Look, random_look
from vadpipe.scenes.pool_demo.views import LANE, View

_FINER = 2  # a body is drawn so many times finer than the canvas that it is laid on


@dataclass(frozen=True)
class Swimmer:
    """Somebody in a lane, 0.., who swims towards larger u (1.0) or smaller u (-1.0)."""

    lane: int
    u: float
    v: float
    heading: float
    stroke: str
    phase: float
    look: Look
    vigour: float  # of wake and splash, in 0..1
    seed: int

    def limbs(self) -> list[Limb]:
        """Return the limbs in the world, the lowest first."""
        limbs = STROKES[self.stroke](self.look, self.phase)
        turned = [limb._replace(points=self.place(limb.points)) for limb in limbs]
        return sorted(turned, key=lambda limb: float(limb.points[:, 2].mean()))

    def place(self, points: Floats) -> Floats:
        """Return points (n, 3) ahead, left and up of the swimmer as world points."""
        return points * (self.heading, self.heading, 1.0) + (self.u, self.v, 0.0)


def candidates(view: View, camera: Camera, rng: Generator) -> list[Swimmer]:
    """Return one swimmer for each lane where the camera can see one, lanes in random order."""
    race, heading, stroke = rng.random() < 0.65, float(rng.choice((-1.0, 1.0))), str(rng.choice(list(STROKES)))
    front = rng.uniform(0.15, 0.85) * view.length
    found = []
    for lane in rng.permutation(view.lanes).tolist():
        for attempt in range(10):
            near = race and attempt < 5
            u = front + rng.normal(0, 0.06 * view.length) if near else rng.uniform(2, view.length - 2)
            v = view.rope(lane) + LANE / 2 + rng.normal(0, 0.15)
            if 1.6 < u < view.length - 1.6 and _in_sight(camera, u, v):
                break
        else:
            continue
        found.append(
            Swimmer(
                lane, float(u), float(v), heading if race else float(rng.choice((-1.0, 1.0))),
                stroke if race else str(rng.choice(list(STROKES))), float(rng.random()), random_look(rng),
                float(rng.uniform(0.1, 1.0)), int(rng.integers(2**31)),
            )
        )  # fmt: skip
    return found


def sprite(camera: Camera, view: View, swimmer: Swimmer) -> Painter | None:
    """Return a swimmer drawn finer than the picture, in a window of it; None outside."""
    limbs = swimmer.limbs()
    window = _window(camera, np.concatenate([limb.points for limb in limbs]))
    if window is None:
        return None
    fine = Painter(camera, window, SCALE * _FINER)
    rng = np.random.default_rng(swimmer.seed)
    depth = float(camera.project(np.array(((swimmer.u, swimmer.v, 0.0),)))[0, 2])
    for limb in limbs:
        _limb(fine, view, limb, max(0.2, float(camera.position[2]) / depth), rng)
    blur = max(0.4, 0.018 * camera.focal / depth * fine.scale)
    blurred = np.asarray(cv2.GaussianBlur(fine.canvas, (0, 0), blur))
    fine.canvas = np.asarray(blurred * _washed(blurred.shape, blur, rng), np.uint8)
    return fine


def _limb(painter: Painter, view: View, limb: Limb, steep: float, rng: Generator) -> None:
    """Draw a limb piece by piece, each dimmed by the water above it, which is seen at a sine `steep`."""
    points = limb.points
    if len(points) > 1:
        stops = np.linspace(0, len(points) - 1, 3 * (len(points) - 1) + 1)
        points = np.stack([np.interp(stops, np.arange(len(points)), axis) for axis in points.T], axis=1)
        points[:, :2] += rng.normal(0, 0.012, (len(points), 2)) * (points[:, 2:] < 0)  # seen through moving water
    seen = painter.camera.project(points)
    thick = limb.width * painter.camera.focal / max(float(seen[0, 2]), 1.0)
    sunk = np.maximum(0.0, -points[:, 2] if len(points) == 1 else -(points[1:, 2] + points[:-1, 2]) / 2)
    clear = np.exp(-2.2 * sunk / steep)[:, None]
    tint = np.array(view.water.floor) * 0.26 + np.array(view.water.body) * 0.49
    colours = np.clip(np.array(limb.colour) * rng.uniform(0.9, 1.1) * clear + tint * (1 - clear), 0, 250)
    for index, (colour, part) in enumerate(zip(colours.tolist(), clear[:, 0].tolist(), strict=True)):
        piece = seen[index : index + 2, :2]
        painter.flat_line(piece, thick, tuple(colour), 1.0 if part == 1 else 0.45 + 0.5 * part, 1)
        if part == 1:  # wet skin shines
            red, green, blue = (min(1.12 * value + 16, 250.0) for value in colour)
            painter.flat_line(piece - (0, 0.2 * thick), 0.4 * thick, (red, green, blue), 1.0, 1)


def _washed(shape: tuple[int, ...], blur: float, rng: Generator) -> Image:
    """Return factors (h, w, 1) of opacity: thin water runs over a body in streaks."""
    noise = rng.standard_normal(shape[:2], dtype=np.float32)
    noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), sigmaX=3.0 * blur, sigmaY=1.4 * blur))
    noise /= noise.std() + 1e-6
    return np.asarray(np.clip(0.95 + 0.16 * noise, 0.5, 1)[..., None], np.float32)


def _in_sight(camera: Camera, u: float, v: float) -> bool:
    """Return whether a swimmer there would be in the picture, not at its very border."""
    column, row, depth = camera.project(np.array(((u, v, 0.0),)))[0]
    edge = 0.03 * camera.width
    return bool(depth > 1 and edge < column < camera.width - edge and edge < row < camera.height - edge)


def _window(camera: Camera, points: Floats) -> tuple[int, int, int, int] | None:
    """Return left, top, width and height in pixels of what surrounds world points (n, 3) in the picture."""
    seen = camera.project(points)
    margin = 0.25 * camera.focal / max(float(seen[:, 2].min()), 1.0) + 3
    low = np.maximum(np.floor(seen[:, :2].min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(seen[:, :2].max(axis=0) + margin), (camera.width, camera.height)).astype(int)
    if (high <= low).any():
        return None
    return int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])
