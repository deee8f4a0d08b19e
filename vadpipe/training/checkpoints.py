"""States of interrupted trainings: kept apart from outputs, found again only by equal inputs."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from vadpipe.paths import of_category
from vadpipe.store.atomic import replacing


def fingerprint(params: Mapping[str, object], inputs: Iterable[Path], code: Iterable[Path]) -> str:
    """Return a hash of parameters, the contents of input files or folders, and source files.

    Whatever could change the result is in it, so that a state is never taken up by another training.
    """
    digest = hashlib.blake2b(json.dumps(params, sort_keys=True).encode(), digest_size=12)
    for path in [*inputs, *code]:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        for file in files:
            digest.update(file.name.encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "blake2b").digest())
    return digest.hexdigest()


class Checkpoints:
    """The state of one training, `.checkpoints/RUN/FINGERPRINT`; states of other fingerprints are removed."""

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.parent = folder
        self.folder = folder / fingerprint
        if folder.is_dir():
            for other in folder.iterdir():
                if other != self.folder:
                    shutil.rmtree(other)

    def model(self, category: str | None, seed: int) -> Path:
        """Return the folder of the finished model of a category and seed; it is there only when whole."""
        return of_category(self.folder / "models", category) / str(seed)

    def state(self, category: str | None, seed: int) -> Path:
        """Return the folder for the state of the unfinished training of a category and seed."""
        return of_category(self.folder / "states", category) / str(seed)

    def publish(self, out: Path) -> None:
        """Copy the finished models to `out` and forget everything."""
        with replacing(out, folder=True) as beside:
            shutil.copytree(self.folder / "models", beside, dirs_exist_ok=True)
        shutil.rmtree(self.parent)
