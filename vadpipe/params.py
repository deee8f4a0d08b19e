"""Typed `params.yaml`: the one place that reads it. Unknown keys are refused, the nearest known one named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, Event, ScalarEvent

from vadpipe import paths
from vadpipe.errors import UserError, did_you_mean
from vadpipe.files import read_text, there

# DVC drops a stage whose key is a number or a bool, and a dot breaks its parameter paths.
KEY = re.compile(r"[a-z][a-z0-9_]*")

Device = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["fp32", "bf16", "fp16"]


# Above it nothing here is a number that anybody means: an epoch, a size, a seed, a rate.
LARGEST = 2**31 - 1
# Characters and values of a params.yaml with some thousand runs, and levels of its values.
_LONGEST, _MOST_VALUES, _DEEPEST = 1_000_000, 200_000, 50
_SHOWN = 200  # characters of a value in a message


def _different(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError("expected different seeds, none negative")
    return seeds


def _rising(bounds: list[float]) -> list[float]:
    if bounds[0] >= bounds[1]:
        raise ValueError("expected the smaller bound first")
    return bounds


def _ascending(bounds: list[float]) -> list[float]:
    if bounds[0] > bounds[1]:
        raise ValueError("expected the smaller bound first")
    return bounds


# A model is fitted with each of them.
Seeds = Annotated[list[int], Field(min_length=1), AfterValidator(_different)]
# Smallest and largest factor.
Factors = Annotated[
    list[Annotated[float, Field(gt=0, le=100)]], Field(min_length=2, max_length=2), AfterValidator(_ascending)
]
# Smallest and largest share of a frame.
Shares = Annotated[
    list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=2, max_length=2), AfterValidator(_rising)
]


class Section(BaseModel):
    """A group of parameters: every key known, every type exact, every number finite and of a size that can be meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _no_giants(self) -> Self:
        for name in type(self).model_fields:
            values = getattr(self, name)
            for value in values if isinstance(values, list) else [values]:
                if isinstance(value, int | float) and abs(value) > LARGEST:
                    raise ValueError(f"{name}: {value} is larger than any number that makes sense here")
        return self


class Ingest(Section):
    """How a data set under `data/raw/NAME` becomes clips."""

    reader: str
    objects: list[str] | None
    labels: str | None
    fps: float | None = Field(gt=0, le=10_000)
    every: int = Field(ge=1)
    rate: float | None = Field(gt=0, le=10_000)
    start: float = Field(ge=0)
    end: float | None = Field(gt=0)
    side: int | None = Field(ge=2, le=16_384)
    quality: int | None = Field(ge=1, le=100)

    @model_validator(mode="after")
    def _one_way_to_take_frames(self) -> Self:
        if self.rate is not None and self.every > 1:
            raise ValueError("give `rate` or `every`, not both")
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"`end` ({self.end:g} s) is not behind `start` ({self.start:g} s)")
        return self


class Flow(Section):
    """How optical flow is computed for a data set."""

    algorithm: Literal["dis", "farneback"]
    preset: Literal["ultrafast", "fast", "medium"]
    scale: float = Field(gt=0, le=1)


class Inpaint(Section):
    """How the annotated boxes of training images are filled."""

    method: Literal["telea", "navier_stokes"]
    radius: float = Field(gt=0, le=100)
    margin: int = Field(ge=0, le=10_000)


class PoolMask(Section):
    """How sure a pool must be to be kept, and by how much it is made smaller."""

    confidence: float = Field(ge=0, le=1)
    shrink: float = Field(ge=0, lt=0.5)


class Composite(Section):
    """Which virtual anomalies are pasted into training clips, and how."""

    source: str
    seed: int = Field(ge=0)
    share: float = Field(gt=0, le=1)
    objects: int = Field(ge=1, le=100)
    place: Literal["source", "ground"]
    scale: Literal["source", "person"]
    sizes: Factors
    area: Shares
    grey: bool
    edge: float = Field(ge=0, le=100)


