"""What is abnormal in the frames of a clip, by pixel and by box."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from vadpipe.evaluation.arrays import Bools, Floats, Ints
from vadpipe.evaluation.regions import linked
from vadpipe.store import Clip, LabelClip, images

_SIDES = ("x_min", "y_min", "x_max", "y_max")


class ClipTruth:
    """The truth of a clip: masks where it has them, else boxes, else normal frames.

    Attributes:
        name: the clip's name.
        images: its frames.
        times: (T,) seconds from the beginning of the source; NaN where a frame has no place in time.
        known: (T,), whether it is known what of a frame is abnormal: it has a mask or boxes, or is labelled normal.
        located: whether any frame has a mask or a box.
    """

    def __init__(self, clip: LabelClip, images: Clip) -> None:
        self.name = clip.name
        self.images = images
        self.times: Floats = np.array(clip.column("time"), np.float64)
        self.size: tuple[int, int] = (clip.info["height"], clip.info["width"])
        self._masks: list[bytes | None] = clip.column("mask")
        self._boxes: list[list[dict[str, int]] | None] = clip.column("boxes")
        drawn = [mask is not None or bool(boxes) for mask, boxes in zip(self._masks, self._boxes, strict=True)]
        normal = [label == 0 for label in clip.column("label")]
        self.known: Bools = np.array(drawn) | np.array(normal)
        self.located = any(drawn)

    def drawn_mask(self, frame: int) -> Bools | None:
        """Return the mask of a frame, (H, W), or None where nobody drew one."""
        data = self._masks[frame]
        return None if data is None else images.decode_grey(data) > 0

    def mask(self, frame: int) -> Bools:
        """Return which pixels are abnormal, (H, W): those of the mask, or without one those inside the boxes."""
        drawn = self.drawn_mask(frame)
        if drawn is not None:
            return drawn
        mask = np.zeros(self.size, np.bool_)
        for x_min, y_min, x_max, y_max in self.boxes(frame).astype(np.int64):
            mask[max(y_min, 0) : y_max, max(x_min, 0) : x_max] = True
        return mask

    def boxes(self, frame: int) -> Floats:
        """Return x_min, y_min, x_max, y_max, pixels, max exclusive, (M, 4): stored ones, else around the regions.

        Regions of a mask are 8-connected, so that objects that touch have one box.
        """
        stored, data = self._boxes[frame], self._masks[frame]
        if stored or data is None:
            return np.array([[box[side] for side in _SIDES] for box in stored or []], np.float64).reshape(-1, 4)
        _, _, stats, _ = cv2.connectedComponentsWithStats(images.decode_grey(data), connectivity=8)
        x, y, width, height = stats[1:, :4].astype(np.float64).T
        return np.column_stack([x, y, x + width, y + height])

    def tracks(self, regions: Sequence[Floats]) -> list[Ints]:
        """Return the track of each region, (M,) of each frame: stored ones, else by overlap from frame to frame.

        Args:
            regions: the `boxes` of every frame.
        """
        if all(boxes or not len(found) for boxes, found in zip(self._boxes, regions, strict=True)):
            return [np.array([box["track"] for box in boxes or []], np.int64) for boxes in self._boxes]
        return linked(regions)


def clip_truths(labels: Sequence[LabelClip], clips: Sequence[Clip]) -> list[ClipTruth]:
    """Return the truth of clips, sorted by name."""
    by_name = {clip.name: clip for clip in clips}
    return [ClipTruth(one, by_name[one.name]) for one in sorted(labels, key=lambda clip: clip.name)]
