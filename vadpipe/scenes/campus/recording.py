"""Recording of a clip: its video, the masks of what is abnormal, and their boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from vadpipe.scenes.arrays import Bools, Bytes
from vadpipe.scenes.videos import write_video

Shot = tuple[Bytes, dict[int, Bools]]  # a picture (h, w, 3), and the visible pixels (h, w) of anomalies by track
Row = tuple[str | int, ...]  # of a table


def record(shots: Iterable[Shot], size: tuple[int, int], fps: float, video: Path) -> tuple[Bytes, list[Row]]:
    """Write the video of a clip whose frames have a size in columns and rows.

    Returns:
        masks (n, h, w), 255 where anomalies are seen, and rows: track, frame, x_min, y_min, x_max, y_max.

    Raises:
        RuntimeError, OSError: as `write_video`.
    """
    masks: list[Bytes] = []
    rows: list[Row] = []

    def pictures() -> Iterator[Bytes]:
        for index, (picture, seen) in enumerate(shots):
            yield picture
            mask = np.zeros(picture.shape[:2], np.uint8)
            for track, pixels in seen.items():
                mask[pixels] = 255
                y, x = np.nonzero(pixels)
                rows.append((track, index, int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1))
            masks.append(mask)

    write_video(pictures(), size, fps, video)
    return np.stack(masks), sorted(rows)
