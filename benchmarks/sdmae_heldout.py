"""How the parts of `sdmae` should be fused, asked of training clips that a run has not trained on, never of test clips.

    python benchmarks/sdmae_heldout.py RUN

Give the run `train.clips` that leave some of the set out, and train it. Those left out are scored as they are (normal)
and with what the composite store has pasted into them (abnormal, where anything is). Every way of fusing is a row of
the table that comes to .study/sdmae. What is pasted is of the kind that the network trained on, so that anomaly map and
head look better here than on a test set; the error of the teacher has no such help.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

from vadpipe import params, paths
from vadpipe.errors import UserError, exit_code_2
from vadpipe.evaluation.fusion import FUSED, fused
from vadpipe.evaluation.markdown import figure as shown
from vadpipe.evaluation.markdown import table
from vadpipe.evaluation.run import evaluate
from vadpipe.evaluation.scored import Scored
from vadpipe.methods import base
from vadpipe.methods.sdmae import Sdmae
from vadpipe.params import Evaluate
from vadpipe.store import CompositeClip, open_store
from vadpipe.store.atomic import write_text
from vadpipe.store.images import Image
from vadpipe.store.scores import ScoreWriter, read_scores

OUT = Path(".study/sdmae")
PASSES = (1, 4)
PAPER = Sdmae.presets["paper"].evaluate["weights"]
WEIGHTS = {
    "teacher": {"teacher": 1.0},
    "student": {"student": 1.0},
    "difference": {"discrepancy": 1.0},
    "head": {"head": 1.0},
    "teacher, difference": {part: PAPER[part] for part in ("teacher", "discrepancy")},
    "teacher, difference, head": PAPER,
}
POOLS = ("max", "mean")
FILTERS = ([1, 1, 1], [9, 1, 1], [9, 3, 3], [9, 9, 9])  # frames, rows, columns


class Composited(CompositeClip):
    """A clip that shows what was pasted into it."""

    def chunks(self, grey: bool = False) -> Iterator[Image]:
        """Yield the composites."""
        for chunk in self.composites():
            yield np.stack([cv2.cvtColor(one, cv2.COLOR_RGB2GRAY) for one in chunk]) if grey else chunk


def scored_clips(name: str, passes: int, folder: Path) -> Scored:
    """Score the clips that a run has not trained on, clean and composited, into a folder."""
    run = params.load().run(name)
    run = run.model_copy(update={"score": {**run.score, "passes": passes}})
    method = base.create(run, name)
    store = open_store(Path(run.uses), method.needs)
    trained = {clip.name for clip in base.training_clips(method, store)}
    left = [clip for clip in store.clips("train") if clip.name not in trained and isinstance(clip, CompositeClip)]
    if not any(clip.has_composites for clip in left):
        raise UserError(
            f"params.yaml: runs.{name}.train.clips leaves out no training clip of {store.path} with composites"
        )
    clips = {f"{clip.name} clean": clip for clip in left} | {
        f"{clip.name} pasted": Composited(clip.path) for clip in left if clip.has_composites
    }
    names, seeds = sorted(clips), base.seeds(method)
    with closing(ScoreWriter(folder, run=name)) as writer:
        for seed in seeds:
            base.load(method, paths.model(name) / str(seed), name)
            for one in names:
                clip, scores = clips[one], list(method.score(clips[one]))
                writer.write(seed, one, clip.length, scores)
                if not isinstance(clip, Composited):
                    writer.write_training(seed, clip.name, clip.length, scores)
    labels = [
        np.array([bool(row) for row in clip.column("provenance")]) & isinstance(clip, Composited)
        for clip in (clips[one] for one in names)
    ]
    found = read_scores(folder)
    frames = found.frames.sort_values(["seed", "clip", "frame"])
    return Scored(
        names=names,
        lengths=np.array([clips[one].length for one in names]),
        fps=np.array([clips[one].info["fps"] for one in names], np.float64),
        times=np.full(sum(clips[one].length for one in names), np.nan),
        labels=np.concatenate(labels).astype(np.int8),
        seeds=seeds,
        components={part: frames[part].to_numpy(np.float64).reshape(len(seeds), -1) for part in found.components},
        info={},
    )


def rows(name: str) -> Iterator[tuple[str, ...]]:
    """Yield a row for each way of fusing."""
    run = params.load().run(name)
    for passes in PASSES:
        with TemporaryDirectory() as place:
            folder = Path(place) / "scores"
            folder.mkdir()
            scored = scored_clips(name, passes, folder)
            for (told, weights), pool, box in product(WEIGHTS.items(), POOLS, FILTERS):
                if not weights.keys() <= scored.components.keys():
                    continue
                values = {**run.evaluate, "weights": weights, "pool": pool, "filter": box, "bootstrap": 0}
                settings = params.parse(Evaluate, values, "evaluate")
                with fused(name, settings, scored, folder) as (out, _):
                    found = evaluate(name, run, settings, out, None)["components"][FUSED]
                micro = [shown(found[kind]["micro_auc"]) for kind in ("raw", "smoothed")]
                row = str(passes), told, pool, "x".join(map(str, box)), *micro
                print(*row, sep="  ", flush=True)
                yield row


def main() -> None:
    """Print and keep the table of a run."""
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/sdmae_heldout.py RUN")
    with exit_code_2():
        name = sys.argv[1]
        text = table(("passes", "parts", "pool", "filter", "micro AUC, raw", "smoothed"), list(rows(name)))
    OUT.mkdir(parents=True, exist_ok=True)
    write_text(OUT / f"{name}_heldout.md", f"{name}: clips held out, clean against composited\n\n{text}\n")
    print(f"{text}\n-> {OUT}/{name}_heldout.md")


if __name__ == "__main__":
    main()
