"""Small data sets on disk, in the layouts that the readers read."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ruamel.yaml import YAML

from vadpipe import starter
from vadpipe.methods import base
from vadpipe.params import load
from vadpipe.store import clips, features
from vadpipe.store.base import clip_file, write_manifests
from vadpipe.store.frames import Frame, Storing

REPO = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH = 24, 36


# A small source of virtual anomalies, as parameters of the scene `sprites`.
SPRITES: dict[str, Any] = {
    "seed": 3, "views": 2, "videos": 1, "frames": 12, "height": 96, "width": 144, "fps": 5.0,
}  # fmt: skip


def draw(index: int, speed: float = 1.0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return a frame uint8 (H, W, 3) with a texture and a bright square that moves to the right."""
    rng = np.random.default_rng(3)
    frame = rng.integers(60, 120, (height, width, 3)).astype(np.uint8)
    x = int(index * speed) % (width - 8)
    frame[8:16, x : x + 8] = (220, 200, 40)
    return frame


def write_frames(folder: Path, count: int, suffix: str = ".jpg", speed: float = 1.0) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index + 1:03d}{suffix}"), draw(index, speed))


def write_video(path: Path, count: int, speed: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (WIDTH, HEIGHT))
    for index in range(count):
        video.write(draw(index, speed))
    video.release()


def folder_dataset(root: Path) -> Path:
    """Two training and three test clips in the layout of `folder`; of b1 the frames 010.. to 019 from 0 are abnormal.

    The names of its frames count from 001, so the tables call them 11 to 20; those of the video b2 count from 0.
    """
    write_frames(root / "train" / "a1", 40)
    write_video(root / "train" / "a2.avi", 36)
    write_frames(root / "test" / "b1", 34, ".png")
    write_video(root / "test" / "b2.avi", 33, speed=2)
    write_frames(root / "test" / "b3", 12)
    (root / "labels.csv").write_text("clip,first,last\nb1,11,20\nb2,0,4\nb2,6,32\nb3,,\n")
    masks = np.zeros((34, HEIGHT, WIDTH), np.uint8)
    masks[10:20, 8:16, 4:12] = 255
    (root / "masks").mkdir()
    np.save(root / "masks" / "b1.npy", masks)
    (root / "tracks.csv").write_text("clip,track,frame,x_min,y_min,x_max,y_max\nb1,0,11,4,8,12,16\n")
    return root


def ucsd_dataset(root: Path) -> Path:
    """A small UCSD Ped2: two training and three test clips, with the traps of the real one."""
    for name in ("Train001", "Train002"):
        write_frames(root / "Train" / name, 6, ".tif")
    for name in ("Test001", "Test002", "Test003"):
        write_frames(root / "Test" / name, 6, ".tif")
    for name, stem in (("Test001", ""), ("Test002", "frame")):
        masks = root / "Test" / f"{name}_gt"
        masks.mkdir()
        for index in range(6):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[4:8, 4:8] = 255 if index >= 2 else 0
            cv2.imwrite(str(masks / f"{stem}{index + 1:03d}.bmp"), mask)
    lines = ["TestVideoFile = {};", *("TestVideoFile{end+1}.gt_frame = [3:6];",) * 2]
    lines.append("TestVideoFile{end+1}.gt_frame = [1:2, 4:6];")
    (root / "Test" / "UCSDped2.m").write_text("\n".join(lines) + "\n")
    (root / "Test" / "UCSDped2.m~").write_text("TestVideoFile{end+1}.gt_frame = [1:1];\n")
    (root / "Test" / "._UCSDped2.m").write_bytes(b"\0")
    (root / "Train" / "Train001" / "._001.tif").write_bytes(b"\0")
    (root / "README.txt").write_text("cite us\n")
    return root


