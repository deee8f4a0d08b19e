"""Small data sets on disk, in the layouts that the readers read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ruamel.yaml import YAML

from vadpipe.methods import base

REPO = Path(__file__).resolve().parent.parent
HEIGHT, WIDTH = 24, 36


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
    """Two training and three test clips in the layout of `folder`; test clip b1 is fast from frame 10 to 19."""
    write_frames(root / "train" / "a1", 40)
    write_video(root / "train" / "a2.avi", 36)
    write_frames(root / "test" / "b1", 34, ".png")
    write_video(root / "test" / "b2.avi", 33, speed=2)
    write_frames(root / "test" / "b3", 12)
    (root / "labels.csv").write_text("clip,first,last\nb1,10,19\nb2,0,4\nb2,6,32\n")
    masks = np.zeros((34, HEIGHT, WIDTH), np.uint8)
    masks[10:20, 8:16, 4:12] = 255
    (root / "masks").mkdir()
    np.save(root / "masks" / "b1.npy", masks)
    (root / "tracks.csv").write_text("clip,track,frame,x_min,y_min,x_max,y_max\nb1,0,10,4,8,12,16\n")
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


def tiny_params() -> dict[str, Any]:
    """Return the repository's params.yaml with the data set `tiny` instead of `campus`, everything small."""
    params = YAML(typ="safe").load(REPO / "params.yaml")
    params["generate"] = {}
    params["ingest"] = {"tiny": {"reader": "folder", "fps": 10.0, "quality": None}}
    params["flow"] = {"tiny": {"algorithm": "dis", "preset": "fast", "scale": 1.0}}
    features = next(iter(params["features"].values()))
    small = {"dataset": "tiny", "backbone": "resnet18", "weights": "random", "height": 32, "width": 32, "batch": 8}
    params["features"] = {"tiny_net": {**features, **small}}
    stores = {"clips": "data/clips/tiny", "flow": "data/flow/tiny", "features": "data/features/tiny_net.parquet"}
    params["evaluate"]["bootstrap"] = 50
    params["methods"]["feature_lstm"]["train"] |= {"seeds": [0, 1], "hidden": 8, "epochs": 2}
    params["runs"] = {
        f"tiny_{method}": {
            "dataset": "tiny",
            "method": method,
            "uses": stores[base.get(method).needs],
            **{key: {} for key in ("train", "score", "evaluate")},
        }
        for method in params["methods"]
    }
    return params


def write_params(params: dict[str, Any], folder: Path = Path()) -> None:
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(params, file)


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
    """A folder with params.yaml and the raw data set `tiny`, as the current folder."""
    monkeypatch.chdir(tmp_path)
    write_params(tiny_params())
    folder_dataset(tmp_path / "data" / "raw" / "tiny")
    return tmp_path
