"""Prepared images: clip stores with columns that a preparation added, `data/inpainted/NAME` and `data/pools/NAME`.

Labels stay behind, in the label store: training images are normal once they are prepared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vadpipe.errors import UserError
from vadpipe.store import images
from vadpipe.store.base import with_metadata, write_rows
from vadpipe.store.clips import SCHEMA, Clip

INPAINTED = "inpainted"
POOLS = "pools"
VERSION = 1

Bools = npt.NDArray[np.bool_]

_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("filled", pa.binary()),
        pa.field("region", pa.binary()),
        pa.field("confidence", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Prepared:
    """An image on its way into the store.

    Attributes:
        image: encoded.
        filled: (H, W), pixels that were made up by inpainting; None = none.
        region: (H, W), pixels that matter; None = not looked for.
        confidence: how sure the region is, 0 = the whole image for want of one, to 1.
    """

    name: str
    image: bytes
    filled: Bools | None = None
    region: Bools | None = None
    confidence: float | None = None


def write_clip(path: Path, kind: str, source: Clip, prepared: Iterable[Prepared], **info: object) -> None:
    """Write the prepared images of a clip, in their order, with the metadata of the clip that they come from.

    Raises:
        UserError: a region covers nothing.
    """
    schema = with_metadata(_SCHEMA, **{**source.info, "kind": kind, "version": VERSION, **info})
    write_rows(path, schema, map(_row, prepared))


def _row(image: Prepared) -> dict[str, object]:
    return {
        "image": image.image,
        "name": image.name,
        "filled": _encode(image.filled),
        "region": _encode_region(image),
        "confidence": image.confidence,
    }


def _encode(mask: Bools | None) -> bytes | None:
    return None if mask is None else images.encode_mask(mask)


def _encode_region(image: Prepared) -> bytes | None:
    if image.region is not None and not image.region.any():
        raise UserError(f"{image.name}: its region covers nothing; give another image or raise pool_mask.confidence")
    return _encode(image.region)


class PreparedClip(Clip):
    """The prepared images of a clip."""

    def filled(self) -> Iterator[Bools]:
        """Yield which pixels are made up, (n, H, W), a row group at a time."""
        return self.masks("filled", missing=False)

    def regions(self) -> Iterator[Bools]:
        """Yield which pixels matter, (n, H, W), a row group at a time; all where no region was looked for."""
        return self.masks("region", missing=True)
