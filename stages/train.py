"""Stage `train`: fit the method of a run, one model a seed, to models/RUN, its losses to metrics/training/RUN.csv."""

from contextlib import nullcontext
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
    if not leads():
        end_with_parent()
        # The process that leads is at the first seed that has no model.
        state = Checkpoints(paths.checkpoints(name), key)
        seed = next(seed for seed in base.seeds(method) if not state.model(seed).is_dir())
        method.fit(store, base.Fit(seed, state.state(seed)))
        return
    with locked(paths.checkpoints(name)):
        state = Checkpoints(paths.checkpoints(name), key)
        for seed in base.seeds(method):
            if state.model(seed).is_dir():
                print(f"{name}: seed {seed} is trained already, continuing behind it")
                continue
            fit = base.Fit(seed, state.state(seed))
            with followed([__file__, name], method.train.device) if network else nullcontext():
                method.fit(store, fit)
            with replacing(state.model(seed), folder=True) as folder:
                write_json(folder / "seed.json", {"seed": seed, "losses": list(method.losses)})
                method.save(folder)
                seal(folder)
        trained = [read_json(state.model(seed) / "seed.json", "remove .checkpoints") for seed in base.seeds(method)]
        write_curve(paths.curve(name), [seed["losses"] for seed in trained])
        state.publish(paths.model(name))
    print(f"{name}: {run.method} trained on {uses} -> {paths.model(name)}")


if __name__ == "__main__":
    run_stage(main)