def pool_image(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return an image uint8 (H, W, 3) BGR of water with waves."""
    rng = np.random.default_rng(seed)
    waves = 20 * np.sin(np.arange(width) / 3 + rng.uniform(0, 6)) + 10 * np.sin(np.arange(height) / 2)[:, None]
    water = np.array([190, 150, 40]) + waves[..., None] + rng.normal(0, 3, (height, width, 3))
    return water.clip(0, 255).astype(np.uint8)


def voc(filename: str, boxes: list[tuple[int, int, int, int]], height: int = 48, width: int = 64) -> str:
    """Return a Pascal VOC annotation; boxes x_min, y_min, x_max, y_max from 1, both ends inside."""
    objects = "".join(
        f"<object><name>swimmer</name><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for box in boxes
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>{filename}</filename>{size}{objects}</annotation>"


def pool_dataset(root: Path) -> Path:
    """6 training images with a swimmer each and 3 without, 4 test images with a swimmer and 2 without."""
    counts = {"train": 6, "train_empty": 3, "test": 4, "test_empty": 2}
    for number, (split, count) in enumerate(counts.items()):
        (root / split / "images").mkdir(parents=True)
        for index in range(count):
            image, name = pool_image(10 * number + index), f"{split}_{index:02d}"
            if not split.endswith("_empty"):
                x, y = 6 + 5 * index, 10 + 3 * index
                image[y : y + 9, x : x + 20] = (90, 120, 200)
                (root / split / "annotations").mkdir(exist_ok=True)
                text = voc(f"{name}.png", [(x + 1, y + 1, x + 20, y + 9)])
                (root / split / "annotations" / f"{name}.xml").write_text(text)
            cv2.imwrite(str(root / split / "images" / f"{name}.png"), image)
    return root


def write_clips(
    images: Path, labels: Path, frames: Mapping[str, Sequence[Frame]], quality: int | None = None, **info: Any
) -> None:
    """Write a clip store and its label store; `frames` are those of clips by name, such as `train/a1`."""
    about = {"dataset": "tiny", "reader": "folder", "fps": 10.0, "ordered": True, "source": "", **info}
    for name, of_clip in frames.items():
        files = [store_file(folder, name) for folder in (images, labels)]
        clips.write_clip(*files, of_clip, Storing(quality), **about)
    for folder in (images, labels):
        write_manifests(folder)


def write_features(
    folder: Path, vectors: Mapping[str, np.ndarray], regions: np.ndarray | None = None, **info: Any
) -> Path:
    """Write a feature store from the vectors of clips, float32 (T, D); `regions` (cells,) are those of each frame."""
    about = {"dataset": "tiny", "fps": 10.0, "ordered": True, **info}
    for name, of_clip in vectors.items():
        shares = None if regions is None else [np.tile(regions, (len(of_clip), 1)).astype(np.float32)]
        features.write_clip(store_file(folder, name), of_clip.shape[1], [of_clip[:7], of_clip[7:]], shares, **about)
    write_manifests(folder)
    return folder


def store_file(folder: Path, name: str) -> Path:
    """Return the file of a clip such as `train/a1` in a store that is written by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    return clip_file(folder, *name.split("/"))


def ingest_params(**changes: Any) -> dict[str, Any]:
    """Return parameters of stage `ingest` that take everything as it is."""
    nothing = dict.fromkeys(("objects", "labels", "fps", "rate", "end", "side", "quality"))
    return {**nothing, "every": 1, "start": 0.0, **changes}


def tiny_params() -> dict[str, Any]:
    """Return the repository's params.yaml with `tiny` (video) and `tinypool` alone, everything small."""
    params = YAML(typ="safe").load(REPO / "params.yaml")
    params |= {"generate": {}, "archived": {}}
    params["ingest"] = {
        "tiny": ingest_params(reader="folder", fps=10.0),
        "tinypool": ingest_params(reader="pool"),
    }
    params["inpaint"] = {"tinypool": {"method": "telea", "radius": 3.0, "margin": 1}}
    params["pool_mask"] = {"tinypool": {"confidence": 0.3, "shrink": 0.0}}
    params["composite"] = {}
    params["flow"] = {"tiny": {"algorithm": "dis", "preset": "fast", "scale": 1.0}}
    features = next(iter(params["features"].values()))
    small = {"backbone": "resnet18", "weights": "random", "height": 32, "width": 32, "batch": 8}
    cells = {"uses": "data/pools/tinypool", "layers": [1, 2], "grid": [3, 4]}
    params["features"] = {
        "tiny_net": {**features, **small, "uses": "data/clips/tiny"},
        "tinypool_cells": {**features, **small, **cells},
        "tiny_maps": {**features, **small, "uses": "data/clips/tiny", "layers": [0, 1, 2, 3, 4], "grid": None},
    }
    params["evaluate"]["bootstrap"] = 50
    params["methods"]["feature_lstm"]["train"] |= {"seeds": [0, 1], "hidden": 8, "epochs": 2}
    params["methods"]["conv_ae"]["train"] |= {"seeds": [0, 1], "scale": 0.5, "channels": [4, 4, 8, 8], "epochs": 2}
    params["methods"]["dfr"]["train"] |= {"seeds": [0, 1], "epochs": 2, "batch": 32}
    svdd = {"seeds": [0, 1], "side": 8, "channels": [4, 8], "code": 8, "pretrain_epochs": 1, "epochs": 2, "batch": 32}
    params["methods"]["deep_svdd"]["train"] |= svdd
    params["methods"]["pasted"]["train"] |= {"seeds": [0, 1], "images": 10, "epochs": 2}
    params["methods"]["reverse_distillation"]["train"] |= {"seeds": [0, 1], "epochs": 2, "layers": [0, 1]}
    params["methods"]["reverse_distillation"]["train"] |= {"depths": [1, 1]}
    # Without virtual anomalies, which cost a stage: tests/test_sdmae.py has them.
    nothing = {"composites": 0.0, "head": 0.0, "epochs": 2, "student_epochs": 1, "batch": 16}
    params["methods"]["sdmae"]["train"] |= {"seeds": [0, 1], "height": 24, "width": 32, "patch": 8, **nothing}
    adapted = {"seeds": [0, 1], **small, "backbone": "test_resnet", "steps": 4, "checkpoints": 2, "fisher_images": 3}
    params["methods"]["panda"]["train"] |= {**adapted, "frozen": 3}
    params["runs"] = {}
    for method in params["methods"]:
        cls = base.get(method)
        dataset = "tinypool" if cls.needs == "pools" or cls.features == "cells" else "tiny"
        features = {"vectors": "tiny_net", "cells": "tinypool_cells", "maps": "tiny_maps"}[cls.features]
        store = starter.uses(cls.needs, dataset, features)
        params["runs"][f"tiny_{method}"] = starter.run(dataset, method, store)
    return params


# A value of `changed_params`.
REMOVED = object()


def changed_params(**changes: Any) -> dict[str, Any]:
    """Return the small params with values set, or keys `REMOVED`, by path: `flow__tiny__preset="fast"`."""
    tree = tiny_params()
    for path, value in changes.items():
        *parents, key = path.split("__")
        section = tree
        for parent in parents:
            section = section[parent]
        if value is REMOVED:
            del section[key]
        else:
            section[key] = value
    return tree


def write_params(params: dict[str, Any], folder: Path = Path()) -> None:
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(params, file)


def prepare(uses: str) -> None:
    """Run the stages that lead to a store, in the current folder."""
    from stages import features, flow, ingest, inpaint, pool_mask

    store = Path(uses)
    if store.parent.name == "features":
        prepare(load().features[store.name].uses)
        features.main(store.name)
        return
    stages = {"clips": [ingest], "flow": [ingest, flow], "pools": [ingest, inpaint, pool_mask]}
    for stage in stages[store.parent.name]:
        stage.main(store.name)


def heed_ctrl_c() -> None:
    """Let a child process heed Ctrl-C, which a shell turns off for what it runs in the background, tests included."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


Stage = Callable[..., "subprocess.CompletedProcess[str]"]


def run_stage(name: str, *key: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a stage as DVC does, in the current folder."""
    import os

    return subprocess.run(
        [sys.executable, str(REPO / "stages" / f"{name}.py"), *key],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and the raw data sets `tiny` and `tinypool`, as the current folder."""
    monkeypatch.chdir(tmp_path)
    write_params(tiny_params())
    folder_dataset(tmp_path / "data" / "raw" / "tiny")
    pool_dataset(tmp_path / "data" / "raw" / "tinypool")
    return tmp_path
