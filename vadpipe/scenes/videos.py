"""Videos of drawn scenes, whose bytes depend on the pictures alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

import cv2

from vadpipe.scenes.arrays import Bytes


def write_video(pictures: Iterable[Bytes], size: tuple[int, int], fps: float, path: Path) -> None:
    """Write pictures (h, w, 3) blue, green, red of a size in columns and rows as Motion JPEG.

    Raises:
        RuntimeError: OpenCV cannot write there.
        OSError: the disk is full.
    """
    # the writer inside OpenCV: its bytes do not depend on the FFmpeg that happens to be installed
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    if not writer.isOpened():
        raise RuntimeError(f"cannot write {path}: OpenCV gives no MJPG writer")
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
    for picture in pictures:
        writer.write(picture)
    writer.release()
    _check_whole(path)


def _check_whole(video: Path) -> None:
    """Compare the size of an AVI with the one in its head: OpenCV says nothing of what it could not write."""
    with video.open("rb") as file:
        head = file.read(8)
    if video.stat().st_size != int.from_bytes(head[4:], "little") + len(head):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(video))
