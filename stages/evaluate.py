"""Stage `evaluate`: measure the scores of a run, to metrics/runs/RUN.json, metrics/roc/RUN.csv and plots/RUN."""

from pathlib import Path

from vadpipe import params, paths
from vadpipe.evaluation.fusion import fused
from vadpipe.evaluation.gallery import write_gallery
from vadpipe.evaluation.locate import locate
from vadpipe.evaluation.plots import headline, write_pictures, write_roc, write_tables
from vadpipe.evaluation.run import Part, measure, result_of
from vadpipe.evaluation.scored import align
from vadpipe.evaluation.strips import check_chosen, write_strips
from vadpipe.evaluation.truth import clip_truths
from vadpipe.evaluation.unlabelled import write_unlabelled
from vadpipe.params import Evaluate
from vadpipe.stage import run_stage
from vadpipe.store import open_store
from vadpipe.store.atomic import replacing, write_json
from vadpipe.store.scores import categories, read_scores
from vadpipe.store.seal import check_seal


def main(name: str) -> None:
    """Evaluate the run `name`."""
    run = params.load().run(name)
    settings = params.parse(Evaluate, run.evaluate, f"params.yaml: runs.{name}.evaluate")
    clips = open_store(paths.clips(run.dataset), "clips").clips("test")
    known, scores = open_store(paths.labels(run.dataset), "labels"), paths.scores(name)
    vectors = open_store(Path(run.uses), "features") if settings.gallery else None
    check_seal(scores, f"run `dvc checkout {scores}` or `dvc repro -f score@{name}`")
    aligned = []
    for category in categories(scores):
        labels = known.of(category).clips("test")
        aligned.append((align(name, read_scores(paths.of_category(scores, category)), labels, category), labels))
    parts = []
    with replacing(paths.plots(name), folder=True) as folder:
        for raw, labels in aligned:
            where, pictures = (paths.of_category(at, raw.category) for at in (scores, folder / "pictures"))
            truths, training = clip_truths(labels, clips), known.of(raw.category).clips("train")
            with fused(name, settings, raw, where) as (scored, maps):
                located = locate(name, settings, scored, truths, training, maps)
                parts.append(Part(scored, located, measure(name, run, settings, scored, located)))
                write_pictures(pictures, settings, parts[-1], clips, training, maps)
                write_strips(pictures, located, scored.seeds[0], maps)
                write_unlabelled(pictures, settings, scored, truths, training, maps)
                if vectors:
                    write_gallery(pictures, vectors.of(raw.category), scored)
        check_chosen(name, settings, [part.located for part in parts])
        write_tables(folder, settings, parts)
    write_roc(paths.roc(name), parts)
    result = result_of(parts)
    write_json(paths.run_metrics(name), result)
    print(f"{headline(result)} -> {paths.run_metrics(name)}, {paths.plots(name)}")


if __name__ == "__main__":
    run_stage(main)
