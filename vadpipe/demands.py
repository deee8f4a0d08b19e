"""What params.yaml asks for that a stage would refuse, found before any stage runs."""

from __future__ import annotations

from vadpipe import paths, scenes
from vadpipe.datasets import base as readers
from vadpipe.errors import UserError
from vadpipe.files import there
from vadpipe.machine import gigabytes, memory
from vadpipe.methods import base as methods
from vadpipe.params import FeatureSet, Params
from vadpipe.prepare.flow import check_sizes
from vadpipe.prepare.ingest import frame_rate
from vadpipe.store import open_clips


def check(params: Params) -> None:
    """Check readers, scenes, frame rates, sizes, memory, and the methods of all runs.

    What the data decide is checked where they are here already.

    Raises:
        UserError: the first thing that a stage would refuse.
    """
    for name, values in params.generate.items():
        scenes.check(name, values)
    for name, ingest in params.ingest.items():
        readers.get(ingest.reader)
        # A generated video says its frame rate; whoever adds frames may not know that theirs do not.
        if name not in params.generate and there(paths.raw(name)):
            dataset = readers.scan(paths.raw(name), ingest.reader, ingest.objects, ingest.labels)
            for clip in dataset.clips:
                frame_rate(ingest, dataset, clip, f"params.yaml: ingest.{name}")
    for name, flow in params.flow.items():
        if paths.clips(name).is_dir():
            check_sizes(open_clips(paths.clips(name)), flow.scale)
    for name, features in params.features.items():
        _check_features(name, features)
    for name in params.methods:
        methods.get(name)
    for name in params.runs:
        method = methods.create(params.run(name), name)
        _check_memory(f"params.yaml: runs.{name}: its network", method.memory(), "make it smaller")


def _check_features(name: str, features: FeatureSet) -> None:
    # The frames of a batch as bytes and as numbers, and the first layer's output, which is never smaller.
    needed = features.batch * features.height * features.width * 3 * (1 + 4 + 4)
    _check_memory(f"params.yaml: features.{name}: a batch", needed, "lower batch, height or width")


def _check_memory(what: str, needed: int, way_out: str) -> None:
    if needed > memory():
        raise UserError(
            f"{what} takes at least {gigabytes(needed)} of memory, this machine has {gigabytes(memory())}; {way_out}"
        )
