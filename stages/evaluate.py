"""Stage `evaluate`: measure the scores of a run, to metrics/runs/RUN.json, metrics/roc/RUN.csv and plots/RUN."""

from vadpipe import params, paths
from vadpipe.evaluation.fusion import fused
from vadpipe.evaluation.locate import locate
from vadpipe.evaluation.plots import headline, write_plots, write_roc
from vadpipe.evaluation.run import evaluate
from vadpipe.evaluation.scored import align
from vadpipe.evaluation.strips import write_strips
from vadpipe.evaluation.truth import clip_truths
from vadpipe.evaluation.unlabelled import write_unlabelled
from vadpipe.params import Evaluate
from vadpipe.stage import run_stage
from vadpipe.store import open_store
from vadpipe.store.atomic import replacing, write_json
from vadpipe.store.scores import read_scores
from vadpipe.store.seal import check_seal


def main(name: str) -> None:
    """Evaluate the run `name`."""
    run = params.load().run(name)
    settings = params.parse(Evaluate, run.evaluate, f"params.yaml: runs.{name}.evaluate")
    clips = open_store(paths.clips(run.dataset), "clips").clips("test")
    known = open_store(paths.labels(run.dataset), "labels")
    labels, scores = known.clips("test"), paths.scores(name)
    check_seal(scores, f"run `dvc checkout {scores}` or `dvc repro -f score@{name}`")
    scored = align(name, read_scores(scores), labels)
    truths, training = clip_truths(labels, clips), known.clips("train")
    with fused(name, settings, scored, scores) as (scored, maps):
        located = locate(name, settings, scored, truths, training, maps)
        result = evaluate(name, run, settings, scored, located)
        with replacing(paths.plots(name), folder=True) as folder:
            write_plots(folder, result, scored, clips, maps)
            write_strips(folder, name, located, scored.seeds[0], maps)
            write_unlabelled(folder, settings, scored, truths, training, maps)
        write_roc(paths.roc(name), scored)
    write_json(paths.run_metrics(name), result)
    print(f"{headline(result)} -> {paths.run_metrics(name)}, {paths.plots(name)}")


if __name__ == "__main__":
    run_stage(main)
