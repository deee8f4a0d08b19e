"""Tables and figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, without a line break at its end."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ("---",) * len(header), *rows])


def figure(found: dict[str, Any], strong: str = "") -> str:
    """Write a figure with its interval over seeds: 0.728 ± 0.006."""
    if found["mean"] is None:
        return "-"
    text = f"{strong}{found['mean']:.3f}{strong}"
    return f"{text} ± {(found['ci95'][1] - found['ci95'][0]) / 2:.3f}" if found["ci95"] else text


def with_bootstrap(found: dict[str, Any], strong: str = "") -> str:
    """Write a figure with both intervals: **0.728** ± 0.006 [0.55, 0.92]."""
    interval = " [{:.2f}, {:.2f}]".format(*found["bootstrap95"]) if found["bootstrap95"] else ""
    return figure(found, strong) + interval
