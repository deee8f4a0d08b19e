"""Stores on disk: what is gone, added or damaged is named, and no split is read but the one that is asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages import evaluate, ingest, score, train
from tests.conftest import prepare, store_file, write_clips, write_features
from vadpipe.errors import UserError
from vadpipe.params import load
from vadpipe.store import FeatureClip, FlowClip, LabelClip, PreparedClip, flow, open_store, prepared
from vadpipe.store.base import write_manifests
from vadpipe.store.clips import Clip, Frame
from vadpipe.store.scores import Scores, ScoreWriter
from vadpipe.store.seal import check_seal, seal

BOX = {"track": 0, "x_min": 1, "y_min": 2, "x_max": 4, "y_max": 5}
LENGTHS = {"train/a": 40, "train/b": 3, "test/c": 35}
KINDS = ("clips", "labels", "pools", "features", "flow")


def write_stores(folder: Path, lengths: dict[str, int] = LENGTHS) -> None:
    """Write a small store of each kind, clips of two row groups among them."""
    rng = np.random.default_rng(0)
    frames = {
        name: [
            Frame(
                f"{name}/{index}",
                rng.integers(0, 255, (6, 5, 3)).astype(np.uint8),
                mask=np.eye(6, 5, dtype=np.uint8) if index % 2 else None,
                label=index % 2,
                boxes=[BOX] if index % 2 else [],
                time=index / 10,
            )
            for index in range(length)
        ]
        for name, length in lengths.items()
    }
    write_clips(folder / "clips", folder / "labels", frames)
    for clip in open_store(folder / "clips").all_clips():
        region = np.eye(6, 5, dtype=bool)
        images = [data for group in clip.encoded() for data in group]
        rows = [prepared.Prepared(f"p{index}", data, ~region, region, 0.5) for index, data in enumerate(images)]
        path = store_file(folder / "pools", f"{clip.split}/{clip.name}")
        prepared.write_clip(path, prepared.POOLS, clip, rows)
    vectors = {name: rng.normal(size=(length, 4)).astype(np.float32) for name, length in lengths.items()}
    write_features(folder / "features", vectors, np.ones(2), grid=[2, 1])
    for name, length in lengths.items():
        fields = [None, *rng.normal(size=(length - 1, 3, 4, 2)).astype(np.float16)]
        path = store_file(folder / "flow", name)
        flow.write_clip(path, [fields[:32], fields[32:]] if length > 32 else [fields], 3, 4, dataset="tiny")
    for kind in ("pools", "flow"):
        write_manifests(folder / kind)


def read(store: Path, split: str) -> str:
    """Return all that is read of a split, as text: one that equals another holds the same values."""
    found: list[Any] = []
    for clip in open_store(store).clips(split):
        found += [clip.name, clip.length, clip.info]
        if isinstance(clip, FeatureClip):
            found += [clip.vectors().tobytes(), np.concatenate(list(clip.regions())).tobytes()]
        elif isinstance(clip, FlowClip):
            found.append(np.concatenate(list(clip.chunks())).tobytes())
        elif isinstance(clip, LabelClip):
            found += [clip.column(name) for name in ("label", "mask", "boxes")]
        else:
            found += [list(clip.encoded()), clip.column("name")]
        if isinstance(clip, PreparedClip):
            found += [list(clip.rows(["filled"])), list(clip.rows(["region"])), clip.column("confidence")]
    return repr(found)


def refusal_or_values(store: Path, split: str) -> tuple[str | None, str | None]:
    """Return what is said where a split is refused, or else what is read of it; other errors are not for users."""
    try:
        return None, read(store, split)
    except UserError as error:
        return str(error), None


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_gives_what_was_written(tmp_path: Path, kind: str) -> None:
    write_stores(tmp_path)
    store = open_store(tmp_path / kind, kind)
    assert store.kind == store.info["kind"] == kind
    assert [(clip.split, clip.name, clip.length) for clip in store.all_clips()] == [
        ("train", "a", 40),
        ("train", "b", 3),
        ("test", "c", 35),
    ]
    assert [clip.name for clip in store.clips("train")] == ["a", "b"]
    assert {type(clip) for clip in store.all_clips()} == {
        {"clips": Clip, "labels": LabelClip, "pools": PreparedClip, "features": FeatureClip, "flow": FlowClip}[kind]
    }


def test_labels_masks_and_boxes_are_in_the_label_store_alone(tmp_path: Path) -> None:
    write_stores(tmp_path)
    (clip,) = open_store(tmp_path / "labels", "labels").clips("test")
    assert clip.labels().tolist() == [0, 1] * 17 + [0]
    assert clip.column("boxes")[:2] == [[], [BOX]]
    assert [data is None for data in clip.column("mask")] == [True, False] * 17 + [True]
    assert clip.column("time")[:3] == [0, 0.1, 0.2]
    (images,) = open_store(tmp_path / "clips", "clips").clips("test")
    for name in ("label", "mask", "boxes", "time"):
        with pytest.raises(KeyError):
            images.column(name)


# Each case: what happens to the test split of a store, beside which one of other lengths lies, and what is said.
def removed(split: Path, _: Path) -> None:
    (split / "c.parquet").unlink()


def added(split: Path, _: Path) -> None:
    shutil.copy(split / "c.parquet", split / "d.parquet")


def renamed(split: Path, _: Path) -> None:
    (split / "c.parquet").rename(split / "e.parquet")


def of_other_length(split: Path, other: Path) -> None:
    shutil.copy(other / split.parent.name / "test/c.parquet", split / "c.parquet")


def of_other_kind(split: Path, _: Path) -> None:
    kind = "flow" if split.parent.name != "flow" else "features"
    shutil.copy(split.parent.parent / kind / "test/c.parquet", split / "c.parquet")


def emptied(split: Path, _: Path) -> None:
    (split / "c.parquet").write_bytes(b"")


def cut_off(split: Path, _: Path) -> None:
    file = split / "c.parquet"
    file.write_bytes(file.read_bytes()[:-20])


def no_manifest(split: Path, _: Path) -> None:
    (split / "clips.json").unlink()


def cut_off_manifest(split: Path, _: Path) -> None:
    (split / "clips.json").write_text((split / "clips.json").read_text()[:-10])


def manifest_of_another_store(split: Path, other: Path) -> None:
    shutil.copy(other / split.parent.name / "test/clips.json", split / "clips.json")


CHANGES = {
    removed: r"test/c\.parquet is missing",
    added: r"test/d\.parquet does not belong there",
    renamed: r"test/c\.parquet is missing",
    of_other_length: r"test/c\.parquet is not what was written, 35 frames",
    of_other_kind: r"test/c\.parquet is not what was written",
    emptied: r"test/c\.parquet is not what was written",
    cut_off: r"test/c\.parquet is not what was written",
    no_manifest: r"test/clips\.json is not here",
    cut_off_manifest: r"test/clips\.json is no whole JSON",
    manifest_of_another_store: r"test/c\.parquet is not what was written, 34 frames",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_is_gone_added_or_changed_is_named(
    tmp_path: Path, kind: str, change: Callable[[Path, Path], None]
) -> None:
    write_stores(tmp_path)
    write_stores(tmp_path / "other", {"train/a": 3, "test/c": 34})
    before = read(tmp_path / kind, "train")
    change(tmp_path / kind / "test", tmp_path / "other")
    for attempt in (lambda store: store.clips("test"), lambda store: store.all_clips()):
        with pytest.raises(UserError, match=CHANGES[change]) as error:
            attempt(open_store(tmp_path / kind))
        assert "dvc" in str(error.value)
    # The other split is none the worse.
    assert read(tmp_path / kind, "train") == before


def test_a_store_without_training_clips_or_without_anything(tmp_path: Path) -> None:
    write_features(tmp_path / "features", {"test/c": np.zeros((5, 3), np.float32)})
    with pytest.raises(UserError, match=r"features has no clips for train; run `dvc repro`"):
        open_store(tmp_path / "features")
    with pytest.raises(UserError, match=r"nowhere is not here; run `dvc repro`"):
        open_store(tmp_path / "nowhere")


def test_a_flipped_byte_is_named_or_matters_not(tmp_path: Path) -> None:
    """Of 40 places spread over a file of each kind, and of each of its last 40 bytes, the footer's end."""
    write_stores(tmp_path)
    for kind in KINDS:
        file = tmp_path / kind / "train" / "a.parquet"
        whole, expected = file.read_bytes(), read(tmp_path / kind, "train")
        count = len(whole)
        named = 0
        for index, position in enumerate((*np.linspace(0, count - 1, 40).astype(int), *range(count - 40, count))):
            damaged = bytearray(whole)
            damaged[position] ^= (1, 4, 64, 128, 255)[index % 5]
            file.write_bytes(damaged)
            refusal, values = refusal_or_values(tmp_path / kind, "train")
            assert values == expected or str(file) in str(refusal), (kind, position, refusal)
            named += refusal is not None
        # Equal are those in a column that nobody reads, and the four bytes that say `Parquet`.
        assert named >= 70, kind
        file.write_bytes(whole)
        assert read(tmp_path / kind, "train") == expected


