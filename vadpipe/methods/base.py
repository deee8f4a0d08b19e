"""What a method is, and how one is found by name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

import vadpipe
import vadpipe.methods
from vadpipe.errors import UserError, did_you_mean, explain
from vadpipe.params import Device, Precision, Run, Section, Seeds, parse
from vadpipe.store import SERVED_BY, AnyClip, Store
from vadpipe.store.scores import Scores
from vadpipe.store.seal import check_seal

__all__ = [
    "DeviceParams",
    "EpochParams",
    "Fit",
    "FitParams",
    "Method",
    "NetworkParams",
    "Preset",
    "Scores",
    "Section",
    "categories",
    "get",
    "load",
    "names",
    "seeds",
    "training_clips",
]

ClipT = TypeVar("ClipT", bound=AnyClip)


class NoParams(Section):
    """The parameters of a method that has none."""


class FitParams(Section):
    """The training parameters of every method.

    Attributes:
        categories: patterns of the categories of the data set that want a model; all if nothing is said.
    """

    categories: list[str] = Field(default=["*"], min_length=1)


class NetworkParams(FitParams):
    """The training parameters of every method that trains a network."""

    seeds: Seeds
    batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    device: Device
    precision: Precision


class EpochParams(NetworkParams):
    """Those of a network that is trained for a number of passes over its data."""

    epochs: int = Field(ge=1)


class DeviceParams(Section):
    """The scoring parameters of a network that leaves nothing else open."""

    device: Device


@dataclass(frozen=True)
class Fit:
    """What a training needs beside data.

    Attributes:
        seed: the seed of this model.
        checkpoints: folder for the state of an interrupted training; gone when training is done.
        start: folder of a saved model whose training is to go on; None = begin anew.
    """

    seed: int
    checkpoints: Path
    start: Path | None = None


@dataclass(frozen=True)
class Preset:
    """What a run overrides to be as somebody else has it.

    Attributes:
        told: what it is, for people.
        train: of the parameters of training.
        score: of scoring.
        evaluate: of evaluation.
    """

    told: str
    train: Mapping[str, Any] = field(default_factory=dict)
    score: Mapping[str, Any] = field(default_factory=dict)
    evaluate: Mapping[str, Any] = field(default_factory=dict)


class Method(ABC, Generic[ClipT]):
    """A method: fitted on the training clips of one store, it scores clips frame by frame.

    A method is one file with one subclass. `Train` and `Score` are the models of its parameters; a method
    whose training depends on chance has `seeds: list[int]` in `Train` and is fitted once a seed; one that can
    be fitted on some of the training clips has `clips: list[str]` there, patterns of their names.

    Attributes:
        needs: the kind of store that it reads.
        prefers: a kind of store that serves it better than the one it needs, where there is one.
        presets: by name, the runs that others describe.
        quick: whether it is trained within minutes on two cores; if not, a new data set does not start with it.
        temporal: whether the order of frames matters to it; then it refuses unordered images.
        features: of a feature store it wants one vector a frame, one a cell of it, or the maps of layers.
    """

    needs: ClassVar[str]
    temporal: ClassVar[bool]
    features: ClassVar[Literal["vectors", "cells", "maps"]] = "vectors"
    quick: ClassVar[bool] = True
    prefers: ClassVar[str | None] = None
    presets: ClassVar[Mapping[str, Preset]] = {}
    Train: ClassVar[type[FitParams]] = FitParams
    Score: ClassVar[type[BaseModel]] = NoParams

    # Of the network that was trained, an epoch each; a method without one has none.
    losses: Sequence[dict[str, float]] = ()

    def __init__(self, train: Any, score: Any) -> None:
        self.train = train
        self.score_params = score

    def fit(self, store: Store[ClipT], fit: Fit) -> None:
        """Learn from `training_clips(self, store)`; a method without this learns nothing."""

    def memory(self) -> int:
        """Return how many bytes the network of these parameters takes at least, as far as they alone tell."""
        return 0

    @property
    def record(self) -> dict[str, Any]:
        """What of the fitted model belongs beside its scores, such as its number of parameters; plain values."""
        return {}

    def save(self, folder: Path) -> None:
        """Save what was learned into an empty folder: safetensors and JSON, no pickle."""

    def load(self, folder: Path) -> None:
        """Load what `save` wrote."""

    @abstractmethod
    def score(self, clip: ClipT) -> Iterator[Scores]:
        """Yield the scores of all frames of a clip, in order, in chunks; larger is more abnormal.

        Raw: never clamped or scaled by anything from the test set, and memory does not grow with the clip.
        """


def names() -> list[str]:
    """Return the names of all methods."""
    return sorted(module.name for module in pkgutil.iter_modules(vadpipe.methods.__path__) if module.name != "base")


def get(name: str) -> type[Method[Any]]:
    """Return the method class in `vadpipe/methods/NAME.py`.

    Raises:
        UserError: there is no such method.
    """
    if name not in names():
        raise UserError(f"there is no method '{name}'{did_you_mean(name, names())}")
    module = importlib.import_module(f"vadpipe.methods.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__file__} must hold one subclass of Method, found {len(found)}")
    return found[0]


def create(run: Run, name: str) -> Method[Any]:
    """Return the method of a run with its checked parameters.

    Raises:
        UserError: there is no such method, a parameter is wrong, or `uses` is of another kind than the
            method needs.
    """
    cls = get(run.method)
    train = parse(cls.Train, run.train, f"params.yaml: methods.{run.method}.train with runs.{name}.train")
    score = parse(cls.Score, run.score, f"params.yaml: methods.{run.method}.score with runs.{name}.score")
    if run.store_kind not in SERVED_BY[cls.needs]:
        raise UserError(
            f"params.yaml: runs.{name}.uses: '{run.uses}' is of kind '{run.store_kind}', but {run.method} needs "
            f"'{cls.needs}'; give a path under data/{cls.needs}"
        )
    return cls(train, score)


def seeds(method: Method[Any]) -> list[int]:
    """Return the seeds to fit a method with; [0] where chance plays no part."""
    return list(getattr(method.train, "seeds", [0]))


def categories(method: Method[Any], store: Store[Any], run: str) -> list[str | None]:
    """Return the categories that want a model, sorted; [None] where the data set has none.

    Raises:
        UserError: a pattern of `train.categories` names none.
    """
    there = store.categories()
    for pattern in method.train.categories:
        if not any(fnmatchcase(category, pattern) for category in there) and pattern != "*":
            has = f"it has: {', '.join(there)}" if there else "it has none"
            raise UserError(
                f"params.yaml: runs.{run}.train.categories: {store.path} has no category '{pattern}'"
                f"{did_you_mean(pattern, there)}; {has}"
            )
    if not there:
        return [None]
    return [one for one in there if any(fnmatchcase(one, pattern) for pattern in method.train.categories)]


def load(method: Method[Any], model: Path, run: str) -> None:
    """Load the model of a seed that `save` wrote and stage `train` sealed.

    Raises:
        UserError: it is not there, not whole, or was saved by other code than this.
    """
    if not model.is_dir():
        raise UserError(f"{model} is not here; run `dvc repro train@{run}` or `dvc pull`")
    again = f"`dvc repro -f train@{run}`"
    check_seal(model, f"run `dvc checkout {model.parent}` or {again}")
    try:
        method.load(model)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        if explain(error) is not None:
            raise
        # Every byte is as it was written, so what was written is not what is read here.
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"{model} was saved by other code than is here now ({said}); run {again}") from error


def training_clips(method: Method[ClipT], store: Store[ClipT]) -> list[ClipT]:
    """Return the training clips that a method is fitted on: all, or those that a pattern of `train.clips` names.

    Raises:
        UserError: a pattern names no clip.
    """
    clips = store.clips("train")
    patterns = getattr(method.train, "clips", ["*"])
    for pattern in patterns:
        if not any(fnmatchcase(clip.name, pattern) for clip in clips):
            there = ", ".join(clip.name for clip in clips)
            raise UserError(f"params.yaml: train.clips: {store.path} has no training clip '{pattern}'; it has: {there}")
    return [clip for clip in clips if any(fnmatchcase(clip.name, pattern) for pattern in patterns)]


def source_files(name: str) -> list[Path]:
    """Return the source files that decide what a training of this method gives."""
    package = Path(vadpipe.__file__).parent
    # Not the folders themselves: what Python compiles into them differs from one call to the next.
    shared = [file for room in ("nn", "training", "store") for file in sorted((package / room).rglob("*.py"))]
    return [Path(inspect.getfile(get(name))), *shared]
