"""What a new data set starts with in params.yaml: stores, features, and a run of every method that can work on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vadpipe import paths
from vadpipe.methods import base
from vadpipe.params import MethodDefaults, Params
from vadpipe.prepare.inspect import Report

Items = dict[str, dict[str, Any]]

# The backbone whose weights are installed with the program.
BACKBONE: dict[str, Any] = {
    "backbone": "tf_efficientnet_lite0",
    "weights": "auto",
    "height": 224,
    "width": 224,
    "preprocessing": "frame",
    "layers": [],
    "pool": "avg",
    "grid": [1, 1],
    "batch": 8,
    "precision": "fp32",
    "device": "auto",
}
# Stages of stride 16 and 32, whose cells see as much as an object is large; chosen in docs/results.md.
CELLS = {"height": 480, "width": 640, "layers": [3, 4], "grid": [30, 40], "batch": 4}
# Strides 4 to 32: what the methods on feature maps were published with.
MAPS = {"layers": [1, 2, 3, 4], "grid": None}
# Longest side of flow, grid points: that of UCSD Ped2, where half of it costs coherent_motion much (docs/results.md).
_FLOW_SIDE = 360
# How the runs of a reader's data sets are evaluated: a defect may cover all of a product, no walker fills a frame.
_EVALUATE: dict[str, dict[str, Any]] = {"mvtec": {"box_area": [0.0004, 1.0]}}
# Seeds of a start that is to be quick; more are worth it once a method is chosen.
_SEEDS = 3


def items(name: str, ingest: dict[str, Any], found: Report, methods: Mapping[str, MethodDefaults]) -> dict[str, Items]:
    """Return the items of a new data set, by section."""
    if found.ordered:
        return _video(name, ingest, found, methods)
    return _pools(name, ingest, methods) if ingest["reader"] == "pool" else _images(name, ingest, methods)


def _video(name: str, ingest: dict[str, Any], found: Report, methods: Mapping[str, MethodDefaults]) -> dict[str, Items]:
    features = f"{name}_lite0"
    # Between the frames of clips of one there is no motion.
    moves = found.shortest > 1
    runs: Items = {}
    for method, defaults in methods.items():
        cls = base.get(method)
        if cls.needs == "pools" or cls.features != "vectors" or not cls.quick:
            continue
        if not moves and (cls.temporal or cls.needs == "flow"):
            continue
        seeds = defaults.train.get("seeds", [])[:_SEEDS]
        runs[f"{name}_{method}"] = run(name, method, uses(cls.needs, name, features), preset=_few(seeds))
    flow = {"algorithm": "dis", "preset": "medium", "scale": round(min(1.0, _FLOW_SIDE / found.longest_side), 3)}
    return {
        "ingest": {name: ingest},
        "flow": {name: flow} if moves else {},
        "features": {features: {"uses": paths.clips(name).as_posix(), **BACKBONE}},
        "runs": runs,
    }


def _few(seeds: list[int]) -> base.Preset:
    return base.Preset("for a quick start", train={"seeds": seeds} if seeds else {})


def _images(name: str, ingest: dict[str, Any], methods: Mapping[str, MethodDefaults]) -> dict[str, Items]:
    """Return the items of a data set of loose images; methods that need frames in time or a pool are left out."""
    # Of ten thousands of small pictures of whole things no place is asked for, and maps would take days.
    kinds = {"vectors"} if ingest["reader"] == "one_class" else {"vectors", "cells", "maps"}
    store = paths.clips(name).as_posix()
    found = _of_images(name, store, {"clips", "features"}, kinds, methods, ingest["reader"])
    return {"ingest": {name: ingest}, **found}


def _pools(name: str, ingest: dict[str, Any], methods: Mapping[str, MethodDefaults]) -> dict[str, Items]:
    """Return the items of a data set of images of pools; methods that need frames in time are left out."""
    return {
        "ingest": {name: ingest},
        "inpaint": {name: {"method": "telea", "radius": 5.0, "margin": 4}},
        "pool_mask": {name: {"confidence": 0.3, "shrink": 0.0}},
        # Methods on maps do not know of regions, and would look beside the pool.
        **_of_images(name, paths.pools(name).as_posix(), {"clips", "pools", "features"}, {"vectors", "cells"}, methods),
    }


def _of_images(
    name: str, store: str, needs: set[str], kinds: set[str], methods: Mapping[str, MethodDefaults], reader: str = ""
) -> dict[str, Items]:
    """Return the features of a store of loose images, and a run of each method that wants one of these.

    Args:
        needs: kinds of stores that there are.
        kinds: of features.
    """
    sets = {"vectors": BACKBONE, "cells": {**BACKBONE, **CELLS}, "maps": {**BACKBONE, **MAPS}}
    names = {kind: f"{name}_lite0" + ("" if kind == "vectors" else f"_{kind}") for kind in sets}
    features: Items = {}
    runs: Items = {}
    for method in methods:
        cls = base.get(method)
        if not cls.quick or cls.temporal or cls.needs not in needs or cls.features not in kinds:
            continue
        if cls.needs == "features":
            features[names[cls.features]] = {"uses": store, **sets[cls.features]}
        table = paths.features(names[cls.features]).as_posix()
        runs[f"{name}_{method}"] = run(name, method, table if cls.needs == "features" else store, reader)
    return {"features": features, "runs": runs}


def run(dataset: str, method: str, store: str, reader: str = "", preset: base.Preset | None = None) -> dict[str, Any]:
    """Return a run with all defaults but those of a preset, and of the data set's reader."""
    overrides = preset or base.Preset("")
    return {
        "dataset": dataset,
        "method": method,
        "uses": store,
        "train": dict(overrides.train),
        "score": dict(overrides.score),
        "evaluate": {**_EVALUATE.get(reader, {}), **overrides.evaluate},
    }


def prepared(params: Params, dataset: str) -> set[str]:
    """Return the kinds of prepared images that there are of a data set."""
    sections: dict[str, Mapping[str, object]] = {
        "inpainted": params.inpaint,
        "pools": params.pool_mask,
        "composites": params.composite,
    }
    return {kind for kind, items in sections.items() if dataset in items}


def uses(kind: str, dataset: str, features: str) -> str:
    """Return the store of a kind that belongs to a data set."""
    places = {place.__name__: place for place in paths.OF_DATASETS}
    return (paths.features(features) if kind == "features" else places[kind](dataset)).as_posix()
