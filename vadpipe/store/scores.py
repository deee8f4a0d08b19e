"""The score store, `data/scores/RUN`.

`scores.parquet`                        clip, frame, seed, covered and a column a component, of the test clips
`maps/SEED/CLIP.COMPONENT.npy`          float16 (T, h, w), of the test clips
`training/SEED/CLIP.COMPONENT.npy`      the same of the training clips: what thresholds are taken from
`pictures/CLIP.NAME.npy`                uint8 (T, h, w, 3) RGB, what the model of the first seed drew of the test clips
"""

from __future__ import annotations

from collections.abc import Iterable
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
        self.folder = folder
        self.info = info
        self.writer: pq.ParquetWriter | None = None
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
                start += self._write_table(seed, clip, start, scores)
                for name, values in scores.maps.items():
                    arrays.append(f"maps/{seed}/{clip}.{name}.npy", _storable(values))
                for name, picture in scores.pictures.items() if seed == self.first_seed else ():
                    arrays.append(f"pictures/{clip}.{name}.npy", picture)
        if start != length:
            raise ValueError(f"clip {clip}: the method scored {start} frames of {length}")

    def write_training(self, seed: int, clip: str, length: int, chunks: Iterable[Scores]) -> None:
        """Write a training clip's maps; a method without maps is asked for one chunk only."""
        with _Arrays(self.folder, length) as arrays:
            for scores in chunks:
                for name, values in scores.maps.items():
                    arrays.append(f"training/{seed}/{clip}.{name}.npy", _storable(values))
                if not scores.maps:
                    break

    def _write_table(self, seed: int, clip: str, start: int, scores: Scores) -> int:
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
        if self.writer is None:
            info = {"kind": KIND, "components": list(scores.components), **self.info}
            schema = with_metadata(table.schema, **info)
            self.writer = pq.ParquetWriter(self.folder / "scores.parquet", schema, compression="zstd")
        self.writer.write_table(table.cast(self.writer.schema))
        return count

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()


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


def read_scores(folder: Path) -> ScoreTable:
    """Read the scores of a run.

    Raises:
        UserError: the scores are missing or damaged.
    """
    path = folder / "scores.parquet"
    info = metadata(path)
    return ScoreTable(open_parquet(path).read().to_pandas(), list(info["components"]), info)


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
