"""The vectors of a feature set as points of a plane, by t-SNE (van der Maaten and Hinton, JMLR 2008).

As in the slides on DINO features: of single frames, and of video also of clips, a clip being the largest value of each
number over its frames; perplexity 10. Labels of test frames give colours and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vadpipe.errors import UserError
from vadpipe.evaluation.arrays import Ints
from vadpipe.evaluation.scored import Scored
from vadpipe.pictures.galleries import TRAINING, UNKNOWN, Panel, draw_gallery
from vadpipe.store import FeatureClip, Store

Vectors = npt.NDArray[np.float32]

_FRAMES = 1000  # points at most: t-SNE takes some seconds for them on one core
_COMPONENTS = 50
_PERPLEXITY = 10.0
_STEPS = 1000


def write_gallery(folder: Path, store: Store[FeatureClip], scored: Scored) -> None:
    """Write features.png into a folder: the vectors of training and test frames, and of video the maxima of clips.

    Nothing is written if there are fewer than four frames.

    Args:
        store: vectors, of the category that was scored.

    Raises:
        UserError: a test clip has other frames than its scores.
    """
    clips = store.all_clips()
    kinds = [_kinds(clip, scored) for clip in clips]
    total = sum(map(len, kinds))
    step = math.ceil(total / _FRAMES)
    vectors, maxima = _read(clips, step)
    of = np.repeat(np.arange(len(clips)), [len(of_clip) for of_clip in kinds])
    what = f"{total:,} {'frames' if scored.ordered else 'images'}" + (f", one in {step} drawn" if step > 1 else "")
    panels = [_panel(what, vectors, of[::step], np.concatenate(kinds)[::step])]
    if scored.ordered:
        whole = np.array([_kind_of_clip(of_clip) for of_clip in kinds])
        panels.append(_panel(f"maxima of {len(clips)} clips over their frames", maxima, np.arange(len(clips)), whole))
    drawn = [panel for panel in panels if panel is not None]
    if drawn:
        run = ", ".join(filter(None, (str(scored.info["run"]), scored.category)))
        note = (
            f"t-SNE, {_STEPS:,} steps, of {_COMPONENTS} principal components at most, not normalised; axes have no unit"
        )
        names = [f"{clip.split}/{clip.name}" for clip in clips]
        (folder / "features.png").write_bytes(draw_gallery(drawn, names, f"{run}: vectors of {store.path}", note))


def _kinds(clip: FeatureClip, scored: Scored) -> Ints:
    """Return the kind of each frame of a clip, (T,)."""
    if clip.split == "train":
        return np.full(clip.length, TRAINING)
    found = scored.labels[scored.clip == scored.names.index(clip.name)] if clip.name in scored.names else ()
    if len(found) != clip.length:
        raise UserError(f"{clip.path} has {clip.length} vectors, but there are {len(found)} scores; run `dvc repro`")
    return np.asarray(found, np.int64)


def _kind_of_clip(kinds: Ints) -> int:
    """Return the kind of a clip: abnormal if a frame is, else of no label if a frame has none."""
    return next(kind for kind in (TRAINING, 1, UNKNOWN, 0) if (kinds == kind).any())


def _read(clips: Sequence[FeatureClip], step: int) -> tuple[Vectors, Vectors]:
    """Return each `step`-th vector, counted through all clips, (n, D), and the maxima of clips, (C, D)."""
    drawn, maxima = [], []
    start = 0
    for clip in clips:
        highest = []
        for chunk in clip.chunks():
            drawn.append(chunk[-start % step :: step])
            highest.append(chunk.max(axis=0))
            start += len(chunk)
        maxima.append(np.max(highest, axis=0))
    return np.concatenate(drawn), np.stack(maxima)


def _panel(what: str, vectors: Vectors, clip: Ints, kind: Ints) -> Panel | None:
    """Return a panel of vectors (n, D), or None of fewer than four, of which a map says nothing."""
    if len(vectors) < 4:
        return None
    places, kept, perplexity = embed(vectors)
    return Panel(f"{what}; {kept:.0%} of the variance, perplexity {perplexity:.2g}", places, clip, kind)


def embed(vectors: Vectors) -> tuple[Vectors, float, float]:
    """Return the places of vectors (n, D) in a plane, (n, 2), which share of the variance was seen, and the perplexity.

    The start is the first two principal components, one thread sums up: the same vectors have the same places.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # Three times the perplexity are the neighbours of a point, of which there are not more than others.
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    with threadpool_limits(1), np.errstate(invalid="ignore"):  # equal vectors have no variance
        components = PCA(min(_COMPONENTS, *vectors.shape), random_state=0)
        reduced = components.fit_transform(vectors)
        start = reduced[:, :2] / (reduced[:, 0].std() or 1) * 1e-4
        tsne = TSNE(perplexity=perplexity, init=start, max_iter=_STEPS, random_state=0)
        places = tsne.fit_transform(reduced)
    return places, float(np.nan_to_num(components.explained_variance_ratio_.sum(), nan=1.0)), perplexity
