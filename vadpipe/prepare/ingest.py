"""Raw data in, clip store out."""

from __future__ import annotations

from pathlib import Path

from vadpipe import progress
from vadpipe.datasets import base
from vadpipe.datasets.base import RawDataset
from vadpipe.errors import UserError
from vadpipe.params import Ingest
from vadpipe.store.atomic import replacing
from vadpipe.store.base import SPLITS
from vadpipe.store.clips import write_clip


def ingest(name: str, params: Ingest, source: Path, out: Path) -> None:
    """Write the clip store of a data set.

    Raises:
        UserError: the layout, a frame, a mask or a label is not as it should be.
    """
    dataset = base.get(params.reader)(source)
    with replacing(out, folder=True) as folder:
        frames = write_clips(name, params, dataset, folder)
    print(f"{name}: {len(dataset.clips)} clips, {frames} frames -> {out}")


def write_clips(name: str, params: Ingest, dataset: RawDataset, folder: Path) -> int:
    """Write all clips into an empty folder and return the number of frames."""
    if dataset.ordered and params.fps is None:
        raise UserError(f"params.yaml: ingest.{name}.fps is null, but these are videos; give their frames a second")
    info = {
        "dataset": name,
        "reader": params.reader,
        "fps": params.fps,
        "ordered": dataset.ordered,
        "source": f"data/raw/{name}",
    }
    for split in SPLITS:
        (folder / split).mkdir()
    total = 0
    with progress.bar(None, "frames", f"ingest {name}") as bar:
        for clip in dataset.clips:
            path = folder / clip.split / f"{clip.name}.parquet"
            total += write_clip(path, progress.counted(clip.frames(), bar), params.quality, **info)
    return total
