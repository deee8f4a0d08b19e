"""What a new data set starts with in params.yaml: its stores, its features, and a run of every method that fits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vadpipe import paths
from vadpipe.methods import base

Items = dict[str, dict[str, Any]]

# The backbone whose weights are installed with the program.
_BACKBONE: dict[str, Any] = {
    "backbone": "tf_efficientnet_lite0",
    "weights": "auto",
    "height": 224,
    "width": 224,
    "layers": [],
    "pool": "avg",
    "grid": [1, 1],
    "batch": 8,
    "precision": "fp32",
    "device": "auto",
}
# Stages of stride 16 and 32, whose cells see as much as an object is large; chosen in docs/results.md.
_MAP = {"height": 480, "width": 640, "layers": [3, 4], "grid": [30, 40], "batch": 4}


def video(name: str, ingest: dict[str, Any], methods: Iterable[str]) -> dict[str, Items]:
    """Return the items of a data set of video clips, by section."""
    features = f"{name}_lite0"
    return {
        "ingest": {name: ingest},
        "flow": {name: {"algorithm": "dis", "preset": "medium", "scale": 1.0}},
        "features": {features: {"uses": paths.clips(name).as_posix(), **_BACKBONE}},
        "runs": {
            f"{name}_{method}": run(name, method, uses(base.get(method).needs, name, features))
            for method in methods
            if base.get(method).needs != "pools" and not base.get(method).cells
        },
    }


def pools(name: str, ingest: dict[str, Any], methods: Iterable[str]) -> dict[str, Items]:
    """Return the items of a data set of images of pools, by section; methods that need frames in time are left out."""
    region = paths.pools(name).as_posix()
    features, cells = f"{name}_lite0", f"{name}_lite0_cells"
    runs: Items = {}
    for method in methods:
        cls = base.get(method)
        if not cls.temporal and cls.needs != "flow":
            table = paths.features(cells if cls.cells else features).as_posix()
            runs[f"{name}_{method}"] = run(name, method, table if cls.needs == "features" else region)
    return {
        "ingest": {name: ingest},
        "inpaint": {name: {"method": "telea", "radius": 5.0, "margin": 4}},
        "pool_mask": {name: {"confidence": 0.3, "shrink": 0.0}},
        "features": {features: {"uses": region, **_BACKBONE}, cells: {"uses": region, **_BACKBONE, **_MAP}},
        "runs": runs,
    }


def run(dataset: str, method: str, store: str) -> dict[str, Any]:
    """Return a run with all defaults."""
    return {"dataset": dataset, "method": method, "uses": store, "train": {}, "score": {}, "evaluate": {}}


def uses(kind: str, dataset: str, features: str) -> str:
    """Return the store of a kind that belongs to a data set."""
    places = {"clips": paths.clips, "inpainted": paths.inpainted, "pools": paths.pools, "flow": paths.flow}
    return (paths.features(features) if kind == "features" else places[kind](dataset)).as_posix()
