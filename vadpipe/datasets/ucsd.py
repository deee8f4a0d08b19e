"""Reader `ucsd`: UCSD Ped1 and Ped2 in their official layout (Mahadevan et al., CVPR 2010).

ROOT/Train/Train001/001.tif ...            (also .jpg and .png)
ROOT/Test/Test001/001.tif ...
ROOT/Test/Test001_gt/001.bmp ...           pixel masks; frame001.bmp in some clips; not for every clip of Ped1
ROOT/Test/UCSDped2.m                       abnormal intervals, one line a test clip, both ends included

The intervals mean the numbers in the names of the frames, which count from 1.
"""

from __future__ import annotations

import re
from pathlib import Path

from vadpipe.datasets.base import RawClip, RawDataset, check_clips
from vadpipe.datasets.files import TEXT_SUFFIXES, entries, layout
from vadpipe.datasets.labels import NORMAL, Intervals, Known, paired_masks
from vadpipe.datasets.sources import Source, raw_clip, source
from vadpipe.errors import UserError
from vadpipe.files import read_bytes

# The files do not say; the sets are taken to have 10 frames a second.
_FPS = 10.0


def scan(root: Path) -> RawDataset:
    """Find the clips of a UCSD folder and check its labels and masks.

    Raises:
        UserError: the layout, the intervals or the masks are not as they should be.
    """
    layout(root, "UCSD", {"Train", "Test"}, set())
    oddities: list[str] = []
    train = _clip_folders(root / "Train", r"Train\d{3}")
    clips = [_clip("train", source(folder), Known(NORMAL)) for folder in train]
    tests = _clip_folders(root / "Test", r"Test\d{3}(_gt)?")
    masks = {folder.name.removesuffix("_gt"): folder for folder in tests if folder.name.endswith("_gt")}
    tests = [folder for folder in tests if not folder.name.endswith("_gt")]
    for name in sorted(masks.keys() - {folder.name for folder in tests}):
        raise UserError(f"{masks[name]} holds masks of a clip that is not there; add Test/{name} or remove it")
    for folder, labels in zip(tests, _labels(root / "Test", len(tests)), strict=True):
        clip, at = source(folder), masks.get(folder.name)
        if at is None:
            oddities.append(f"{folder.name} has no pixel masks")
        paired = paired_masks(clip.files, at) if at and clip.files else None
        clips.append(_clip("test", clip, Known(labels, None, paired, at)))
    return RawDataset(check_clips(root, clips), oddities)


def _clip(split: str, clip: Source, known: Known) -> RawClip:
    """Return a clip, whose frames the intervals mean by number."""
    files = clip.files
    if files is None:
        raise UserError(f"{clip.path} is a video; UCSD has folders of frames")
    if not files.digits:
        raise UserError(f"{files.paths[0]} has no frame number in its name; UCSD names frames 001, 002, ...")
    found = raw_clip(split, clip, known, _FPS)
    if files.numbers[0] != 1:
        found.notes.append(f"its frames begin with number {files.numbers[0]}, not 1 as in UCSD")
    return found


def _clip_folders(folder: Path, pattern: str) -> list[Path]:
    found = []
    for path in entries(folder):
        if path.is_dir() and re.fullmatch(pattern, path.name):
            found.append(path)
        elif path.is_dir() or path.suffix.lower() not in {".m", *TEXT_SUFFIXES}:
            raise UserError(f"{path} does not belong to the layout of UCSD ({pattern}); move it elsewhere")
    return found


def _labels(folder: Path, clips: int) -> list[Intervals]:
    """Return the intervals of each test clip."""
    files = [path for path in entries(folder) if path.suffix == ".m"]
    if len(files) != 1:
        raise UserError(f"{folder}: expected one file of intervals such as UCSDped2.m, found {len(files)}")
    found = []
    for row, line in enumerate(read_bytes(files[0]).decode(errors="replace").splitlines(), 1):
        match = re.search(r"gt_frame\s*=\s*\[(.*?)\]", line)
        if match is None:
            continue
        where = f"{files[0]}, line {row}"
        parts = [part.split(":") for part in re.split(r"[,\s]+", match[1].strip()) if part]
        try:
            intervals = [(int(part[0]), int(part[-1])) for part in parts]
        except ValueError:
            raise UserError(f"{where}: cannot read '{match[1]}'; expected ranges such as [61:180]") from None
        found.append(Intervals(where, intervals))
    if len(found) != clips:
        raise UserError(f"{files[0]} has intervals for {len(found)} clips, but there are {clips} test clips")
    return found
