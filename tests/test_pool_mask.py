"""Stage `pool_mask`: the region of the pool in drawn images of many tints and views."""

from __future__ import annotations

from functools import partial
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest

from stages import pool_mask as stage
from tests.conftest import tiny_params, write_clips, write_params
from vadpipe.errors import UserError
from vadpipe.params import Inpaint, PoolMask
from vadpipe.prepare.inpaint import write_inpainted
from vadpipe.prepare.pool_mask import Pool, find_pool, write_pools
from vadpipe.prepare.pool_mask.basins import basins
from vadpipe.prepare.pool_mask.convex import best_region, filled, outline
from vadpipe.prepare.pool_mask.masks import agreement, shrunk
from vadpipe.store import images, open_store
from vadpipe.store.frames import Frame
from vadpipe.store.prepared import PreparedClip

HEIGHT, WIDTH = 240, 400
TINTS = {"turquoise": (60, 190, 200), "deep blue": (20, 70, 160), "green": (50, 140, 100), "pale": (130, 190, 215)}
OBLIQUE = np.array([[40, 200], [120, 60], [330, 40], [380, 150]])
CUT_OFF = np.array([[-60, 150], [160, 50], [460, 90], [300, 320]])
FLAT = np.array([[20, 90], [380, 90], [399, 180], [5, 185]])
DEFAULT = PoolMask(confidence=0.3, shrink=0.0)
INPAINT = Inpaint(method="telea", radius=3.0, margin=2)


def textured(colour: tuple[int, int, int], seed: int, waves: float = 12.0) -> images.Image:
    """Return noise of two scales around a colour, uint8 (HEIGHT, WIDTH, 3)."""
    rng = np.random.default_rng(seed)
    coarse = cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH)), (0, 0), 5)
    fine = rng.normal(size=(HEIGHT, WIDTH, 1))
    light = coarse[..., None] / coarse.std() * waves + fine * 4
    return np.clip(np.array(colour) * (1 + light / 100), 0, 255).astype(np.uint8)


def area(corners: np.ndarray) -> np.ndarray:
    return filled(corners.astype(np.float32), HEIGHT, WIDTH)


def pool(
    tint: tuple[int, int, int],
    corners: np.ndarray,
    deck: tuple[int, int, int] = (205, 200, 195),
    seed: int = 0,
    ropes: int = 5,
) -> images.Image:
    """Draw a pool on a deck, with ropes between its left and its right side, and glitter."""
    image = textured(deck, seed + 50, 3.0)
    inside = area(corners)
    image[inside] = textured(tint, seed)[inside]
    rng = np.random.default_rng(seed)
    for x, y in rng.integers(0, (WIDTH, HEIGHT), (60, 2)):
        if inside[y, x]:
            cv2.ellipse(image, (int(x), int(y)), (4, 1), 0, 0, 360, (250, 250, 250), -1)
    top_left, top_right, bottom_right, bottom_left = corners[[1, 2, 3, 0]].astype(float)
    for share in np.linspace(0, 1, ropes + 2)[1:-1]:
        left, right = top_left + share * (bottom_left - top_left), top_right + share * (bottom_right - top_right)
        ends = [tuple(int(v) for v in end.round()) for end in (left, right)]
        cv2.line(image, ends[0], ends[1], (200, 40, 30), 2, cv2.LINE_AA)
    return image


def overlap(found: Pool, corners: np.ndarray) -> float:
    return agreement(found.region, area(corners))


@pytest.mark.parametrize("tint", TINTS)
@pytest.mark.parametrize("corners", [OBLIQUE, CUT_OFF, FLAT], ids=["oblique", "cut off", "flat"])
def test_pools_of_all_tints_are_found(tint: str, corners: np.ndarray) -> None:
    found = find_pool(pool(TINTS[tint], corners), DEFAULT)
    assert found.technique != "whole image"
    assert found.confidence > 0.7
    assert overlap(found, corners) > 0.93


@pytest.mark.parametrize("deck", [(250, 250, 250), (120, 90, 70), (60, 60, 60)])
def test_decks(deck: tuple[int, int, int]) -> None:
    assert overlap(find_pool(pool(TINTS["turquoise"], OBLIQUE, deck), DEFAULT), OBLIQUE) > 0.93


def test_blue_banners_and_sky_stay_outside() -> None:
    image = pool(TINTS["turquoise"], FLAT)
    image[:30] = textured((120, 170, 235), 7, 3.0)[:30]
    image[45:70, 30:360] = textured((30, 50, 170), 8, 3.0)[45:70, 30:360]
    image[205:235, 200:390] = textured((20, 60, 200), 9, 3.0)[205:235, 200:390]
    assert overlap(find_pool(image, DEFAULT), FLAT) > 0.9