@pytest.mark.parametrize("kind", ["flow", "clips"])
def test_a_flipped_byte_in_the_headers_of_pages_is_named(tmp_path: Path, kind: str) -> None:
    """They have no checksum of Parquet's own; with another number of values or encoding they read as other rows."""
    import pyarrow.parquet as pq

    write_stores(tmp_path)
    file = tmp_path / kind / "train" / "a.parquet"
    whole = file.read_bytes()
    group = pq.ParquetFile(file).metadata.row_group(0)
    for column in range(group.num_columns):
        start = group.column(column).data_page_offset
        for position in range(start, start + 28):
            damaged = bytearray(whole)
            damaged[position] ^= 2
            file.write_bytes(damaged)
            with pytest.raises(UserError, match=r"a\.parquet is not what was written"):
                open_store(tmp_path / kind).clips("train")


def test_a_flipped_byte_in_a_manifest_is_named(tmp_path: Path) -> None:
    write_stores(tmp_path)
    file = tmp_path / "features" / "train" / "clips.json"
    whole, expected = file.read_bytes(), read(tmp_path / "features", "train")
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        refusal, values = refusal_or_values(tmp_path / "features", "train")
        assert values == expected or str(file.parent) in str(refusal), (position, refusal)


@pytest.mark.parametrize("method", ["brightness", "knn", "coherent_motion", "conv_ae"])
def test_a_training_needs_the_training_clips_alone(tiny: Path, method: str) -> None:
    """Of each kind of store: without the test split, equal models come out."""
    uses = Path(load().runs[f"tiny_{method}"].uses)
    prepare(str(uses))
    train.main(f"tiny_{method}")
    models = Path("models", f"tiny_{method}")
    expected = {path: path.read_bytes() for path in models.rglob("*") if path.is_file()}
    shutil.rmtree(uses / "test")
    shutil.rmtree(models)
    train.main(f"tiny_{method}")
    assert {path: path.read_bytes() for path in models.rglob("*") if path.is_file()} == expected


