"""Raw data in, clip store out."""

from __future__ import annotations

from pathlib import Path

from tqdm import tqdm

from vadpipe.datasets import base
from vadpipe.datasets.base import RawDataset
from vadpipe.errors import UserError
from vadpipe.params import Ingest
from vadpipe.progress import counted
from vadpipe.store.atomic import replacing
from vadpipe.store.base import clip_file, write_manifests
from vadpipe.store.clips import write_clip


def ingest(name: str, params: Ingest, source: Path, out: Path, truth: Path) -> None:
    """Write the clip store and the label store of a data set.

    Raises:
        UserError: the layout, a frame, a mask or a label is not as it should be.
    """
    dataset = base.get(params.reader)(source)
    with replacing(truth, folder=True) as labels, replacing(out, folder=True) as clips:
        frames = write_clips(name, params, dataset, clips, labels)
    print(f"{name}: {len(dataset.clips)} clips, {frames} frames -> {out}")


def write_clips(name: str, params: Ingest, dataset: RawDataset, clips: Path, labels: Path) -> int:
    """Write all clips and their labels into empty folders and return the number of frames."""
    if dataset.ordered and params.fps is None:
        raise UserError(f"params.yaml: ingest.{name}.fps is null, but these are videos; give their frames a second")
    info = {
        "dataset": name,
        "reader": params.reader,
        "fps": params.fps,
        "ordered": dataset.ordered,
        "source": f"data/raw/{name}",
    }
    total = 0
    with tqdm(unit=" frames", desc=f"ingest {name}", disable=None) as bar:
        for clip in dataset.clips:
            path, truth = (clip_file(folder, clip.split, clip.name) for folder in (clips, labels))
            total += write_clip(path, truth, counted(clip.frames(), bar), params.quality, **info)
    for folder in (clips, labels):
        write_manifests(folder)
    return total
