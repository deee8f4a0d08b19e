"""Stage `evaluate`: measure the scores of a run, to metrics/runs/RUN.json and plots/RUN."""

from vadpipe import params, paths
from vadpipe.errors import run_stage
from vadpipe.evaluation.locate import locate
from vadpipe.evaluation.plots import headline, write_plots
from vadpipe.evaluation.run import evaluate
from vadpipe.evaluation.scored import align
from vadpipe.evaluation.strips import write_strips
from vadpipe.params import Evaluate
from vadpipe.store import open_store
from vadpipe.store.atomic import replacing, write_json
from vadpipe.store.scores import read_scores


def main(name: str) -> None:
    """Evaluate the run `name`."""
    run = params.load().run(name)
    settings = params.parse(Evaluate, run.evaluate, f"params.yaml: runs.{name}.evaluate")
    store = open_store(paths.clips(run.dataset), "clips")
    clips = store.clips("test")
    scores = paths.scores(name)
    scored = align(name, read_scores(scores), clips)
    located = locate(name, settings, scored, clips, store.clips("train"), scores)
    result = evaluate(name, run, settings, scored, located)
    with replacing(paths.plots(name), folder=True) as folder:
        write_plots(folder, result, scored, clips, scores)
        write_strips(folder, name, located, scored.seeds[0], scores)
    write_json(paths.run_metrics(name), result)
    print(f"{headline(result)} -> {paths.run_metrics(name)}, {paths.plots(name)}")


if __name__ == "__main__":
    run_stage(main)
