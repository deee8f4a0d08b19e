"""Stage `score`: score the test clips with every model of a run, to data/scores/RUN."""

from contextlib import closing
from pathlib import Path

from vadpipe import params, paths, progress
from vadpipe.methods import base
from vadpipe.stage import run_stage
from vadpipe.store import open_store
from vadpipe.store.atomic import replacing
from vadpipe.store.scores import ScoreWriter
from vadpipe.store.seal import seal


def main(name: str) -> None:
    """Score the run `name`."""
    run = params.load().run(name)
    method = base.create(run, name)
    store = open_store(Path(run.uses), method.needs)
    clips, training = store.clips("test"), base.training_clips(method, store)
    info = {"run": name, "train": run.train, "score": run.score, "computed": store.info.get("computed", {})}
    seeds = base.seeds(method)
    with replacing(paths.scores(name), folder=True) as folder:
        with (
            closing(ScoreWriter(folder, **info)) as writer,
            progress.bar(len(seeds) * (len(clips) + len(training)), "clips", f"score {name}") as bar,
        ):
            for seed in seeds:
                base.load(method, paths.model(name) / str(seed), name)
                writer.info.setdefault("model", method.record)
                for clip in clips:
                    writer.write(seed, clip.name, clip.length, method.score(clip))
                    bar.update()
                for clip in training:
                    writer.write_training(seed, clip.name, clip.length, method.score(clip))
                    bar.update()
        seal(folder)
    print(f"{name}: {len(clips)} clips, {len(seeds)} seed(s) -> {paths.scores(name)}")


if __name__ == "__main__":
    run_stage(main)
