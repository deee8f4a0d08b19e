"""Where frames move: what the masked autoencoder weights its losses by (Ristea et al., CVPR 2024, section 3.2)."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Motion = Literal["paper", "code", "none"]
Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_MEDIAN = 3  # side of the filter, pixels
_LEAST = 128.0  # grey levels that an anomaly counts as at least, in the released code


def motion_gradients(frames: Image, kind: Motion) -> Image:
    """Return the absolute differences of consecutive frames of a clip, (T, H, W, C), of the same shape.

    `paper`: between a frame and the one before, after a 3x3 median; `code`: between the frames before and after, as
    released. At an end of the clip the frames that there are stand in. `none` gives no motion at all.
    """
    if kind == "none" or len(frames) < 2:
        return np.zeros_like(frames)
    index = np.arange(len(frames))
    if kind == "code":
        return _differences(frames, (index - 1).clip(0), (index + 1).clip(max=len(frames) - 1))
    smooth = np.stack([cv2.medianBlur(frame, _MEDIAN).reshape(frame.shape) for frame in frames])
    return _differences(smooth, (index - 1).clip(0), index.clip(1))


def _differences(frames: Image, before: npt.NDArray[np.int_], after: npt.NDArray[np.int_]) -> Image:
    return np.stack(
        [cv2.absdiff(frames[i], frames[j]).reshape(frames[i].shape) for i, j in zip(before, after, strict=True)]
    )


def token_weights(motion: Image, anomalies: npt.NDArray[np.bool_], patch: int, kind: Motion) -> Floats:
    """Return the weight of each token, (B, N), of sum 1 an image, by Eq. 1 and 2.

    A token counts as its fastest pixel, channel by channel, and the mean over channels. Where nothing moves all weigh
    the same: 0 / 0 would stop the training.

    Args:
        motion: uint8 (B, H, W, C) from `motion_gradients`.
        anomalies: (B, H, W), what was pasted. `paper` adds 1 to gradients in 0..1 there, `code` at least 128 grey
            levels and no less than the frame's fastest pixel.
    """
    batch, height, width, channels = motion.shape
    grid = height // patch, width // patch
    if kind == "none":
        return np.full((batch, grid[0] * grid[1]), 1 / (grid[0] * grid[1]), np.float32)
    values = motion.astype(np.float32)
    if kind == "code":
        added = np.maximum(values.max((1, 2, 3)), np.float32(_LEAST))
    else:
        values, added = values / np.float32(255), np.ones(batch, np.float32)
    values += (anomalies * added[:, None, None])[..., None]
    cells = values.reshape(batch, grid[0], patch, grid[1], patch, channels)
    fastest = cells.max((2, 4)).mean(-1).reshape(batch, -1)
    total = fastest.sum(1, keepdims=True)
    still = total == 0
    weights: Floats = np.where(still, np.float32(1 / fastest.shape[1]), fastest / np.where(still, 1, total))
    return weights
