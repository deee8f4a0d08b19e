"""Stage `composite`: virtual anomalies pasted into copies of training clips."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.conftest import SPRITES, write_clips
from vadpipe.datasets import ubnormal
from vadpipe.errors import UserError
from vadpipe.params import Composite, parse
from vadpipe.prepare.composite import write_composites
from vadpipe.prepare.composite.cutting import cut_source, cut_video, decoded
from vadpipe.prepare.composite.pasting import AS_IT_IS, matched
from vadpipe.prepare.composite.walkers import Walkers, observe
from vadpipe.scenes import generate
from vadpipe.store import open_store
from vadpipe.store.composites import CompositeClip
from vadpipe.store.frames import Frame
from vadpipe.store.video import Video

HEIGHT, WIDTH, FPS = SPRITES["height"], SPRITES["width"], SPRITES["fps"]


@pytest.fixture(scope="module")
def sprites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "sprites"
    generate("sprites", SPRITES, folder)
    return folder


@pytest.fixture
def source(sprites: Path, tmp_path: Path) -> Path:
    """A copy of the source that a test may break."""
    return Path(shutil.copytree(sprites, tmp_path / "sprites"))


def params(source: Path, **changes: Any) -> Composite:
    values = {
        "source": str(source), "seed": 0, "share": 1.0, "objects": 2, "place": "source", "scale": "source",
        "sizes": [1.0, 1.0], "area": [0.001, 0.2], "grey": False, "edge": 0.0,
    }  # fmt: skip
    return parse(Composite, {**values, **changes}, "composite.tiny")


def still(seed: int, count: int, channels: int = 3) -> list[Frame]:
    rng = np.random.default_rng(seed)
    shape = (HEIGHT, WIDTH, 3) if channels == 3 else (HEIGHT, WIDTH)
    return [Frame(f"{index}.png", rng.integers(90, 130, shape).astype(np.uint8)) for index in range(count)]


def store(folder: Path, channels: int = 3, fps: float = FPS, names: str = "abc") -> Path:
    """Write a clip store with a training clip of 40 frames for each name, and a test clip."""
    clips = {f"train/{name}": still(ord(name), 40, channels) for name in names} | {"test/t": still(1, 6, channels)}
    write_clips(folder / "clips", folder / "labels", clips, fps=fps)
    return folder / "clips"


def walked(folder: Path) -> Path:
    """Write clips in which people, dark bars, walk on a plaza; their height is 0.25 of the row of their feet."""

    def frames(seed: int, count: int) -> list[Frame]:
        rng = np.random.default_rng(seed)
        feet = rng.integers(44, 90, 6)
        start, pace = rng.uniform(0, WIDTH, 6), rng.uniform(2, 4, 6)
        made = []
        for index in range(count):
            image = np.full((HEIGHT, WIDTH, 3), 140, np.uint8)
            for foot, x0, speed in zip(feet.tolist(), start, pace, strict=True):
                x, tall = int(x0 + speed * index) % WIDTH, round(0.25 * foot)
                image[foot - tall : foot, x : x + max(3, tall // 3)] = 60
            made.append(Frame(f"{index}.png", image))
        return made

    clips = {f"train/{name}": frames(ord(name), 40) for name in "ab"} | {"test/t": frames(1, 6)}
    write_clips(folder / "clips", folder / "labels", clips, fps=FPS)
    return folder / "clips"


def made(values: Composite, clips: Path, out: Path) -> dict[str, CompositeClip]:
    write_composites(values, clips, out)
    return {f"{clip.split}/{clip.name}": clip for clip in open_store(out, "composites").all_clips()}


def frames_of(clip: CompositeClip) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the clean frames, those with what was pasted, and where."""
    return tuple(np.concatenate(list(part)) for part in (clip.chunks(), clip.composites(), clip.pasted()))


def videos(source: Path) -> dict[str, Path]:
    return {path.stem: path for path in source.glob("Scene*/abnormal*.avi")}


