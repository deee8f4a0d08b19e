"""Stage `train`: fit the method of a run, a model a category and seed, to models/RUN, its losses to
metrics/training/RUN.csv."""

from contextlib import nullcontext
from itertools import product
from pathlib import Path

from vadpipe import params, paths
from vadpipe.errors import UserError
from vadpipe.files import read_json
from vadpipe.methods import base
from vadpipe.parallel import end_with_parent
from vadpipe.stage import run_stage
from vadpipe.store import open_store
from vadpipe.store.atomic import locked, replacing, write_json
from vadpipe.store.seal import seal
from vadpipe.training.checkpoints import Checkpoints, fingerprint
from vadpipe.training.curves import write_curve
from vadpipe.training.group import followed, leads


def main(name: str) -> None:
    """Train the run `name`; what an interrupted training left is taken up."""
    run = params.load().run(name)
    method = base.create(run, name)
    uses = Path(run.uses)
    store = open_store(uses, method.needs)
    if method.temporal and not store.info.get("ordered", True):
        raise UserError(f"params.yaml: runs.{name}: {run.method} needs frames in time, but {uses} holds loose images")
    key = fingerprint(run.model_dump(include={"method", "train"}), [uses / "train"], base.source_files(run.method))
    network = isinstance(method.train, base.NetworkParams)
    models = list(product(base.categories(method, store, name), base.seeds(method)))
    if not leads():
        end_with_parent()
        # The process that leads is at the first model that is missing.
        state = Checkpoints(paths.checkpoints(name), key)
        category, seed = next(one for one in models if not state.model(*one).is_dir())
        method.fit(store.of(category), base.Fit(seed, state.state(category, seed)))
        return
    with locked(paths.checkpoints(name)):
        state = Checkpoints(paths.checkpoints(name), key)
        for category, seed in models:
            told = f"seed {seed}" if category is None else f"{category}, seed {seed}"
            if state.model(category, seed).is_dir():
                print(f"{name}: {told} is trained already, continuing behind it")
                continue
            if category is not None:
                print(f"{name}: {told}", flush=True)
            fit = base.Fit(seed, state.state(category, seed))
            with followed([__file__, name], method.train.device) if network else nullcontext():
                method.fit(store.of(category), fit)
            with replacing(state.model(category, seed), folder=True) as folder:
                write_json(folder / "seed.json", {"seed": seed, "losses": list(method.losses)})
                method.save(folder)
                seal(folder)
        trained = [read_json(state.model(*one) / "seed.json", "remove .checkpoints") for one in models]
        write_curve(paths.curve(name), [model["losses"] for model in trained])
        state.publish(paths.model(name))
    print(f"{name}: {run.method} trained on {uses} -> {paths.model(name)}")


if __name__ == "__main__":
    run_stage(main)