class BackboneParams(Section):
    """A timm backbone, or `pixels`, its weights, and what it sees of a frame, at which size."""

    backbone: str
    weights: str
    height: int = Field(ge=16, le=8192)
    width: int = Field(ge=16, le=8192)
    preprocessing: Literal["frame", "weights"]
    layers: list[Annotated[int, Field(ge=0, le=1000)]]
    pool: Literal["avg", "max"]


class FeatureSet(BackboneParams):
    """One vector a frame, one a cell of a grid, or, without a grid, the maps of layers, from a timm backbone."""

    uses: str
    grid: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=2, max_length=2)] | None
    batch: int = Field(ge=1)
    precision: Precision
    device: Device

    @model_validator(mode="after")
    def _grid_needs_a_layer(self) -> Self:
        if not self.layers and self.grid != [1, 1]:
            raise ValueError("a grid needs `layers`, since the vector before the class head has no place")
        return self

    @model_validator(mode="after")
    def _places_need_the_frame(self) -> Self:
        if self.preprocessing == "weights" and self.grid != [1, 1]:
            raise ValueError(
                "`preprocessing: weights` cuts off the edge of the frame, whose places would get no score; with cells "
                "or maps give `preprocessing: frame`"
            )
        return self


class MethodDefaults(Section):
    """Parameters of a method for all runs; checked by the method's own `Train` and `Score`."""

    train: dict[str, Any]
    score: dict[str, Any]


class Evaluate(Section):
    """How scores become figures; nothing here is chosen on test labels."""

    weights: dict[str, float]
    filter: list[Annotated[int, Field(ge=1, le=999)]] = Field(min_length=3, max_length=3)
    pool: Literal["max", "mean"]
    smoothing_s: float = Field(gt=0, le=3600)
    bootstrap: int = Field(ge=0, le=1_000_000)
    top_frames: int = Field(ge=1, le=1000)
    gallery: bool
    box_levels: list[Annotated[float, Field(gt=0, lt=1)]] = Field(min_length=1)
    box_area: Shares
    box_aspect: float = Field(ge=1)
    box_overlap: float = Field(ge=0, lt=1)
    box_false_alarms: float = Field(gt=0)
    chosen: list[str]


class Run(Section):
    """One row of the results table; the three dicts override the defaults of the method and of `evaluate`."""

    dataset: str
    method: str
    uses: str
    train: dict[str, Any]
    score: dict[str, Any]
    evaluate: dict[str, Any]

    @property
    def store_kind(self) -> str | None:
        """Return the kind of store that the path in `uses` stands for, None for a path of no known kind."""
        return paths.STORE_KINDS.get(Path(self.uses).parent.as_posix())


class Params(Section):
    """The whole of params.yaml."""

    generate: dict[str, dict[str, Any]]
    ingest: dict[str, Ingest]
    archived: dict[str, Ingest]
    inpaint: dict[str, Inpaint]
    pool_mask: dict[str, PoolMask]
    composite: dict[str, Composite]
    flow: dict[str, Flow]
    features: dict[str, FeatureSet]
    methods: dict[str, MethodDefaults]
    evaluate: Evaluate
    runs: dict[str, Run]

    @property
    def datasets(self) -> dict[str, Ingest]:
        """Return all data sets: those that stage `ingest` writes, and those whose raw data are gone."""
        return {**self.ingest, **self.archived}

    def run(self, name: str) -> Run:
        """Return a run with the defaults of its method and of `evaluate` merged in.

        Raises:
            UserError: params.yaml has no such run.
        """
        run = item(self.runs, "runs", name)
        defaults = self.methods[run.method]
        return run.model_copy(
            update={
                "train": {**defaults.train, **run.train},
                "score": {**defaults.score, **run.score},
                "evaluate": {**self.evaluate.model_dump(), **run.evaluate},
            }
        )


SectionT = TypeVar("SectionT", bound=BaseModel)
ItemT = TypeVar("ItemT")


def item(section: Mapping[str, ItemT], name: str, key: str) -> ItemT:
    """Return an item of a section, or raise a `UserError` that names the nearest key."""
    if key not in section:
        raise UserError(f"params.yaml: {name} has no item '{key}'{did_you_mean(key, section)}")
    return section[key]


