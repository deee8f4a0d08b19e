"""Stage `score`: score the test clips with every model of a run, to data/scores/RUN, a folder a category."""

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
    info = {"run": name, "train": run.train, "score": run.score, "computed": store.info.get("computed", {})}
    categories, seeds = base.categories(method, store, name), base.seeds(method)
    clips = [store.of(category).clips("test") for category in categories]
    training = [base.training_clips(method, store.of(category)) for category in categories]
    total = len(seeds) * sum(map(len, clips + training))
    with (
        replacing(paths.scores(name), folder=True) as folder,
        progress.bar(total, "clips", f"score {name}") as bar,
    ):
        for category, tested, trained in zip(categories, clips, training, strict=True):
            with closing(ScoreWriter(paths.of_category(folder, category), **info)) as writer:
                for seed in seeds:
                    base.load(method, paths.of_category(paths.model(name), category) / str(seed), name)
                    writer.info.setdefault("model", method.record)
                    for clip in tested:
                        writer.write(seed, clip.name, clip.length, method.score(clip))
                        bar.update()
                    for clip in trained:
                        writer.write_training(seed, clip.name, clip.length, method.score(clip))
                        bar.update()
        seal(folder)
    several = f" of {len(categories)} categories" if categories != [None] else ""
    print(f"{name}: {sum(map(len, clips))} clips{several}, {len(seeds)} seed(s) -> {paths.scores(name)}")


if __name__ == "__main__":
    run_stage(main)
