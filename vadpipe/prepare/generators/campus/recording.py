"""Recording of a clip: its video, the masks of what is abnormal, and their boxes and intervals."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from vadpipe.prepare.generators.campus.arrays import Bools, Bytes

Shot = tuple[Bytes, dict[int, Bools]]  # a picture (h, w, 3), and the visible pixels (h, w) of anomalies by track
Row = tuple[str | int, ...]  # of a table


def record(shots: Iterable[Shot], size: tuple[int, int], fps: float, video: Path) -> tuple[Bytes, list[Row]]:
    """Write the video of a clip whose frames have a size in columns and rows.

    Returns:
        masks (n, h, w), 255 where anomalies are seen, and rows: track, frame, x_min, y_min, x_max, y_max.

    Raises:
        RuntimeError: OpenCV cannot write there.
        OSError: the disk is full.
    """
    # the writer inside OpenCV: its bytes do not depend on the FFmpeg that happens to be installed
    writer = cv2.VideoWriter(str(video), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    if not writer.isOpened():
        raise RuntimeError(f"cannot write {video}: OpenCV gives no MJPG writer")
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
    masks: list[Bytes] = []
    rows: list[Row] = []
    for index, (picture, seen) in enumerate(shots):
        writer.write(picture)
        mask = np.zeros(picture.shape[:2], np.uint8)
        for track, pixels in seen.items():
            mask[pixels] = 255
            y, x = np.nonzero(pixels)
            rows.append((track, index, int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1))
        masks.append(mask)
    writer.release()
    _check_whole(video)
    return np.stack(masks), sorted(rows)


def _check_whole(video: Path) -> None:
    """Compare the size of an AVI with the one in its head: OpenCV says nothing of what it could not write."""
    with video.open("rb") as file:
        head = file.read(8)
    if video.stat().st_size != int.from_bytes(head[4:], "little") + len(head):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(video))


def intervals(abnormal: Bools) -> list[tuple[int, int]]:
    """Return first and last frame of every run of abnormal frames (n,)."""
    edges = np.flatnonzero(np.diff(np.pad(abnormal.astype(np.int8), 1)))
    return [(int(first), int(after) - 1) for first, after in edges.reshape(-1, 2)]