def parse(model: type[SectionT], values: object, where: str) -> SectionT:
    """Check values against a model.

    Args:
        where: how to name the place in messages, such as `params.yaml: flow.campus`.

    Raises:
        UserError: an unknown, missing or wrongly typed key, each named.
    """
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected keys and values, got {_shown(values)}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = []
        for detail in error.errors(include_url=False):
            key = ".".join(str(part) for part in detail["loc"])
            if detail["type"] == "extra_forbidden":
                problems.append(f"{where}: unknown key '{key}'{did_you_mean(key, model.model_fields)}")
            elif detail["type"] == "missing":
                problems.append(f"{where}: the key '{key}' is missing")
            else:
                place = f"{where}.{key}" if key else where
                problems.append(f"{place}: {_lower(detail['msg'])}, got {_shown(detail['input'])}")
        raise UserError("\n       ".join(problems)) from None


def load(path: Path = paths.PARAMS) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing, or as `check`.
    """
    return check(_text(path), path)


def check(text: str, path: Path) -> Params:
    """Check the text of a params.yaml.

    Args:
        path: how to name it in messages.

    Raises:
        UserError: it is no YAML, a key is unknown, missing or of the wrong type, a name is no identifier, or an item
            names a data set, method or store that does not exist.
    """
    tree = _tree(text, path)
    sections = Params.model_fields
    for name in tree:
        if name not in sections:
            raise UserError(f"{path}: unknown section '{name}'{did_you_mean(str(name), sections)}")
    for name in sections:
        if name not in tree:
            raise UserError(f"{path}: the section '{name}' is missing; write `{name}: {{}}` if it is empty")
    models: dict[str, type[BaseModel] | None] = {
        "generate": None,
        "ingest": Ingest,
        "archived": Ingest,
        "inpaint": Inpaint,
        "pool_mask": PoolMask,
        "composite": Composite,
        "flow": Flow,
        "features": FeatureSet,
        "methods": MethodDefaults,
        "runs": Run,
    }
    checked: dict[str, Any] = {"evaluate": parse(Evaluate, tree["evaluate"], f"{path}: evaluate")}
    for name, model in models.items():
        checked[name] = _items(tree[name], model, f"{path}: {name}")
    params = Params(**checked)
    _check_references(params, path)
    return params


def read(path: Path) -> dict[str, Any]:
    """Return the tree of a params.yaml, unchecked.

    Raises:
        UserError: the file is missing or no YAML, or stands for more than anything that is meant.
    """
    return _tree(_text(path), path)


def _text(path: Path) -> str:
    if not there(path):
        raise UserError(f"{path} is not here; run the command in the root of the repository")
    return read_text(path)


def _tree(text: str, path: Path) -> dict[str, Any]:
    if len(text) > _LONGEST:
        raise UserError(
            f"{path} has {len(text):,} characters, more than {_LONGEST:,}; remove what does not belong there"
        )
    yaml = YAML(typ="safe")
    try:
        # Before anything is built: a few lines can stand for more than fits into memory.
        _check_extent(yaml.parse(text), path)
        tree = yaml.load(text)
    except YAMLError as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        # What looks like a date or a number and is none.
        raise UserError(f"{path} holds a value that cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected sections such as `runs:`, got {_shown(tree)}")
    return tree


def _check_extent(events: Iterator[Event], path: Path) -> None:
    """Refuse a file that is nested deeply, or whose aliases stand for very many values."""
    anchors: dict[str, int] = {}
    counts, names = [0], [""]  # of the values that are open
    for event in events:
        if isinstance(event, CollectionStartEvent):
            counts.append(1)
            names.append(event.anchor)
        elif isinstance(event, CollectionEndEvent):
            count = anchors[names.pop()] = counts.pop()
            counts[-1] += count
        elif isinstance(event, ScalarEvent):
            anchors[event.anchor] = 1
            counts[-1] += 1
        elif isinstance(event, AliasEvent):
            # What is not closed yet holds itself.
            counts[-1] += anchors.get(event.anchor, _MOST_VALUES + 1)
        if len(counts) > _DEEPEST:
            raise UserError(
                f"{path}, line {event.start_mark.line + 1} is nested too deeply to be a params.yaml; mend it"
            )
        if counts[-1] > _MOST_VALUES:
            raise UserError(f"{path}: its aliases (`*name`) stand for {counts[-1]:,} values; write out what they mean")


def _items(section: object, model: type[BaseModel] | None, where: str) -> dict[str, Any]:
    if not isinstance(section, dict):
        raise UserError(f"{where}: expected a mapping of items, got {_shown(section)}; write `{{}}` if it is empty")
    for key in section:
        check_key(key, where)
    if model is None:
        return section
    return {key: parse(model, values, f"{where}.{key}") for key, values in section.items()}


def check_key(key: object, where: str) -> None:
    """Refuse a name that DVC would drop or misread.

    Raises:
        UserError: the key is no lower-case identifier.
    """
    if not isinstance(key, str) or not KEY.fullmatch(key):
        raise UserError(
            f"{where}: the key {_shown(key)} is no name; use lower-case letters, digits and _, starting with a letter "
            "(DVC drops or misreads other keys)"
        )


def _check_references(params: Params, path: Path) -> None:
    for name in params.archived:
        if name in params.ingest:
            raise UserError(f"{path}: archived.{name} is an item of `ingest` too; keep one of them")
    for section in ("inpaint", "composite", "flow"):
        for name in getattr(params, section):
            _known(name, params.datasets, f"{path}: {section}.{name}: unknown data set")
    for name in params.pool_mask:
        _known(name, params.inpaint, f"{path}: pool_mask.{name}: no item of `inpaint`")
    stores = _stores(params)
    for name, features in params.features.items():
        _known(features.uses, stores, f"{path}: features.{name}.uses: no stage writes")
    stores |= {paths.features(name).as_posix(): stores[features.uses] for name, features in params.features.items()}
    for name, run in params.runs.items():
        where = f"{path}: runs.{name}"
        if paths.plots(name) == paths.SUMMARY_PLOTS:
            raise UserError(f"{where}: plots of a run of this name would lie where those of all runs do; rename it")
        _known(run.dataset, params.datasets, f"{where}.dataset: unknown data set")
        _known(run.method, params.methods, f"{where}.method: unknown method")
        _known(run.uses, stores, f"{where}.uses: no stage writes")
        if stores[run.uses] != run.dataset:
            raise UserError(
                f"{where}.uses: '{run.uses}' is prepared from the data set '{stores[run.uses]}', "
                f"but the run is on '{run.dataset}'; give both the same data set"
            )
        evaluate = parse(Evaluate, {**params.evaluate.model_dump(), **run.evaluate}, f"{where}.evaluate")
        _check_gallery(evaluate, run, params.features, where)


def _check_gallery(evaluate: Evaluate, run: Run, features: Mapping[str, FeatureSet], where: str) -> None:
    vectors = {paths.features(name).as_posix() for name, values in features.items() if values.grid == [1, 1]}
    if evaluate.gallery and run.uses not in vectors:
        raise UserError(
            f"{where}.evaluate.gallery: a gallery shows features of one vector a frame, and '{run.uses}' is something "
            "else; set it to false"
        )


def _stores(params: Params) -> dict[str, str]:
    """Return the stores that stages write and their data sets; feature tables, which are made of them, left out."""
    written: dict[Callable[[str], Path], Mapping[str, object]] = {
        paths.clips: params.datasets,
        paths.inpainted: params.inpaint,
        paths.pools: params.pool_mask,
        paths.composites: params.composite,
        paths.flow: params.flow,
    }
    return {path(name).as_posix(): name for path, items in written.items() for name in items}


def _known(name: str, known: Mapping[str, object], problem: str) -> None:
    if name not in known:
        raise UserError(f"{problem} '{name}'{did_you_mean(name, known)}")


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _shown(value: object) -> str:
    """Return a value for a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no number of more than some thousand digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
