"""anomalib's side of benchmarks/anomalib_twin.py: runs in the environment that has it, and imports nothing of vadpipe.

    PYTHON benchmarks/anomalib_side.py PART FOLDER

FOLDER/given.safetensors holds what both sides are given. A line `run` on the standard input runs the part once; after
`values`, FOLDER/found.safetensors has what comes out, of maps also as they are before they are enlarged and blurred.
The answer is a line with the seconds that the processor worked.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.transforms import v2

warnings.filterwarnings("ignore")

Tensors = dict[str, torch.Tensor]
LAYERS = ["layer1", "layer2", "layer3"]
# Bytes. Now and then the loop of the coreset grows by its largest array in every step, and would take the machine
# along: small arrays fill the gaps around blocks that were freed, which then are too small for an aligned one.
MEMORY = 8 * 2**30


class Unblurred(nn.Module):
    """Stands for a blur, or for a generator of maps that only enlarges and blurs: gives back what it is given."""

    def forward(self, maps: torch.Tensor, size: object = None) -> torch.Tensor:
        return maps


class Held(nn.Module):
    """Stands for a backbone: gives maps that are there already."""

    def __init__(self, maps: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, rows: torch.Tensor) -> Tensors:
        return {layer: maps[rows[:, 0, 0, 0].long()] for layer, maps in self.maps.items()}


class Model:
    """A model of anomalib with the backbone of the other side, on batches of its images or of their maps."""

    def __init__(self, given: Tensors, model: nn.Module, layers: list[str], extractor: str, held: bool) -> None:
        self.model = model.eval()
        backbone = {key.removeprefix("backbone."): one for key, one in given.items() if key.startswith("backbone.")}
        getattr(model, extractor).feature_extractor.load_state_dict(backbone)
        normalise = v2.Normalize(given["mean"].tolist(), given["std"].tolist())
        self.prepare = v2.Compose([v2.ToDtype(torch.float32, scale=True), normalise])
        self.inputs, self.size = given["images"], int(given["batch"])
        if held:
            # Rows instead of images; the models ask an image for its sides and its type alone.
            maps = {layer: given[f"maps.{layer}"] for layer in layers}
            setattr(model, extractor, Held(maps))
            self.prepare = Unblurred()
            rows = torch.arange(len(self.inputs), dtype=torch.float32)[:, None, None, None]
            self.inputs = rows.expand(-1, 1, *given["images"].shape[-2:])

    def run(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return maps (n, h, w) and scores (n,)."""
        with torch.inference_mode():
            parts = [self.model(self.prepare(batch)) for batch in self.inputs.split(self.size)]
        maps, scores = (torch.cat([getattr(one, name) for one in parts]) for name in ("anomaly_map", "pred_score"))
        return maps[:, 0], scores.reshape(-1)


def aupro(given: Tensors) -> tuple[Callable[[], object], Callable[[], Tensors]]:
    from anomalib.metrics.aupro import _AUPRO

    def run() -> torch.Tensor:
        metric = _AUPRO(fpr_limit=0.3)
        for maps, truths in zip(given["maps"].split(32), given["truths"].split(32), strict=True):
            metric.update(maps, truths)
        return metric.compute()

    def values() -> Tensors:
        exact = run()
        given["maps"] = given["maps"].half().float()
        return {"aupro": torch.stack([exact, run()])}

    return run, values


def coreset(given: Tensors) -> tuple[Callable[[], object], Callable[[], Tensors]]:
    from anomalib.models.components import KCenterGreedy

    # Rows of numbers would be projected first; arrays of more dimensions are flattened and taken as they are.
    vectors = given["vectors"][..., None]
    share = float(given["share"])

    def run() -> list[int]:
        torch.manual_seed(0)
        return KCenterGreedy(vectors, share).select_coreset_idxs()

    return run, lambda: {"chosen": torch.tensor(run())}


def patchcore(given: Tensors, held: bool) -> tuple[Callable[[], object], Callable[[], Tensors]]:
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    model = PatchcoreModel(LAYERS[1:], "resnet18", pre_trained=False, num_neighbors=int(given["neighbours"]))
    model.memory_bank = given["memory"]
    whole = Model(given, model, LAYERS[1:], "feature_extractor", held)

    def values() -> Tensors:
        full, _ = whole.run()
        model.anomaly_map_generator = Unblurred()
        maps, scores = whole.run()
        return {"full": full, "maps": maps, "scores": scores}

    return whole.run, values


def padim(given: Tensors, held: bool) -> tuple[Callable[[], object], Callable[[], Tensors]]:
    from anomalib.models.image.padim.torch_model import PadimModel

    model = PadimModel("resnet18", LAYERS, pre_trained=False, n_features=len(given["chosen"]))
    model.idx = given["chosen"]
    model.gaussian.mean, model.gaussian.inv_covariance = given["centre"].T.contiguous(), given["inverse"]
    whole = Model(given, model, LAYERS, "feature_extractor", held)

    def values() -> Tensors:
        full, _ = whole.run()
        generator = model.anomaly_map_generator
        generator.up_sample, generator.blur = (lambda maps, size: maps), Unblurred()
        maps, scores = whole.run()
        return {"full": full, "maps": maps, "scores": scores}

    return whole.run, values


def reverse_distillation(given: Tensors, held: bool) -> tuple[Callable[[], object], Callable[[], Tensors]]:
    from anomalib.models.image.reverse_distillation import anomaly_map
    from anomalib.models.image.reverse_distillation.torch_model import ReverseDistillationModel

    size = tuple(given["images"].shape[-2:])
    model = ReverseDistillationModel("resnet18", size, LAYERS, anomaly_map.AnomalyMapGenerationMode.ADD, False)
    for name, modules in PARTS.items():
        theirs = [one for path in modules for one in model.get_submodule(path).state_dict().values()]
        for number, one in enumerate(theirs):
            one.copy_(given[f"student.{name}.{number:03d}"].reshape(one.shape))
    whole = Model(given, model, LAYERS, "encoder", held)

    def values() -> Tensors:
        full, _ = whole.run()
        model.anomaly_map_generator.image_size = tuple(given["maps.layer1"].shape[-2:])
        anomaly_map.GaussianBlur2d = lambda **_: Unblurred()
        maps, scores = whole.run()
        return {"full": full, "maps": maps, "scores": scores}

    return whole.run, values


# Parts of our network, and the modules of theirs that have the same tensors in the same order.
PARTS = {
    "fuse": [f"bottleneck.{kind}{number}" for number in (1, 2, 3) for kind in ("conv", "bn")],
    "bottleneck": ["bottleneck.bn_layer"],
    "unfold": ["decoder.layer1", "decoder.layer2", "decoder.layer3"],
}


def main() -> None:
    part, _, what = sys.argv[1].partition("_from_")
    folder = Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    given = load_file(folder / "given.safetensors")
    run, values = globals()[part](given, what == "maps") if what else globals()[part](given)
    import anomalib

    print(f"anomalib {anomalib.__version__} on PyTorch {torch.__version__}", file=answers, flush=True)
    for line in sys.stdin:
        start = time.process_time()
        if line.strip() == "run":
            run()
        else:
            save_file({name: one.contiguous() for name, one in values().items()}, folder / "found.safetensors")
        print(time.process_time() - start, file=answers, flush=True)


if __name__ == "__main__":
    main()
