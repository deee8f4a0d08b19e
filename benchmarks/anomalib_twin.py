"""Speed and values beside anomalib, which has an environment of its own and is no dependency of anything.

    python -m venv ANOMALIB && ANOMALIB/bin/pip install anomalib torch==2.15.0 torchvision==0.29.2 timm==1.0.31
    python benchmarks/anomalib_twin.py [--weights FILE] ANOMALIB/bin/python [PART ...]

Both sides get the same arrays and networks of the same weights, have as many threads, which sleep while they wait, and
keep memory that was freed. They take turns, ours, theirs, ours, theirs; a ratio is the median over neighbours, beside
the lowest and the highest. The backbone is a ResNet-18, with random weights unless a .safetensors file of it is given;
but for the coreset they do not change how long anything takes.

Of a method, `from_images` is all from decoded images on, ours with the feature store on disk between backbone and
method; `from_maps` begins behind the backbone. Maps are compared before they are blurred, since anomalib enlarges them
first; how far apart the blurred ones are is told too. docs/performance.md shows what was measured where.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from ruamel.yaml import YAML
from run import REPO, ROUNDS, patches
from safetensors.numpy import load_file, save_file

from vadpipe import starter
from vadpipe.evaluation.pixels import pixel_metrics
from vadpipe.methods import base
from vadpipe.methods.base import Fit, Method
from vadpipe.nn.backbones import Backbone
from vadpipe.nn.coreset import k_centre
from vadpipe.nn.device import choose_device
from vadpipe.nn.reverse import ReverseStudent, fold_norms
from vadpipe.parallel import cores
from vadpipe.params import FeatureSet
from vadpipe.scenes.products import picture
from vadpipe.scenes.products.defects import DEFECTS
from vadpipe.store import FeatureClip, features, open_store
from vadpipe.store.base import write_manifests

LAYERS = [1, 2, 3]
BATCH = 8
TESTED = 16  # images
TRAINING = 21  # images: their places are a memory as large as a tenth of those of 209 images, those of MVTec's bottle

ATTEMPTS = 4

Arrays = dict[str, np.ndarray]


class Part(NamedTuple):
    """Something that both sides do.

    Attributes:
        name: as the other side knows it.
        given: what the other side gets.
        ours: does it once.
        judge: says what is to be said of the values, given those of the other side.
    """

    name: str
    given: Arrays
    ours: Callable[[], object]
    judge: Callable[[Arrays], str]
    rounds: int = ROUNDS


class Took(NamedTuple):
    """Seconds, and those that the process worked, of all threads together."""

    passed: float
    worked: float


def took(work: Callable[[], object]) -> Took:
    start, before = time.perf_counter(), time.process_time()
    work()
    return Took(time.perf_counter() - start, time.process_time() - before)


class EndedError(Exception):
    """The other side ended before its part was done; what it said last."""


class Theirs:
    """The process of the other side: it does its part when it is told to."""

    def __init__(self, python: str, part: Part, folder: Path) -> None:
        self.folder = folder
        save_file({name: np.ascontiguousarray(one) for name, one in part.given.items()}, folder / "given.safetensors")
        kept = str(2**30)  # as vadpipe.machine
        environment = {
            **os.environ,
            **{"OMP_NUM_THREADS": str(cores()), "OMP_WAIT_POLICY": "PASSIVE"},
            **{"MALLOC_MMAP_THRESHOLD_": kept, "MALLOC_TRIM_THRESHOLD_": kept},
        }
        command = [python, str(REPO / "benchmarks" / "anomalib_side.py"), part.name, str(folder)]
        with open(folder / "log.txt", "w") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                env=environment,
            )
        self.versions = self._answer()

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise EndedError((self.folder / "log.txt").read_text()[-2000:])
        return line.strip()

    def _tell(self, what: str) -> str:
        self.process.stdin.write(f"{what}\n")
        return self._answer()

    def run(self) -> Took:
        start = time.perf_counter()
        worked = float(self._tell("run"))
        return Took(time.perf_counter() - start, worked)

    def values(self) -> Arrays:
        self._tell("values")
        return load_file(self.folder / "found.safetensors")

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def compare(python: str, part: Part) -> str:
    """Let both sides take turns; return how much faster ours is, and what is said of the values."""
    with tempfile.TemporaryDirectory() as folder:
        theirs = Theirs(python, part, Path(folder))
        try:
            told = part.judge(theirs.values())
            part.ours(), theirs.run()  # warm up
            pairs = [(took(part.ours), theirs.run()) for _ in range(part.rounds)]
        finally:
            theirs.end()
    own, other = (statistics.median(one.passed for one in side) for side in zip(*pairs, strict=True))
    ratios = sorted(b.passed / a.passed for a, b in pairs)
    work = statistics.median(b.worked / a.worked for a, b in pairs)
    return (
        f"- {part.name}: {statistics.median(ratios):.2f} times as fast as {theirs.versions} ({ratios[0]:.2f} to "
        f"{ratios[-1]:.2f}; {own:.3f} s against {other:.3f} s), by work of the processor {work:.2f} times; {told}"
    )


def apart(one: np.ndarray, other: np.ndarray) -> str:
    """Return the largest difference, as a share of the largest value."""
    return f"{np.abs(one - other).max() / np.abs(other).max():.0e}"


def aupro(_: str) -> Iterator[Part]:
    """Maps of 84 images of 256x256, a quarter of them good, noisy and not sure where a defect ends."""
    chance = np.random.default_rng(0)
    truths = np.stack([picture("board", kind, 256, chance)[1] for kind in (None, *DEFECTS) for _ in range(21)])
    noise = chance.normal(size=truths.shape).astype(np.float32)
    maps = np.stack(
        [
            cv2.GaussianBlur(rough, (0, 0), 6) * 12 + cv2.GaussianBlur(truth.astype(np.float32), (0, 0), 5)
            for rough, truth in zip(noise, truths, strict=True)
        ]
    )

    def ours() -> float:
        return pixel_metrics(maps.astype(np.float16), truths).aupro

    def judge(theirs: Arrays) -> str:
        exact, rounded = theirs["aupro"]
        return (
            f"AUPRO {ours():.5f} against {exact:.5f}, of maps rounded to 16 bits {rounded:.5f} "
            "(ours with AUROC and average precision)"
        )

    yield Part("aupro", {"maps": maps, "truths": truths.astype(np.uint8)}, ours, judge)


def coreset(weights: str) -> Iterator[Part]:
    """The same vectors of 128 dimensions, the same first one."""
    import torch

    vectors = patches(25, (2, 3), 0, {"backbone": "resnet18", "weights": weights})
    projection = np.random.default_rng(0).standard_normal((vectors.shape[1], 128), np.float32) / np.float32(128**0.5)
    vectors = vectors @ projection
    share = 0.1
    count = int(len(vectors) * share)
    torch.manual_seed(0)
    first = int(torch.randint(len(vectors), (1,)))  # as the other side draws it

    def judge(theirs: Arrays) -> str:
        chosen = k_centre(vectors, count, first)
        alike = int((chosen != theirs["chosen"]).argmax()) if (chosen != theirs["chosen"]).any() else count
        common = len(set(chosen.tolist()) & set(theirs["chosen"].tolist()))
        return f"{count:,} of {len(vectors):,} vectors, the first {alike:,} in the same order, {common:,} in both"

    given = {"vectors": vectors, "share": np.array(share)}
    yield Part("coreset", given, lambda: k_centre(vectors, count, first), judge, 3)


def drawn(kinds: Sequence[str | None], side: int, seed: int) -> np.ndarray:
    """Return pictures of products, uint8 (n, side, side, 3)."""
    chance = np.random.default_rng(seed)
    return np.stack([picture("board", kind, side, chance)[0] for kind in kinds])


class Workshop:
    """A backbone, images, and stores of their maps, in a folder.

    Attributes:
        given: what the other side gets whatever the method.
    """

    def __init__(self, folder: Path, weights: str) -> None:
        import torch

        settings: dict[str, Any] = {**starter.BACKBONE, "uses": "", "layers": LAYERS, "grid": None}
        values = FeatureSet(**{**settings, "backbone": "resnet18", "weights": weights})
        choose_device("cpu")
        self.folder = folder
        self.backbone = Backbone(values, None).to(memory_format=torch.channels_last)
        self.about = {"grid": None, "maps": self.backbone.maps, "computed": values.model_dump()}
        kinds = (None, *DEFECTS)
        self.images = drawn([kinds[number % len(kinds)] for number in range(TESTED)], values.height, 1)
        for split in ("train", "test"):
            (folder / split).mkdir()
        self.write("train", drawn([None] * TRAINING, values.height, 2))
        self.write("test", self.images)
        write_manifests(folder)
        self.store = open_store(folder)
        clip = self.store.clips("test")[0]
        maps = clip.maps(clip.vectors(), LAYERS)
        state = {f"backbone.{key}": one.numpy() for key, one in self.backbone.net.state_dict().items()}
        self.given = {
            **state,
            **{f"maps.layer{layer}": one.transpose(0, 3, 1, 2) for layer, one in zip(LAYERS, maps, strict=True)},
            **{"images": self.images.transpose(0, 3, 1, 2), "batch": np.array(BATCH)},
            **{"mean": self.backbone.mean.numpy().ravel() / 255, "std": self.backbone.std.numpy().ravel() / 255},
        }

    def write(self, split: str, images: np.ndarray) -> Path:
        """Write the maps of images as stage `features` does."""
        import torch

        path = self.folder / split / "board.parquet"
        with torch.inference_mode():
            parts = (torch.from_numpy(images[start : start + BATCH]) for start in range(0, len(images), BATCH))
            chunks = (self.backbone(part.permute(0, 3, 1, 2)).half().numpy() for part in parts)
            features.write_clip(path, self.backbone.dim, chunks, None, **self.about)
        return path


def scored(method: Method[Any], clip: FeatureClip) -> tuple[np.ndarray, np.ndarray]:
    """Return maps (n, h, w) and scores (n,)."""
    parts = list(method.score(clip))
    maps, scores = ([next(iter(getattr(one, name).values())) for one in parts] for name in ("maps", "components"))
    return np.concatenate(maps), np.concatenate(scores)


def method_of(name: str, **train: object) -> Method[Any]:
    """Return a method with the defaults of params.yaml."""
    values = YAML(typ="safe").load(REPO / "params.yaml")["methods"][name]
    cls = base.get(name)
    return cls(cls.Train(**{**values["train"], **train}), cls.Score(**{**values["score"], "device": "cpu"}))


def patchcore(shop: Workshop) -> tuple[Method[Any], Arrays]:
    method = method_of("patchcore", coreset=1.0)
    method.fit(shop.store, Fit(0, shop.folder))
    return method, {"memory": method.bank, "neighbours": np.array(method.score_params.neighbours)}


def padim(shop: Workshop) -> tuple[Method[Any], Arrays]:
    method = method_of("padim")
    method.fit(shop.store, Fit(0, shop.folder))
    inverse = (method.whiten.transpose(0, 2, 1).astype(np.float64) @ method.whiten).astype(np.float32)
    return method, {"chosen": method.chosen, "centre": method.centre, "inverse": inverse}


def reverse_distillation(shop: Workshop) -> tuple[Method[Any], Arrays]:
    """A student that was not trained, but has seen how its maps are distributed."""
    import torch

    method = method_of("reverse_distillation")
    train = method.train
    torch.manual_seed(0)
    channels = [one[2] for one in shop.backbone.maps]
    method.network = ReverseStudent(channels, train.block, train.width, train.depths, train.depth)
    clip = shop.store.clips("train")[0]
    maps = clip.maps(clip.vectors(), LAYERS)
    with torch.inference_mode():
        method.network.train()([torch.from_numpy(one.copy()).permute(0, 3, 1, 2) for one in maps])
    method.network.eval()
    # By number, since the order in which a network has them is what they are recognised by.
    given = {
        f"student.{name}.{number:03d}": one.numpy()
        for name, module in method.network.named_children()
        for number, one in enumerate(module.state_dict().values())
    }
    fold_norms(method.network)  # as a model that is loaded
    return method, given


METHODS = {"patchcore": patchcore, "padim": padim, "reverse_distillation": reverse_distillation}


def inference(name: str, weights: str) -> Iterator[Part]:
    """Yield what a method does from images and from maps on."""
    with tempfile.TemporaryDirectory() as folder:
        shop = Workshop(Path(folder), weights)
        method, given = METHODS[name](shop)
        clip = shop.store.clips("test")[0]

        def whole() -> None:
            scored(method, FeatureClip(shop.write("test", shop.images)))

        def judge(theirs: Arrays) -> str:
            full, _ = scored(method, clip)
            height, width = theirs["full"].shape[1:]
            full = np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in full])
            with unblurred(method):
                maps, scores = scored(method, clip)
            return (
                f"maps within {apart(maps, theirs['maps'])}, scores within {apart(scores, theirs['scores'])} of the "
                f"largest; blurred, each as it is defined, within {apart(full, theirs['full'])}"
            )

        both = {**shop.given, **given}
        yield Part(f"{name}_from_images", both, whole, judge)
        yield Part(f"{name}_from_maps", both, lambda: scored(method, clip), judge)


@contextmanager
def unblurred(method: Method[Any]) -> Iterator[None]:
    blurred = method.score_params
    method.score_params = blurred.model_copy(update={"sigma": 0.0})
    yield
    method.score_params = blurred


PARTS: dict[str, Callable[[str], Iterator[Part]]] = {
    **{"aupro": aupro, "coreset": coreset},
    **{name: partial(inference, name) for name in METHODS},
}


def often(python: str, part: Part) -> str:
    """Compare both sides, anew where the other one ends: the loop of its coreset now and then runs out of memory."""
    for _ in range(ATTEMPTS):
        try:
            return compare(python, part)
        except EndedError as error:
            said = error
    return f"- {part.name}: the other side ended {ATTEMPTS} times:\n{said}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weights", default="random", help="a .safetensors file of timm's resnet18")
    parser.add_argument("python", help="python of the environment that has anomalib")
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    wanted = parser.parse_args()
    for name in wanted.parts:
        if name not in PARTS:
            parser.error(f"there is no part '{name}'; known are: {', '.join(PARTS)}")
    choose_device("cpu")
    print(f"{cores()} threads, {BATCH} images at once")
    for name in wanted.parts or PARTS:
        for part in PARTS[name](wanted.weights):
            print(often(wanted.python, part), flush=True)


if __name__ == "__main__":
    main()