def test_a_hard_paste_at_scale_one_shows_the_pixels_of_the_source(sprites: Path, tmp_path: Path) -> None:
    """Twin: object, mask and place straight from video and id map."""
    clips = made(params(sprites, objects=1), store(tmp_path), tmp_path / "out")
    found = videos(sprites)
    pictures = {name: [frame.pixels for frame in Video(path).frames()] for name, path in found.items()}
    for name in "abc":
        clean, composite, pasted = frames_of(clips[f"train/{name}"])
        origins = clips[f"train/{name}"].column("provenance")
        for index, origin in enumerate(origins):
            (one,) = origin
            ids = ubnormal.read_id_map(ubnormal.id_maps(found[one["source"]])[one["frame"]], HEIGHT, WIDTH)
            expected = np.where((ids == one["track"])[..., None], pictures[one["source"]][one["frame"]], clean[index])
            assert (pasted[index] == (ids == one["track"])).all()
            assert (composite[index] == expected).all()


def test_only_what_was_pasted_changes_and_clean_frames_keep_their_bytes(sprites: Path, tmp_path: Path) -> None:
    clips = store(tmp_path)
    edge = 1.0
    out = made(params(sprites, edge=edge, sizes=[0.6, 1.5]), clips, tmp_path / "out")
    for before in open_store(clips, "clips").all_clips():
        after = out[f"{before.split}/{before.name}"]
        assert list(before.encoded()) == list(after.encoded())
        assert before.column("name") == after.column("name")
        clean, composite, pasted = frames_of(after)
        for index in range(before.length):
            around = cv2.dilate(pasted[index].astype(np.uint8), np.ones((11, 11), np.uint8)) > 0
            assert (composite[index] == clean[index])[~around].all()
        if before.split == "test":
            assert not after.has_composites
            assert not pasted.any()
        else:
            assert after.has_composites
            assert (composite != clean).any(-1)[pasted].mean() > 0.9


def test_the_store_serves_as_clips_and_says_what_it_is(sprites: Path, tmp_path: Path) -> None:
    made(params(sprites), store(tmp_path), tmp_path / "out")
    opened = open_store(tmp_path / "out", "clips")
    assert opened.kind == opened.info["kind"] == "composites"
    assert opened.info["composite"]["source"] == str(sprites)
    assert opened.info["fps"] == FPS
    assert (tmp_path / "out" / "preview.png").stat().st_size > 1000


def test_a_sequence_stays_together_and_its_frames_follow_each_other(sprites: Path, tmp_path: Path) -> None:
    clips = made(params(sprites, objects=1, sizes=[0.7, 1.4], place="ground", scale="person", area=[0.001, 0.5]),
                 walked(tmp_path), tmp_path / "out")  # fmt: skip
    for name in "ab":
        rows = [origin[0] for origin in clips[f"train/{name}"].column("provenance")]
        changes = 0
        for before, after in pairwise(rows):
            same = (before["source"], before["track"], before["scale"]) == (
                after["source"], after["track"], after["scale"],
            )  # fmt: skip
            if not same or after["frame"] != before["frame"] + 1:
                changes += 1
                continue
            # Between two frames nobody jumps.
            assert abs(after["x"] - before["x"]) < 30
            assert after["mirrored"] == before["mirrored"]
        assert changes <= 12


def test_frames_of_the_source_are_taken_at_the_times_of_the_target(sprites: Path, tmp_path: Path) -> None:
    clips = made(params(sprites, objects=1), store(tmp_path, fps=FPS / 2), tmp_path / "out")
    rows = [origin[0] for origin in clips["train/a"].column("provenance")]
    steps = [b["frame"] - a["frame"] for a, b in pairwise(rows)
             if (a["source"], a["track"]) == (b["source"], b["track"]) and b["frame"] > a["frame"]]  # fmt: skip
    assert set(steps) == {2}


def test_equal_seeds_give_equal_bytes_and_other_seeds_others(sprites: Path, tmp_path: Path) -> None:
    clips = store(tmp_path)
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write_composites(params(sprites, seed=seed), clips, tmp_path / name)

    def bytes_of(name: str) -> list[bytes]:
        return [path.read_bytes() for path in sorted((tmp_path / name).rglob("*.parquet"))]

    assert bytes_of("one") == bytes_of("same")
    assert bytes_of("one") != bytes_of("other")


