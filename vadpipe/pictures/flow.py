"""Optical flow as colours: direction as hue, speed as saturation."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from vadpipe.store.clips import Clip
from vadpipe.store.flow import FlowClip
from vadpipe.store.images import Image


def colour_wheel(flow: npt.NDArray[np.floating], fastest: float) -> Image:
    """Return uint8 (h, w, 3) RGB: hue is the direction, white is no motion, full colour is `fastest` or more.

    Args:
        flow: (h, w, 2) in x and y; NaN is drawn as no motion.
    """
    x, y = np.moveaxis(np.nan_to_num(flow.astype(np.float32)), -1, 0)
    hue = (np.degrees(np.arctan2(y, x)) % 360 / 2).astype(np.uint8)
    saturation = (np.clip(np.hypot(x, y) / fastest, 0, 1) * 255).astype(np.uint8)
    hsv = np.dstack([hue, saturation, np.full_like(hue, 255)])
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)  # type: ignore[return-value]


def preview(clip: Clip, flow_file: Path) -> Image:
    """Return frames of a clip above their flow, with the wheel as legend, uint8 (H, W, 3) RGB."""
    flow = FlowClip(flow_file)
    chosen = np.unique(np.linspace(1, clip.length - 1, 4).astype(int))
    fields = [flow.field(int(index)).astype(np.float32) for index in chosen]
    fastest = max(float(np.percentile(np.hypot(*np.moveaxis(field, -1, 0)), 99.5)) for field in fields)
    fastest = max(fastest, 0.5)
    columns = []
    for index, field in zip(chosen, fields, strict=True):
        frame = clip.frame(int(index))
        height, width = frame.shape[:2]
        colours = cv2.resize(colour_wheel(field, fastest), (width, height), interpolation=cv2.INTER_NEAREST)
        columns.append(np.vstack([frame, colours]))
    sheet = np.hstack(columns)
    side = min(clip.info["height"], clip.info["width"]) // 4
    sheet[clip.info["height"] :][:side, :side] = _wheel(side, fastest)
    return sheet


def _wheel(side: int, fastest: float) -> Image:
    axis = np.linspace(-fastest, fastest, side, dtype=np.float32)
    field = np.dstack(np.meshgrid(axis, axis))
    field[np.hypot(field[..., 0], field[..., 1]) > fastest] = 0
    return colour_wheel(field, fastest)
