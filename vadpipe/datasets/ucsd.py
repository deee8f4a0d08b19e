"""Reader `ucsd`: UCSD Ped1 and Ped2 in their official layout (Mahadevan et al., CVPR 2010).

ROOT/Train/Train001/001.tif ...            (also .jpg and .png)
ROOT/Test/Test001/001.tif ...
ROOT/Test/Test001_gt/001.bmp ...           pixel masks; frame001.bmp in some clips; not for every clip of Ped1
ROOT/Test/UCSDped2.m                       abnormal intervals, one line a test clip, from 1, both ends included
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vadpipe.datasets.base import RawClip, RawDataset, check_clips, entries, image_files, interval_labels, number
from vadpipe.errors import UserError
from vadpipe.store.clips import Frame

_TEXTS = {".txt", ".pdf"}


def scan(root: Path) -> RawDataset:
    """Find the clips of a UCSD folder and check its labels and masks.

    Raises:
        UserError: the layout, the intervals or the masks are not as they should be.
    """
    for path in entries(root):
        if path.name not in {"Train", "Test"} and path.suffix.lower() not in _TEXTS:
            raise UserError(f"{path} does not belong to the layout of UCSD (Train, Test); move it elsewhere")
    oddities: list[str] = []
    clips = [
        RawClip("train", folder.name, partial(_frames, image_files(folder), {}, None))
        for folder in _clip_folders(root / "Train", r"Train\d{3}")
    ]
    tests = _clip_folders(root / "Test", r"Test\d{3}(_gt)?")
    masks = {folder.name.removesuffix("_gt"): folder for folder in tests if folder.name.endswith("_gt")}
    tests = [folder for folder in tests if not folder.name.endswith("_gt")]
    for name in sorted(masks.keys() - {folder.name for folder in tests}):
        raise UserError(f"{masks[name]} holds masks of a clip that is not there; add Test/{name} or remove it")
    for folder, (where, intervals) in zip(tests, _intervals(root / "Test", len(tests)), strict=True):
        files = image_files(folder)
        labels = interval_labels(where, len(files), intervals, origin=1)
        if folder.name not in masks:
            oddities.append(f"{folder.name} has no pixel masks")
        pairs = _pair(files, masks.get(folder.name))
        clips.append(RawClip("test", folder.name, partial(_frames, files, pairs, labels)))
    return RawDataset(check_clips(root, clips), oddities)


def _clip_folders(folder: Path, pattern: str) -> list[Path]:
    found = []
    for path in entries(folder):
        if path.is_dir() and re.fullmatch(pattern, path.name):
            found.append(path)
        elif path.suffix.lower() not in {".m", *_TEXTS}:
            raise UserError(f"{path} does not belong to the layout of UCSD ({pattern}); move it elsewhere")
    return found


def _intervals(folder: Path, clips: int) -> list[tuple[str, list[tuple[int, int]]]]:
    """Return for each test clip where its labels stand and its intervals, from 1, both ends included."""
    files = [path for path in entries(folder) if path.suffix == ".m"]
    if len(files) != 1:
        raise UserError(f"{folder}: expected one file of intervals such as UCSDped2.m, found {len(files)}")
    found = []
    for row, line in enumerate(files[0].read_text(errors="replace").splitlines(), 1):
        match = re.search(r"gt_frame\s*=\s*\[(.*?)\]", line)
        if match is None:
            continue
        where = f"{files[0]}, line {row}"
        parts = [part.split(":") for part in re.split(r"[,\s]+", match[1].strip()) if part]
        try:
            found.append((where, [(int(part[0]), int(part[-1])) for part in parts]))
        except ValueError:
            raise UserError(f"{where}: cannot read '{match[1]}'; expected ranges such as [61:180]") from None
    if len(found) != clips:
        raise UserError(f"{files[0]} has intervals for {len(found)} clips, but there are {clips} test clips")
    return found


def _pair(files: list[Path], masks: Path | None) -> dict[Path, Path]:
    """Pair frames with masks by their number, since some masks are named `frame001.bmp`."""
    if masks is None:
        return {}
    by_number = {number(path): path for path in image_files(masks)}
    missing = [path for path in files if number(path) not in by_number]
    if missing or len(by_number) != len(files):
        what = f"no mask for {missing[0]}" if missing else f"{len(by_number)} masks for {len(files)} frames"
        raise UserError(f"{masks}: {what}; a clip has a mask for every frame or none at all")
    return {path: by_number[number(path)] for path in files}


def _frames(files: list[Path], masks: dict[Path, Path], labels: npt.NDArray[np.int8] | None) -> Iterator[Frame]:
    for index, path in enumerate(files):
        label = 0 if labels is None else int(labels[index])
        yield Frame(str(path), path, masks.get(path), label)
