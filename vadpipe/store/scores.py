"""The score store: `data/scores/RUN/scores.parquet` and `data/scores/RUN/maps/SEED/CLIP.COMPONENT.npy`."""

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
        maps: name -> (n, h, w), at the resolution the method thinks in; stored as float16.
    """

    components: dict[str, npt.NDArray[np.float32]]
    maps: dict[str, npt.NDArray[np.floating]] = field(default_factory=dict)


class ScoreWriter:
    """Writes the scores of clips, seed after seed, chunk by chunk."""

    def __init__(self, folder: Path, **info: object) -> None:
        self.folder = folder
        self.info = info
        self.writer: pq.ParquetWriter | None = None

    def write(self, seed: int, clip: str, length: int, chunks: Iterable[Scores]) -> None:
        """Write a clip's scores; the chunks cover its frames in order.

        Raises:
            UserError: a score is infinite.
            ValueError: the method scored more or fewer than `length` frames.
        """
        start = 0
        maps: dict[str, BinaryIO] = {}
        try:
            for scores in chunks:
                start += self._write_table(seed, clip, start, scores)
                for name, values in scores.maps.items():
                    if name not in maps:
                        maps[name] = self._open_map(seed, clip, name, (length, *values.shape[1:]))
                    # A heat map has no use for what float16 cannot hold; the components stay float32.
                    maps[name].write(values.clip(-_LARGEST, _LARGEST).astype(np.float16).tobytes())
        finally:
            for file in maps.values():
                file.close()
        if start != length:
            raise ValueError(f"clip {clip}: the method scored {start} frames of {length}")

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

    def _open_map(self, seed: int, clip: str, name: str, shape: tuple[int, ...]) -> BinaryIO:
        folder = self.folder / "maps" / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f"{clip}.{name}.npy").open("wb")
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file

    def close(self) -> None:
        """Finish the file."""
        if self.writer is not None:
            self.writer.close()


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
    """Open a clip's map, float16 (T, h, w), memory-mapped."""
    path = folder / "maps" / str(seed) / f"{clip}.{component}.npy"
    values: npt.NDArray[np.float16] = np.load(path, mmap_mode="r")
    return values