def test_a_clip_does_not_depend_on_the_clips_beside_it(sprites: Path, tmp_path: Path) -> None:
    all_three = made(params(sprites), store(tmp_path / "3"), tmp_path / "three")
    alone = made(params(sprites), store(tmp_path / "1", names="b"), tmp_path / "alone")
    assert alone["train/b"].column("provenance") == all_three["train/b"].column("provenance")
    assert alone["train/b"].column("composite") == all_three["train/b"].column("composite")


@pytest.mark.parametrize(("share", "count"), [(1.0, 3), (0.67, 2), (0.34, 1), (0.01, 1)])
def test_a_share_of_the_clips_is_pasted_into(sprites: Path, tmp_path: Path, share: float, count: int) -> None:
    clips = made(params(sprites, share=share), store(tmp_path), tmp_path / "out")
    assert sum(clip.has_composites for clip in clips.values()) == count


def test_areas_keep_their_limits(sprites: Path, tmp_path: Path) -> None:
    clips = made(params(sprites, objects=1, area=[0.005, 0.03]), store(tmp_path), tmp_path / "out")
    shares = np.concatenate([pasted.mean((1, 2)) for pasted in clips["train/a"].pasted()])
    assert shares.min() >= 0.005
    assert shares.max() <= 0.03


def test_people_are_as_tall_as_training_shows_them_in_that_row(sprites: Path, tmp_path: Path) -> None:
    clips = walked(tmp_path)
    walkers = observe(open_store(clips, "clips").clips("train")[0])
    intercept, slope = walkers.typical()
    for row in (50, 65, 85):
        # Two behind each other count as one, and taller.
        assert intercept + slope * row == pytest.approx(0.25 * row, abs=3)
    values = params(sprites, objects=1, place="ground", scale="person", area=[0.0005, 0.5])
    out = made(values, clips, tmp_path / "out")["train/a"]
    tallest: dict[tuple[Any, ...], tuple[int, float]] = {}
    pasted = np.concatenate(list(out.pasted()))
    for mask, (origin,) in zip(pasted, out.column("provenance"), strict=True):
        rows = np.flatnonzero(mask.any(1))
        inside = rows[0] > 0 and rows[-1] < HEIGHT - 1
        key = origin["source"], origin["track"], origin["scale"]
        if inside and len(rows) > tallest.get(key, (0, 0.0))[0]:
            tallest[key] = len(rows), origin["y"]
    assert tallest
    heights = [height / (0.25 * row) for height, row in tallest.values()]
    # The whole figures of a sequence may be smaller than its tallest, but not by much.
    assert max(heights) < 1.35
    assert np.median(heights) > 0.6


def test_on_the_ground_objects_stand_where_people_walk_and_are_whole(sprites: Path, tmp_path: Path) -> None:
    clips = walked(tmp_path)
    values = params(sprites, place="ground", scale="person", objects=1, area=[0.0005, 0.5])
    out = made(values, clips, tmp_path / "out")
    ground = observe(open_store(clips, "clips").clips("train")[0]).ground()
    assert not ground[:40].any()
    assert ground[44:90].any()
    whole = {(sequence.source, sequence.track, sequence.first + index): one.whole
             for sequence in cut_source(sprites) for index, one in enumerate(sequence.cutouts) if one}  # fmt: skip
    for origins in out["train/a"].column("provenance"):
        assert all(whole[one["source"], one["track"], one["frame"]] for one in origins)


def test_grey_frames_stay_grey_and_what_is_pasted_is_as_bright_as_people(sprites: Path, tmp_path: Path) -> None:
    clips = made(params(sprites), store(tmp_path, channels=1), tmp_path / "out")
    composite = np.concatenate(list(clips["train/a"].composites()))
    assert (composite[..., 0] == composite[..., 2]).all()
    x = np.zeros(20)
    people = Walkers(x, x, x, np.tile([60.0, 10.0], (20, 1)), (HEIGHT, WIDTH))
    tone = matched((100.0, 8.0), people)
    assert tone.gain * 100 + tone.offset == pytest.approx(60)
    assert tone.gain == pytest.approx(10 / 8)
    few = Walkers(x[:3], x[:3], x[:3], np.tile([60.0, 10.0], (3, 1)), (HEIGHT, WIDTH))
    assert matched((100.0, 8.0), few) == AS_IT_IS


