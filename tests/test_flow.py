"""The flow stage and the baselines that read flow or frames."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages import flow, ingest
from tests.conftest import HEIGHT, WIDTH, store_file, tiny_params, write_clips, write_params
from vadpipe import params
from vadpipe.errors import UserError
from vadpipe.methods import base
from vadpipe.methods.brightness import Brightness
from vadpipe.methods.flow_magnitude import FlowMagnitude, ScoreParams
from vadpipe.methods.frame_difference import FrameDifference
from vadpipe.nn.cells import cell_means
from vadpipe.pictures.flow import colour_wheel
from vadpipe.prepare.flow import flows
from vadpipe.store import images, open_clips, open_store
from vadpipe.store.flow import FlowClip, write_clip
from vadpipe.store.frames import Frame

OUT = Path("data/flow/tiny")


def clips(name: str) -> FlowClip:
    return next(clip for clip in open_store(OUT, "flow").all_clips() if clip.name == name)


def moving_texture(path: Path, count: int, step: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 255, (200, 200)).astype(np.uint8), (0, 0), 2)
    path.mkdir(parents=True)
    for index in range(count):
        dy, dx = index * step[0], index * step[1]
        frame = np.roll(texture, (dy, dx), (0, 1))[40:136, 40:184]
        cv2.imwrite(str(path / f"{index:03d}.png"), frame)


@pytest.mark.parametrize("algorithm", ["dis", "farneback"])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_known_shift_is_measured_in_pixels_of_the_frame(tiny: Path, algorithm: str, scale: float) -> None:
    for split, name in (("train", "s1"), ("test", "s2")):
        moving_texture(Path("data/raw/tiny") / split / name, 5, (-1, 2))
    tree = tiny_params()
    tree["flow"]["tiny"] |= {"algorithm": algorithm, "scale": scale, "preset": "medium"}
    write_params(tree)
    ingest.main("tiny")
    flow.main("tiny")
    field = np.concatenate(list(clips("s2").chunks())).astype(np.float32)
    assert field.shape == (5, round(96 * scale), round(144 * scale), 2)
    assert np.isnan(field[0]).all()
    inside = field[1:, 10:-10, 10:-10]
    assert np.median(inside[..., 0]) == pytest.approx(2, abs=0.15)
    assert np.median(inside[..., 1]) == pytest.approx(-1, abs=0.15)
    picture = images.decode((OUT / "preview.png").read_bytes())
    assert picture.shape[1] >= 2 * 36


def test_flow_is_that_of_opencv_across_row_groups(tiny: Path) -> None:
    ingest.main("tiny")
    flow.main("tiny")
    clip = next(clip for clip in open_clips(Path("data/clips/tiny")) if clip.name == "a1")
    greys = np.concatenate(list(clip.chunks(grey=True)))
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    field = np.concatenate(list(clips("a1").chunks()))
    for index in (1, 31, 32, 33, 39):
        expected = dis.calc(greys[index - 1], greys[index], None).astype(np.float16).astype(np.float32)
        # The store keeps a 32nd of a pixel.
        assert (field[index] == np.round(expected * 32) / 32).all()


def test_one_core_and_two_give_the_same(tiny: Path) -> None:
    ingest.main("tiny")
    clip = open_clips(Path("data/clips/tiny"))[0]
    values = params.load().flow["tiny"]
    one, two = ([field for _, chunk in flows([clip], values, n) for field in chunk] for n in (1, 2))
    assert one[0] is None
    assert two[0] is None
    assert all((a == b).all() for a, b in zip(one[1:], two[1:], strict=True))


def test_colour_wheel() -> None:
    field = np.zeros((2, 2, 2), np.float16)
    field[0, 0] = (4, 0)
    field[0, 1] = (-4, 0)
    field[1, 0] = np.nan
    colours = colour_wheel(field, 4.0)
    assert colours[1, 1].tolist() == colours[1, 0].tolist() == [255, 255, 255]
    assert colours[0, 0].tolist() == [255, 0, 0]
    assert colours[0, 1].tolist() == [0, 255, 255]


def test_cell_means_equal_loops() -> None:
    values = np.random.default_rng(1).normal(size=(3, 11, 13)).astype(np.float32)
    cells = cell_means(values, 4, 5)
    assert cells.shape == (3, 3, 3)
    for row in range(3):
        for column in range(3):
            part = values[:, row * 4 : row * 4 + 4, column * 5 : column * 5 + 5]
            assert cells[:, row, column] == pytest.approx(part.mean((1, 2)), abs=1e-6)


def synthetic_flow(folder: Path, speeds: list[float], grid: tuple[int, int] = (24, 36), frame: int = 24) -> FlowClip:
    fields = []
    for index, speed in enumerate(speeds):
        field = np.zeros((*grid, 2), np.float16)
        field[4:12, 4:12, 0] = speed
        fields.append(None if index == 0 else field)
    path = store_file(folder, "test/c")
    write_clip(
        path,
        [fields[:32], fields[32:]] if len(fields) > 32 else [fields],
        *grid,
        dataset="d",
        fps=10.0,
        frame_height=frame,
        frame_width=frame * grid[1] // grid[0],
    )
    return FlowClip(path)


def test_flow_magnitude_is_the_fastest_cell(tmp_path: Path) -> None:
    clip = synthetic_flow(tmp_path, [0, 1, 2, 0.5, *[1.0] * 40])
    method = FlowMagnitude(None, ScoreParams(cell=8))
    chunks = list(method.score(clip))
    scores = np.concatenate([chunk.components["magnitude"] for chunk in chunks])
    assert np.isnan(scores[0])
    # The square from 4 to 12 lies across the cells: a quarter of four of them.
    assert scores[1:4].tolist() == [0.25, 0.5, 0.125]
    assert FlowMagnitude(None, ScoreParams(cell=4)).score(clip).__next__().components["magnitude"][1] == 1
    assert chunks[0].maps["magnitude"].shape == (32, 3, 5)


def test_cells_are_pixels_of_the_frame(tmp_path: Path) -> None:
    clip = synthetic_flow(tmp_path, [0, 1], grid=(24, 36), frame=48)
    assert clip.cell(8) == (4, 4)
    assert clip.cell(1) == (1, 1)


def test_frame_difference_and_brightness_by_hand(tiny: Path) -> None:
    ingest.main("tiny")
    store = open_store(Path("data/clips/tiny"), "clips")
    clip = next(clip for clip in store.clips("test") if clip.name == "b1")
    greys = np.concatenate(list(clip.chunks(grey=True))).astype(float)
    found = np.concatenate([chunk.components["difference"] for chunk in FrameDifference(None, None).score(clip)])
    assert np.isnan(found[0])
    assert found[1:] == pytest.approx(np.abs(np.diff(greys, axis=0)).mean((1, 2)), rel=1e-5)
    method = Brightness(None, None)
    method.fit(store, base.Fit(0, Path("unused")))
    train = np.concatenate([np.concatenate(list(other.chunks(grey=True))) for other in store.clips("train")])
    found = np.concatenate([chunk.components["brightness"] for chunk in method.score(clip)])
    assert found == pytest.approx(np.abs(greys.mean((1, 2)) - train.mean()), rel=1e-4, abs=1e-4)


def test_loose_images_are_refused_by_temporal_methods(tiny: Path) -> None:
    from stages import train

    frames = [Frame("f", np.zeros((HEIGHT, WIDTH), np.uint8), label=0)] * 2
    stores = Path("data/clips/tiny"), Path("data/labels/tiny")
    write_clips(*stores, {"train/x": frames, "test/x": frames}, ordered=False)
    with pytest.raises(UserError, match="needs frames in time"):
        train.main("tiny_frame_difference")
    with pytest.raises(UserError, match="no motion"):
        flow.main("tiny")
    train.main("tiny_brightness")
    assert json.loads(Path("models/tiny_brightness/0/brightness.json").read_text()) == {"mean": 0.0}


def test_wrong_kind_of_store_behind_the_path(tiny: Path) -> None:
    ingest.main("tiny")
    with pytest.raises(UserError, match="kind 'clips', but 'flow' is wanted"):
        open_store(Path("data/clips/tiny"), "flow")
    with pytest.raises(UserError, match="run `dvc repro`"):
        open_store(Path("data/flow/tiny"), "flow")
