"""The score store, `data/scores/RUN`; of a data set with categories one a category, `data/scores/RUN/CATEGORY`.

`scores.parquet`                        clip, frame, seed, covered and a column a component, of the test clips
`training.parquet`                      the same of the training clips: what components are divided by
`maps/SEED/CLIP.COMPONENT.npy`          float16 (T, h, w), of the test clips
`training/SEED/CLIP.COMPONENT.npy`      the same of the training clips: what thresholds are taken from
`pictures/CLIP.NAME.npy`                uint8 (T, h, w, 3) RGB, what the model of the first seed drew of the test clips
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vadpipe.errors import UserError
from vadpipe.store.base import metadata, open_parquet, with_metadata

KIND = "scores"
_TEST, _TRAINING = "scores.parquet", "training.parquet"
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Scores:
    """Scores of consecutive frames of a clip; larger is more abnormal.

    Attributes:
        components: name -> float32 (n,), NaN = the method cannot score the frame.
        maps: name -> (n, h, w), at the resolution the method thinks in, NaN = it does not look there; stored
            as float16.
        pictures: name -> uint8 (n, h, w, 3) RGB, what the method drew, such as its reconstruction.
    """

    components: dict[str, npt.NDArray[np.float32]]
    maps: dict[str, npt.NDArray[np.floating]] = field(default_factory=dict)
    pictures: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)


class ScoreWriter:
    """Writes the scores of clips, seed after seed, chunk by chunk."""

    def __init__(self, folder: Path, **info: object) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.info = info
        self.writers: dict[str, pq.ParquetWriter] = {}
        self.first_seed: int | None = None

    def write(self, seed: int, clip: str, length: int, chunks: Iterable[Scores]) -> None:
        """Write a test clip's scores; the chunks cover its frames in order.

        Raises:
            UserError: a score is infinite.
            ValueError: the method scored more or fewer than `length` frames.
        """
        self.first_seed = seed if self.first_seed is None else self.first_seed
        start = 0
        with _Arrays(self.folder, length) as arrays:
            for scores in chunks:
                start += self._write_table(_TEST, seed, clip, start, scores)
                for name, values in scores.maps.items():
                    arrays.append(f"maps/{seed}/{clip}.{name}.npy", _storable(values))
                for name, picture in scores.pictures.items() if seed == self.first_seed else ():
                    arrays.append(f"pictures/{clip}.{name}.npy", picture)
        _check_length(clip, start, length)

    def write_training(self, seed: int, clip: str, length: int, chunks: Iterable[Scores]) -> None:
        """Write a training clip's scores, as `write` does those of a test clip."""
        start = 0
        with _Arrays(self.folder, length) as arrays:
            for scores in chunks:
                start += self._write_table(_TRAINING, seed, clip, start, scores)
                for name, values in scores.maps.items():
                    arrays.append(f"training/{seed}/{clip}.{name}.npy", _storable(values))
        _check_length(clip, start, length)

    def _write_table(self, file: str, seed: int, clip: str, start: int, scores: Scores) -> int:
        values = list(scores.components.values())
        count = len(values[0])
        for name, component in scores.components.items():
            if np.isinf(component).any():
                frame = start + int(np.isinf(component).argmax())
                raise UserError(f"the score '{name}' of clip {clip}, frame {frame} is infinite; retrain the run")
        columns = {
            "clip": pa.array([clip] * count, pa.string()),
            "frame": pa.array(range(start, start + count), pa.int32()),
            "seed": pa.array([seed] * count, pa.int32()),
            "covered": pa.array(~np.isnan(values).any(0), pa.bool_()),
            **{name: pa.array(component, pa.float32()) for name, component in scores.components.items()},
        }
        table = pa.table(columns)
        if file not in self.writers:
            info = {"kind": KIND, "components": list(scores.components), **self.info}
            schema = with_metadata(table.schema, **info)
            self.writers[file] = pq.ParquetWriter(self.folder / file, schema, compression="zstd")
        self.writers[file].write_table(table.cast(self.writers[file].schema))
        return count

    def close(self) -> None:
        """Finish the files, all of them, even if one cannot be written."""
        with ExitStack() as files:
            for writer in self.writers.values():
                files.callback(writer.close)


