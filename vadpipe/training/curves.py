"""The losses of a run by epoch, as a table for `dvc plots`."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vadpipe.store.atomic import replacing


def write_curve(path: Path, losses: Sequence[Sequence[dict[str, float]]]) -> None:
    """Write a row an epoch: epoch, from 1, `loss` and each of its parts, means over models; empty where it has none.

    Args:
        losses: of each model, of each epoch; a method without a network has none, and its table has no rows.
    """
    parts = list(dict.fromkeys(part for model in losses for epoch in model for part in epoch)) or ["loss"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside, beside.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["epoch", *parts])
        for number, epochs in enumerate(zip(*losses, strict=True), 1):
            means = [_mean([epoch[part] for epoch in epochs if part in epoch]) for part in parts]
            writer.writerow([number, *means])


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.6g}" if values else ""
