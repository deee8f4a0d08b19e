"""A sheet of composites: what was pasted into training clips."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from vadpipe.pictures.pools import edged
from vadpipe.store.composites import CompositeClip
from vadpipe.store.images import Image

_WIDTH, _GAP, _COLUMNS = 300, 4, 4  # pixels, and frames a clip
_PASTED = (255, 60, 40)


def contact_sheet(clips: Sequence[CompositeClip]) -> Image:
    """Return a row a clip, uint8 (H, W, 3) RGB: frames at equal times, of the last one also what was pasted, outlined.

    Frames without anything pasted are left out; of a clip without any the clean ones are shown.
    """
    rows = [np.hstack([_tile(image) for image in _row(clip)]) for clip in clips]
    width = max(row.shape[1] for row in rows)
    return np.vstack([np.pad(row, ((0, _GAP), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows])


def _row(clip: CompositeClip) -> list[Image]:
    pasted = np.array([bool(origins) for origins in clip.column("provenance")])
    there = np.flatnonzero(pasted) if pasted.any() else np.arange(clip.length)
    chosen = there[np.linspace(0, len(there) - 1, _COLUMNS).astype(int)]
    frames = [clip.composite(index) for index in chosen.tolist()]
    return [*frames, edged(frames[-1], clip.pasted_into(int(chosen[-1])), _PASTED)]


def _tile(image: Image) -> Image:
    height = max(1, round(image.shape[0] * _WIDTH / image.shape[1]))
    way = cv2.INTER_AREA if image.shape[1] > _WIDTH else cv2.INTER_CUBIC
    small = cv2.resize(image, (_WIDTH, height), interpolation=way)
    return np.pad(small, ((0, 0), (0, _GAP), (0, 0)), constant_values=255).astype(np.uint8)
