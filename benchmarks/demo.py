"""The figures of `make demo` beside those in docs/demo.json.

    python benchmarks/demo.py            compare
    python benchmarks/demo.py --write    take those that are here

They are not equal to the last digit: processors round sums of many numbers differently, and what is drawn, trained and
scored differs with them. What needs no training may differ by 0.005, what is trained by 0.05 (0.1 in figures of pixels
and boxes, of which a single seed decides a good part); more than that is told.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vadpipe import params, paths
from vadpipe.evaluation.summary import BASELINES

PUBLISHED = Path(__file__).resolve().parent.parent / "docs" / "demo.json"


def leaves(tree: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def tolerance(method: str, place: tuple[str, ...]) -> float:
    if method in BASELINES:
        return 0.005
    return 0.1 if place[0] == "maps" else 0.05


def differences(here: dict[str, Any], published: dict[str, Any], methods: dict[str, str]) -> Iterator[str]:
    """Yield a line a figure that is further away from the published one than processors explain."""
    for run in published.keys() & here.keys():
        found = dict(leaves(here[run]))
        for place, value in leaves(published[run]):
            now = found.get(place)
            close = now == value or (None not in {now, value} and abs(now - value) <= tolerance(methods[run], place))
            if not close:
                yield f"{run} {' '.join(place)}: {now} here, {value} published"


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        shutil.copy(paths.SUMMARY, PUBLISHED)
        return
    here, published = json.loads(paths.SUMMARY.read_text()), json.loads(PUBLISHED.read_text())
    methods = {name: run.method for name, run in params.load().runs.items()}
    both = published.keys() & here.keys()
    apart = sorted(differences(here, published, methods))
    print(
        f"{len(both)} runs of the demo compared with docs/demo.json, {len(apart)} figures further apart than expected"
    )
    print("".join(f"  {line}\n" for line in apart), end="")


if __name__ == "__main__":
    main()