def _check_length(clip: str, scored: int, length: int) -> None:
    if scored != length:
        raise ValueError(f"clip {clip}: the method scored {scored} frames of {length}")


class _Arrays:
    """Files of arrays that grow by appending, each (length, ...)."""

    def __init__(self, folder: Path, length: int) -> None:
        self.folder = folder
        self.length = length
        self.files: dict[str, BinaryIO] = {}

    def __enter__(self) -> _Arrays:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            file.close()

    def append(self, path: str, values: npt.NDArray[Any]) -> None:
        if path not in self.files:
            place = self.folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            self.files[path] = place.open("wb")
            shape = (self.length, *values.shape[1:])
            header = {"descr": np.lib.format.dtype_to_descr(values.dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self.files[path], header)
        self.files[path].write(values.tobytes())


def _storable(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float16]:
    """Round a map: it has no use for what float16 cannot hold, and the components stay float32."""
    return values.clip(-_LARGEST, _LARGEST).astype(np.float16)


@dataclass(frozen=True)
class ScoreTable:
    """All scores of a run.

    Attributes:
        frames: columns clip, frame, seed, covered and one float32 column a component.
        components: names of the components, the method's main one first.
        info: what was recorded when the scores were made.
    """

    frames: pd.DataFrame
    components: list[str]
    info: dict[str, Any]


def categories(folder: Path) -> list[str | None]:
    """Return the categories that there are scores of, sorted; [None] where they are of none."""
    if (folder / _TEST).exists():
        return [None]
    return [one.name for one in sorted(folder.iterdir()) if (one / _TEST).exists()] or [None]


def read_scores(folder: Path) -> ScoreTable:
    """Read the scores of a run.

    Raises:
        UserError: the scores are missing or damaged.
    """
    path = folder / _TEST
    info = metadata(path)
    return ScoreTable(open_parquet(path).read().to_pandas(), list(info["components"]), info)


def read_training_scores(folder: Path, run: str) -> pd.DataFrame:
    """Read the scores of the training clips of a run, columns as of `ScoreTable.frames`, frame after frame.

    Raises:
        UserError: they are missing or damaged.
    """
    path = folder / _TRAINING
    if not path.exists():
        raise UserError(f"run {run}: {path} is not here, the scores of training clips; run `dvc repro score@{run}`")
    frames: pd.DataFrame = open_parquet(path).read().to_pandas()
    return frames.sort_values(["seed", "clip", "frame"])


def write_map(folder: Path, seed: int, clip: str, component: str, values: npt.NDArray[np.floating]) -> None:
    """Write the map of a test clip (T, h, w) into a folder laid out as a score store."""
    _write_array(folder / "maps" / str(seed) / f"{clip}.{component}.npy", values)


def write_training_map(folder: Path, seed: int, clip: str, component: str, values: npt.NDArray[np.floating]) -> None:
    """Write the map of a training clip (T, h, w) into a folder laid out as a score store."""
    _write_array(folder / "training" / str(seed) / f"{clip}.{component}.npy", values)


def _write_array(path: Path, values: npt.NDArray[np.floating]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, _storable(values))


def read_map(folder: Path, seed: int, clip: str, component: str) -> npt.NDArray[np.float16]:
    """Open a test clip's map, float16 (T, h, w), memory-mapped.

    Raises:
        FileNotFoundError: the method has no map of this component.
    """
    values: npt.NDArray[np.float16] = np.load(folder / "maps" / str(seed) / f"{clip}.{component}.npy", mmap_mode="r")
    return values


def read_training_maps(folder: Path, seed: int, component: str) -> dict[str, npt.NDArray[np.float16]]:
    """Open the maps of the training clips: name -> float16 (T, h, w), memory-mapped; empty without maps."""
    files = sorted((folder / "training" / str(seed)).glob(f"*.{component}.npy"))
    return {path.name.removesuffix(f".{component}.npy"): np.load(path, mmap_mode="r") for path in files}


def read_pictures(folder: Path, clip: str) -> dict[str, npt.NDArray[np.uint8]]:
    """Open what the model of the first seed drew of a test clip: name -> uint8 (T, h, w, 3) RGB, memory-mapped."""
    files = sorted((folder / "pictures").glob(f"{clip}.*.npy"))
    return {path.name.split(".")[1]: np.load(path, mmap_mode="r") for path in files}