def test_a_banner_of_the_colour_of_the_water_is_cut_off() -> None:
    image = pool(TINTS["turquoise"], FLAT)
    image[40:60, 150:220] = TINTS["turquoise"]
    image[60:90, 180:186] = TINTS["turquoise"]
    assert overlap(find_pool(image, DEFAULT), FLAT) > 0.9


def test_a_large_image_gives_a_region_of_its_size() -> None:
    image = pool(TINTS["turquoise"], OBLIQUE)
    large = cv2.resize(image, (WIDTH * 4 + 3, HEIGHT * 4 + 1), interpolation=cv2.INTER_LINEAR)
    found = find_pool(large, DEFAULT)
    assert found.region.shape == large.shape[:2]
    small = cv2.resize(found.region.astype(np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) > 0
    assert agreement(small, area(OBLIQUE)) > 0.93


def test_under_water_the_view_is_the_pool() -> None:
    depth = np.linspace(0.45, 1.25, HEIGHT)[:, None, None]
    image = np.clip(textured((25, 110, 190), 3) * depth, 0, 255).astype(np.uint8)
    image[100:140, 180:260] = (150, 110, 90)
    found = find_pool(image, DEFAULT)
    assert found.technique == "water"
    assert found.confidence > 0.8
    assert found.region.mean() > 0.97


@pytest.mark.parametrize("colour", [(128, 128, 128), (130, 90, 60), (170, 40, 40), (220, 210, 150)])
def test_no_pool(colour: tuple[int, int, int]) -> None:
    found = find_pool(textured(colour, 1), DEFAULT)
    assert found.technique == "whole image"
    assert found.confidence == 0
    assert found.region.all()


def test_a_grey_image_has_no_pool() -> None:
    grey = cv2.cvtColor(pool(TINTS["turquoise"], OBLIQUE), cv2.COLOR_RGB2GRAY)
    found = find_pool(np.repeat(grey[..., None], 3, axis=2), DEFAULT)
    assert (found.technique, found.confidence) == ("whole image", 0)
    assert found.region.all()


def test_water_without_colour_is_found_by_its_ropes() -> None:
    image = pool((150, 150, 152), FLAT, (90, 60, 50), ropes=6)
    found = find_pool(image, DEFAULT)
    assert found.technique == "lanes"
    assert found.confidence > 0.5
    assert overlap(found, FLAT) > 0.85


@pytest.mark.parametrize("tint", [(123, 162, 165), (100, 130, 140)])
@pytest.mark.parametrize("corners", [OBLIQUE, CUT_OFF], ids=["oblique", "cut off"])
def test_a_grey_deck_beside_dull_water_stays_outside(tint: tuple[int, int, int], corners: np.ndarray) -> None:
    image = pool(tint, corners, (150, 148, 146), ropes=6)
    assert overlap(find_pool(image, DEFAULT), corners) > 0.93


def test_below_the_confidence_the_whole_image_is_taken() -> None:
    image = pool(TINTS["turquoise"], OBLIQUE)
    sure = find_pool(image, DEFAULT)
    assert 0.3 < sure.confidence < 1
    found = find_pool(image, PoolMask(confidence=1.0, shrink=0.0))
    assert (found.technique, found.confidence) == ("whole image", 0)
    assert found.region.all()
    assert set(found.hulls) >= {"water"}


def test_shrink() -> None:
    image = pool(TINTS["turquoise"], OBLIQUE)
    whole, half = (find_pool(image, PoolMask(confidence=0.3, shrink=share)).region for share in (0.0, 0.1))
    assert (whole | half == whole).all()
    assert 0.5 < half.sum() / whole.sum() < 0.75
    mask = np.zeros((60, 80), bool)
    mask[10:30, 20:70] = True
    assert shrunk(mask, 0.25).sum() == pytest.approx(10 * 40, abs=60)
    assert shrunk(mask, 0.49).any()
    # Beyond the border of the image the pool goes on.
    mask[:, :] = False
    mask[:, :40] = True
    assert shrunk(mask, 0.25)[:, :19].all()
    assert shrunk(np.ones((9, 9), bool), 0.4).all()


def test_best_region_leaves_spikes_and_keeps_holes() -> None:
    truth = area(OBLIQUE)
    water = truth.copy()
    water[100:130, 200:230] = False
    water[0:60, 200:205] = True
    assert agreement(best_region(water), truth) > 0.96
    assert not best_region(np.zeros((30, 40), bool)).any()
    assert best_region(np.ones((30, 40), bool)).all()
    points = outline(best_region(water))
    assert points is not None
    assert cv2.isContourConvex(points)


def test_basins_part_at_valleys() -> None:
    histogram = np.zeros((4, 4, 12), np.float32)
    histogram[1, 1] = [0, 10, 9, 8, 2, 6, 7, 5, 6, 0.1, 9, 0]
    labels = basins(histogram)[1, 1]
    assert labels[0] == labels[9] == labels[11] == 0
    assert len(set(labels[1:4])) == len(set(labels[5:9])) == 1
    assert len({labels[1], labels[5], labels[10]}) == 3


def write_inputs(folder: Path) -> Path:
    box = {"track": 0, "x_min": 200, "y_min": 100, "x_max": 230, "y_max": 120}
    no_pool = textured((130, 90, 60), 1)
    clips = {
        "train/swimmers": [Frame(f"t{seed}", pool(TINTS["green"], FLAT, seed=seed), boxes=[box]) for seed in range(3)],
        "test/swimmers": [
            Frame("s0", pool(TINTS["turquoise"], OBLIQUE), boxes=[box]),
            *(Frame(f"none{index}", no_pool) for index in range(4)),
        ],
        "test/empty": [Frame("e0", pool(TINTS["turquoise"], CUT_OFF), boxes=[])],
    }
    stores = folder / "clips", folder / "labels"
    write_clips(*stores, clips, 90, reader="pool", fps=None, ordered=False)
    write_inpainted(INPAINT, *stores, folder / "inpainted")
    return folder / "inpainted"


def opened(folder: Path) -> dict[str, PreparedClip]:
    return {f"{clip.split}/{clip.name}": clip for clip in open_store(folder, "pools").all_clips()}


def test_round_trip_through_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = write_inputs(tmp_path), tmp_path / "pools"
    capsys.readouterr()
    write_pools(DEFAULT, source, out)
    clips = opened(out)
    for name, clip in clips.items():
        before = next(one for one in open_store(source).all_clips() if f"{one.split}/{one.name}" == name)
        assert list(chain(*clip.encoded())) == list(chain(*before.encoded()))
        assert clip.column("name") == before.column("name")
        filled_areas = [np.concatenate(list(one.filled())) for one in (clip, before)]
        assert (filled_areas[0] == filled_areas[1]).all()
        expected = [find_pool(frame, DEFAULT) for frame in np.concatenate(list(clip.chunks()))]
        assert (np.concatenate(list(clip.regions())) == np.stack([found.region for found in expected])).all()
        assert clip.column("confidence") == pytest.approx([found.confidence for found in expected])
    test = clips["test/swimmers"]
    assert test.column("confidence")[1:] == [0] * 4
    assert {name: clip.column("confidence").count(0) for name, clip in clips.items()} == {
        "train/swimmers": 0,
        "test/swimmers": 4,
        "test/empty": 0,
    }
    said = capsys.readouterr().out
    assert "no pool was found in 4 of 5 images of test/swimmers" in said
    assert "whole image: none0, none1, none2, ..." in said
    assert "9 images" in said.splitlines()[-1]
    sheet = images.decode((out / "preview.png").read_bytes())
    assert sheet.shape[1] == 2 * 484


def test_one_core_and_two_give_the_same(tmp_path: Path) -> None:
    source = write_inputs(tmp_path)
    for workers in (1, 2):
        write_pools(DEFAULT, source, tmp_path / str(workers), workers)
    for file in ("train/swimmers.parquet", "test/empty.parquet", "test/swimmers.parquet", "preview.png"):
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()


def test_the_stage(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = tiny_params()
    changes = {"inpaint": {"tiny": INPAINT}, "pool_mask": {"tiny": DEFAULT}}
    tree |= {section: {key: item.model_dump() for key, item in items.items()} for section, items in changes.items()}
    write_params(tree | {"features": {}, "runs": {}})
    write_inputs(Path("data/tiny"))
    Path("data/inpainted").mkdir()
    Path("data/tiny/inpainted").rename("data/inpainted/tiny")
    stage.main("tiny")
    assert "images/s -> data/pools/tiny (look at data/pools/tiny/preview.png)" in capsys.readouterr().out


def test_another_kind_of_store_is_refused(tmp_path: Path) -> None:
    write_inputs(tmp_path)
    refused = partial(write_pools, DEFAULT, tmp_path / "clips", tmp_path / "pools")
    with pytest.raises(UserError, match="kind 'clips', but 'inpainted' is wanted"):
        refused()