def sealed(folder: Path) -> Path:
    for name in ("network.safetensors", "network.json", "maps/0/a.heat.npy", "maps/0/b.heat.npy"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(np.random.default_rng(0).bytes(200))
    seal(folder)
    return folder


def test_a_seal_holds_for_every_byte_of_every_file(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "model")
    check_seal(folder, "make it anew")
    for file in (path for path in sorted(folder.rglob("*")) if path.is_file()):
        whole = file.read_bytes()
        for position in np.linspace(0, len(whole) - 1, 40).astype(int):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << position % 8
            file.write_bytes(damaged)
            with pytest.raises(UserError, match="make it anew") as error:
                check_seal(folder, "make it anew")
            # Of damage in the list itself, the file is named that the list is wrong about.
            assert str(folder if file.name == "sha256.json" else file) in str(error.value)
        file.write_bytes(whole)
    check_seal(folder, "make it anew")


def test_a_seal_holds_for_what_is_gone_added_or_cut_off(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "model")
    (folder / "maps/0/b.heat.npy").rename(tmp_path / "b")
    with pytest.raises(UserError, match=r"maps/0/b\.heat\.npy is missing; make it anew"):
        check_seal(folder, "make it anew")
    (tmp_path / "b").rename(folder / "maps/0/b.heat.npy")
    (folder / "maps/0/c.heat.npy").touch()
    with pytest.raises(UserError, match=r"maps/0/c\.heat\.npy was added"):
        check_seal(folder, "make it anew")
    (folder / "maps/0/c.heat.npy").unlink()
    (folder / "network.json").write_bytes(b"")
    with pytest.raises(UserError, match=r"network\.json is not what was written: its sha256 differs"):
        check_seal(folder, "make it anew")
    for text, said in (("", "no whole JSON"), ("[1]", "holds list"), ("{}", "was added")):
        (folder / "sha256.json").write_text(text)
        with pytest.raises(UserError, match=said):
            check_seal(folder, "make it anew")
    (folder / "sha256.json").unlink()
    with pytest.raises(UserError, match=r"sha256\.json is not here, so .*model is not whole; make it anew"):
        check_seal(folder, "make it anew")


def damage(file: Path) -> Callable[[], None]:
    """Flip the lowest bit of a byte in the middle of a file, and return what undoes it."""
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    file.write_bytes(damaged)
    return lambda: file.write_bytes(whole) and None


def test_damaged_models_and_scores_are_not_used(tiny: Path) -> None:
    ingest.main("tiny")
    run = "tiny_brightness"
    train.main(run)
    score.main(run)
    evaluate.main(run)
    for file in Path("models", run, "0").iterdir():
        undo = damage(file)
        with pytest.raises(
            UserError, match=rf"models/{run}/0/.*dvc checkout models/{run}` or `dvc repro -f train@{run}"
        ):
            score.main(run)
        undo()
    score.main(run)
    for file in Path("data/scores", run).iterdir():
        undo = damage(file)
        with pytest.raises(UserError, match=rf"data/scores/{run}/.*dvc repro -f score@{run}"):
            evaluate.main(run)
        undo()
    evaluate.main(run)


def test_a_map_of_a_run_that_is_damaged_is_named(tiny: Path) -> None:
    ingest.main("tiny")
    folder = Path("data/scores/tiny_brightness")
    folder.mkdir(parents=True)
    writer = ScoreWriter(folder, run="tiny_brightness")
    rng = np.random.default_rng(0)
    store = open_store(Path("data/clips/tiny"))
    for clip in store.clips("test"):
        heat = rng.random((clip.length, 6, 9)).astype(np.float32)
        writer.write(0, clip.name, clip.length, [Scores({"heat": heat.max((1, 2))}, {"heat": heat})])
    for clip in store.clips("train"):
        heat = rng.random((clip.length, 6, 9)).astype(np.float32)
        writer.write_training(0, clip.name, clip.length, [Scores({"heat": heat.max((1, 2))}, {"heat": heat})])
    writer.close()
    seal(folder)
    evaluate.main("tiny_brightness")
    for name in ("maps/0/b1.heat.npy", "training/0/a2.heat.npy"):
        undo = damage(folder / name)
        with pytest.raises(UserError, match=name.replace(".", r"\.")):
            evaluate.main("tiny_brightness")
        undo()