def test_the_edge_of_a_cutout_shows_nothing_of_its_background(sprites: Path) -> None:
    sequence = cut_video(next(iter(videos(sprites).values())))[0]
    one = next(cutout for cutout in sequence.cutouts if cutout is not None)
    pixels = decoded(one)
    assert pixels.shape == (one.height, one.box[2] - one.box[0], 4)
    inside = pixels[pixels[..., 3] == 255][:, :3]
    outside = pixels[pixels[..., 3] == 0][:, :3]
    assert {tuple(colour) for colour in outside.tolist()} <= {tuple(colour) for colour in inside.tolist()}


def maps_of(source: Path) -> list[Path]:
    return ubnormal.id_maps(source / "Scene1" / "abnormal_scene_1_scenario_1.avi")


def tracks_of(source: Path) -> Path:
    return source / "Scene1" / "abnormal_scene_1_scenario_1_annotations" / "abnormal_scene_1_scenario_1_tracks.txt"


def lists_of(source: Path) -> Path:
    return source / "scripts" / "abnormal_training_video_names.txt"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "sprites is not there"),
        (lambda source: lists_of(source).unlink(), "abnormal_training_video_names.txt is not there"),
        (lambda source: lists_of(source).write_text(""), "names no video"),
        (lambda source: lists_of(source).write_text("abnormal_scene_9_scenario_9"), "1 of its 1 videos are not there"),
        (lambda source: tracks_of(source).unlink(), "tracks.txt"),
        (lambda source: tracks_of(source).write_text("1,0\n"), "line 1: cannot read '1,0'"),
        (lambda source: tracks_of(source).write_text("77,0,11\n"), "names object 77 in frames 0 to 11, but no id map"),
        (lambda source: tracks_of(source).write_text("1,0,12\n"), "up to frame 12, counted from 0, but .* 12 frames"),
        (lambda source: [path.unlink() for path in maps_of(source)], "holds no id maps"),
        (lambda source: maps_of(source)[-1].unlink(), "holds 11 id maps, the video .* 12 frames"),
        (lambda source: maps_of(source)[4].unlink(), "0004_gt.png is missing among the id maps"),
        (lambda source: maps_of(source)[4].write_bytes(b"no"), "0004_gt.png: "),
        (lambda source: maps_of(source)[3].write_bytes(cv2.imencode(".png", np.zeros((9, 9), np.uint8))[1].tobytes()),
         r"has \(9, 9\) pixels, fewer than its frame"),
    ],
)  # fmt: skip
def test_a_source_with_a_broken_part_is_refused_with_the_part_named(
    source: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(source)
    with pytest.raises(UserError, match=message):
        write_composites(params(source), store(tmp_path / "data"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("area", "message"),
    [([0.5, 0.9], r"none of the \d+ sequences of .* \d+ are too small"),
     ([0.00001, 0.0001], r"none of the \d+ sequences of .* \d+ are too large")],
)  # fmt: skip
def test_sequences_that_are_all_too_small_or_too_large_end_with_how_many(
    sprites: Path, tmp_path: Path, area: list[float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        write_composites(params(sprites, area=area), store(tmp_path), tmp_path / "out")


def test_places_and_scales_of_people_need_people(sprites: Path, tmp_path: Path) -> None:
    for changes in ({"place": "ground"}, {"scale": "person"}):
        with pytest.raises(UserError, match="too few people on foot"):
            write_composites(params(sprites, **changes), store(tmp_path / "data"), tmp_path / "out")
        shutil.rmtree(tmp_path / "data")


def test_loose_images_are_refused(sprites: Path, tmp_path: Path) -> None:
    frames = {"train/a": still(1, 3), "test/t": still(2, 3)}
    write_clips(tmp_path / "clips", tmp_path / "labels", frames, ordered=False)
    with pytest.raises(UserError, match="loose images"):
        write_composites(params(sprites), tmp_path / "clips", tmp_path / "out")
