"""Where everything lies, relative to the root of the repository (where `dvc` runs the stages)."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
SUMMARY = Path("metrics/summary.json")
SUMMARY_TABLE = Path("metrics/summary.md")
RUN_METRICS = Path("metrics/runs")
SUMMARY_PLOTS = Path("plots/summary")


def raw(name: str) -> Path:
    """Return the folder of a data set as it came, in a layout that its reader reads."""
    return Path("data/raw") / name


def clips(dataset: str) -> Path:
    """Return the clip store of a data set."""
    return Path("data/clips") / dataset


def inpainted(dataset: str) -> Path:
    """Return the store of a data set's images without what its training boxes hold."""
    return Path("data/inpainted") / dataset


def pools(dataset: str) -> Path:
    """Return the store of a data set's inpainted images with the region of the pool."""
    return Path("data/pools") / dataset


def composites(dataset: str) -> Path:
    """Return the store of a data set's clips beside copies with virtual anomalies."""
    return Path("data/composites") / dataset


def labels(dataset: str) -> Path:
    """Return the store of a data set's labels, masks and boxes."""
    return Path("data/labels") / dataset


def flow(dataset: str) -> Path:
    """Return the optical-flow store of a data set."""
    return Path("data/flow") / dataset


def features(name: str) -> Path:
    """Return the store of a feature set."""
    return Path("data/features") / name


def model(run: str) -> Path:
    """Return the folder of a run's trained models, one sub-folder a seed."""
    return Path("models") / run


def of_category(folder: Path, category: str | None) -> Path:
    """Return where in a run's folder of models, scores or plots those of a category lie; None = there are none."""
    return folder if category is None else folder / category


def scores(run: str) -> Path:
    """Return the folder of a run's scores."""
    return Path("data/scores") / run


def run_metrics(run: str) -> Path:
    """Return the JSON file with everything measured for a run."""
    return RUN_METRICS / f"{run}.json"


def plots(run: str) -> Path:
    """Return the folder of a run's plots and pictures."""
    return Path("plots") / run


def roc(run: str) -> Path:
    """Return the ROC curve of a run's raw scores."""
    return Path("metrics/roc") / f"{run}.csv"


def curve(run: str) -> Path:
    """Return the losses of a run's training by epoch."""
    return Path("metrics/training") / f"{run}.csv"


def checkpoints(run: str) -> Path:
    """Return the folder where an interrupted training keeps its state (ignored by git and DVC)."""
    return Path(".checkpoints") / run


def failure(stage: str) -> Path:
    """Return the file that says in one line why a stage (`train@campus_knn`) failed; it is gone when it runs again."""
    return Path(".vadpipe/failed") / f"{stage}.txt"


def log(stage: str) -> Path:
    """Return the file with what a stage printed when `vadpipe repro` ran it."""
    return Path(".vadpipe/logs") / f"{stage}.log"


def progress(stage: str) -> Path:
    """Return the file that says how far a stage is while `vadpipe repro` runs it."""
    return Path(".vadpipe/progress") / f"{stage}.json"


# The stores that are made of a data set, besides features, which are made of one of them.
OF_DATASETS = (clips, labels, inpainted, pools, composites, flow)

# The stores that a run can name in `uses`: folder -> kind of store.
STORE_KINDS = {f"data/{kind}": kind for kind in ("clips", "inpainted", "pools", "composites", "flow", "features")}
