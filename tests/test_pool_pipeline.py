"""From photographs of a pool with annotations to figures and strips, stage by stage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from stages import evaluate, ingest, inpaint, pool_mask, score, summarize, train
from tests.conftest import tiny_params, write_params
from vadpipe.errors import UserError
from vadpipe.store import images, open_store
from vadpipe.store.prepared import PreparedClip
from vadpipe.store.scores import read_map, read_pictures, read_training_maps


@pytest.fixture
def prepared(tiny: Path) -> Path:
    params = tiny_params()
    params["runs"] = {"tiny_conv_ae": params["runs"]["tiny_conv_ae"]}
    params["methods"]["conv_ae"]["train"] |= {"epochs": 80, "learning_rate": 0.01}
    write_params(params)
    for stage in (ingest, inpaint, pool_mask):
        stage.main("tinypool")
    return tiny


def test_labels_stay_behind(prepared: Path) -> None:
    """What a training reads says nothing about the test images, so a corrected label trains nothing again."""
    for clip in open_store(Path("data/pools/tinypool"), "pools").all_clips():
        assert isinstance(clip, PreparedClip)
        assert not {"label", "mask", "boxes"} & set(pq.read_schema(clip.path).names)
        filled = np.concatenate(list(clip.filled()))
        assert filled.any((1, 2)).all() == ((clip.split, clip.name) == ("train", "swimmers"))


def test_from_pools_to_the_table(prepared: Path) -> None:
    train.main("tiny_conv_ae")
    score.main("tiny_conv_ae")
    scores = Path("data/scores/tiny_conv_ae")
    assert read_map(scores, 1, "swimmers", "heat").shape == (4, 24, 32)
    # Only the training clips that it was fitted on say what is normal.
    (maps,) = read_training_maps(scores, 0, "heat").values()
    assert maps.shape == (6, 24, 32)
    assert read_pictures(scores, "swimmers")["reconstruction"].shape == (4, 24, 32, 3)
    evaluate.main("tiny_conv_ae")
    result = json.loads(Path("metrics/runs/tiny_conv_ae.json").read_text())
    assert result["recorded"]["model"]["parameters"] > 1000
    assert result["pixels"]["images"] == 6
    assert result["boxes"]["true_boxes"] == 4
    # A bright square on water is found by anything that learned water.
    assert result["pixels"]["auroc"]["mean"] > 0.8
    assert images.decode(Path("plots/tiny_conv_ae/pictures/strips.png").read_bytes()).shape[0] > 100
    summarize.main()
    text = Path("metrics/summary.md").read_text()
    assert "Pixels and boxes" in text
    assert "tiny_conv_ae" in text


def test_a_method_of_pools_refuses_plain_clips(prepared: Path) -> None:
    params = tiny_params()
    params["runs"] = {"mine": {**params["runs"]["tiny_conv_ae"], "uses": "data/clips/tinypool"}}
    write_params(params)
    with pytest.raises(UserError, match=r"runs\.mine\.uses: .* is of kind 'clips', but conv_ae needs 'pools'"):
        train.main("mine")


def test_loose_images_have_no_frames_in_time(prepared: Path) -> None:
    params = tiny_params()
    run = {**params["runs"]["tiny_frame_difference"], "dataset": "tinypool", "uses": "data/pools/tinypool"}
    params["runs"] = {"mine": run}
    write_params(params)
    with pytest.raises(UserError, match="frame_difference needs frames in time, but data/pools/tinypool holds loose"):
        train.main("mine")


def test_brightness_reads_prepared_images(prepared: Path) -> None:
    params = tiny_params()
    run = {**params["runs"]["tiny_brightness"], "dataset": "tinypool", "uses": "data/pools/tinypool"}
    params["runs"] = {"mine": run}
    write_params(params)
    train.main("mine")
    score.main("mine")
    evaluate.main("mine")
    result = json.loads(Path("metrics/runs/mine.json").read_text())
    assert result["pixels"] is None
    assert result["frames"] == 6
