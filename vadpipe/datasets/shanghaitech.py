"""Reader `shanghaitech`: ShanghaiTech Campus in its official layout (Luo et al., ICCV 2017; Liu et al., CVPR 2018).

ROOT/training/videos/01_001.avi ...              scene and clip
ROOT/testing/frames/01_0014/000.jpg ...
ROOT/testing/test_frame_mask/01_0014.npy         (T,), 1 = abnormal
ROOT/testing/test_pixel_mask/01_0014.npy         (T, H, W), above 0 = abnormal; optional

Training clips may be folders of frames too (training/frames), as those who extracted them have.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vadpipe.datasets.base import RawDataset, check_clips
from vadpipe.datasets.files import entries, layout
from vadpipe.datasets.labels import NORMAL, Intervals, Known
from vadpipe.datasets.sources import Source, numbered, raw_clip, sources
from vadpipe.errors import UserError
from vadpipe.files import there
from vadpipe.store.mask_files import open_npy, open_npy_masks

# Of the test frames, which do not say: that of most training videos.
_FPS = 24.0


def scan(root: Path) -> RawDataset:
    """Find the clips of ShanghaiTech and their labels.

    Raises:
        UserError: the layout or the labels are not as they should be.
    """
    layout(root, "ShanghaiTech", {"training", "testing"}, set())
    training = root / "training" / ("videos" if there(root / "training" / "videos") else "frames")
    train, test = sources(training), sources(root / "testing" / "frames")
    labels = _arrays(root / "testing" / "test_frame_mask", test)
    pixels = root / "testing" / "test_pixel_mask"
    masks = _arrays(pixels, test) if there(pixels) else {}
    clips = [raw_clip("train", clip, Known(NORMAL), _FPS) for clip in train]
    clips += [raw_clip("test", clip, _known(clip, labels[clip.name], masks.get(clip.name)), _FPS) for clip in test]
    return RawDataset(check_clips(root, clips), [] if masks else [f"{pixels} is not there: no figures by pixel"])


def _arrays(folder: Path, clips: list[Source]) -> dict[str, Path]:
    """Return the .npy file of each test clip.

    Raises:
        UserError: a clip has none, or a file no clip.
    """
    found = {path.stem: path for path in entries(folder) if path.suffix == ".npy"}
    for clip in clips:
        if clip.name not in found:
            raise UserError(f"{folder / clip.name}.npy is not there, but the test clip {clip.path}; add the file")
    for name in found.keys() - {clip.name for clip in clips}:
        raise UserError(f"{found[name]} is of a test clip that is not there; add testing/frames/{name} or remove it")
    return found


def _known(clip: Source, labels: Path, pixels: Path | None) -> Known:
    flags = open_npy(labels)
    if flags.ndim != 1 or flags.dtype.kind not in "bui" or not np.isin(flags, (0, 1)).all():
        raise UserError(f"{labels} holds {flags.dtype} of the shape {flags.shape}; wanted is 0 or 1 for each frame")
    if clip.files is not None and len(flags) != len(clip.files.paths):
        raise UserError(
            f"{labels} labels {len(flags)} frames, but {clip.path} holds {len(clip.files.paths)}; both must be whole"
        )
    masks = None if pixels is None else _by_frame(open_npy_masks(pixels), clip)
    return Known(numbered(Intervals.of(str(labels), flags), clip), None, masks, pixels)


def _by_frame(masks: npt.NDArray[Any], clip: Source) -> npt.NDArray[Any]:
    """Return masks (T, H, W); some copies have time as their last axis."""
    height, width = clip.size
    turned = masks.ndim == 3 and masks.shape[:2] == (height, width) and masks.shape[1:] != (height, width)
    return np.moveaxis(masks, 2, 0) if turned else masks
