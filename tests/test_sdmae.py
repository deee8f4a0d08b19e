"""`sdmae`: networks, masks, motion weights, losses, training in two phases, and scores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests import plain_sdmae
from tests.conftest import HEIGHT, REPO, WIDTH, draw, tiny_params, write_clips
from vadpipe.errors import UserError
from vadpipe.methods.base import Fit
from vadpipe.methods.sdmae import ScoreParams, Sdmae, TrainParams, _triples, in_range
from vadpipe.nn.cvt import CvtBlock, DenseMlp, fold_norms
from vadpipe.nn.masked_autoencoder import Layout, Student, Teacher, draw_masks, to_patches
from vadpipe.nn.saved import parameters
from vadpipe.params import parse
from vadpipe.store import Store, open_store
from vadpipe.store.base import clip_file, write_manifests
from vadpipe.store.composites import Composite, Origin
from vadpipe.store.composites import write_clip as write_composite
from vadpipe.store.frames import Frame
from vadpipe.store.images import encode_mask, encode_png
from vadpipe.training.composited import cached_frames
from vadpipe.training.motion import motion_gradients, token_weights

SMALL: dict[str, Any] = {
    "height": 24, "width": 32, "patch": 8, "epochs": 2, "student_epochs": 2, "batch": 8, "composites": 0.5, "head": 1.0,
}  # fmt: skip


def method(**changes: Any) -> Sdmae:
    defaults = tiny_params()["methods"]["sdmae"]
    score = {key: changes.pop(key) for key in list(changes) if key in defaults["score"] and key != "device"}
    train = {**defaults["train"], "seeds": [0], **SMALL, **changes}
    return Sdmae(parse(TrainParams, train, "sdmae"), parse(ScoreParams, {**defaults["score"], **score}, "sdmae"))


@pytest.fixture(scope="module")
def composites(tmp_path_factory: pytest.TempPathFactory) -> Store[Any]:
    """Clips of a square that moves, 20 frames and 9; into the frames 5 to 14 of the first a bright block is pasted."""
    root = tmp_path_factory.mktemp("sdmae")
    frames = {
        f"{split}/{name}": [Frame(f"{name}{index}", draw(index)) for index in range(count)]
        for split, name, count in (("train", "a", 20), ("train", "b", 9), ("test", "t", 11))
    }
    write_clips(root / "clips", root / "labels", frames)
    for clip in open_store(root / "clips", "clips").all_clips():
        made = []
        images = [data for group in clip.encoded() for data in group]
        for index, (name, data) in enumerate(zip(clip.column("name"), images, strict=True)):
            if clip.name != "a" or not 5 <= index < 15:
                made.append(Composite(name, data))
                continue
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[12:20, index : index + 8] = True
            image = draw(index)
            image[mask] = 250
            origin = Origin("drawn", 1, index, 0.0, 0.0, 1.0, False)
            made.append(Composite(name, data, encode_png(image), encode_mask(mask), [origin]))
        folder = root / "composites"
        folder.mkdir(exist_ok=True)
        write_composite(clip_file(folder, clip.split, clip.name), clip, made)
    write_manifests(root / "composites")
    return open_store(root / "composites", "clips")


def layout(patch: int, mlp: str = "pointwise", head: bool = False) -> Layout:
    return Layout(9, 20 * patch, 40 * patch, patch, 4, 400, mlp, head)  # type: ignore[arg-type]


@pytest.mark.parametrize(("patch", "total", "student"), [(16, 3_042_560, 269_056), (8, 2_402_048, 169_984),
                                                        (4, 2_241_920, 145_216)])  # fmt: skip
def test_the_networks_have_as_many_parameters_as_published(patch: int, total: int, student: int) -> None:
    """Counts of the authors' own module, less what never trains (reference, S3.3)."""
    taught, teacher = Student(layout(patch)), Teacher(layout(patch))
    assert parameters(taught) == student
    assert parameters(teacher) + parameters(taught) == total
    assert parameters(teacher.encoder[0]) == 535_552
    assert parameters(teacher.decoder[0]) == 136_704
    assert parameters(Teacher(layout(patch, head=True))) == parameters(teacher) + 257


def plain_projection(part: Any, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Convolve by hand: a sum over nine shifted copies of a padded grid."""
    batch, _, width = tokens.shape
    cells = torch.zeros(batch, grid[0] + 2, grid[1] + 2, width)
    cells[:, 1:-1, 1:-1] = tokens[:, 1:].reshape(batch, *grid, width)
    mixed = sum(
        cells[:, i : i + grid[0], j : j + grid[1]] * part.convolution.weight[:, 0, i, j]
        for i in range(3) for j in range(3)
    )  # fmt: skip
    norm = part.norm
    mixed = (mixed - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    joined = torch.cat([tokens[:, :1], mixed.reshape(batch, -1, width)], 1)
    return joined @ part.linear.weight.T + part.linear.bias


def plain_block(block: CvtBlock, tokens: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """The block written from the layer table (reference, S3.3), attention as a softmax."""
    width = tokens.shape[-1]
    normed = functional.layer_norm(tokens, (width,), block.before_attention.weight, block.before_attention.bias, 1e-6)
    attention = block.attention
    heads = [
        plain_projection(part, normed, grid).reshape(len(tokens), -1, 4, width // 4)
        for part in (attention.query, attention.key, attention.value)
    ]
    weights = torch.einsum("bihd,bjhd->bhij", heads[0], heads[1]) / width**0.5
    gathered = torch.einsum("bhij,bjhd->bihd", weights.softmax(-1), heads[2]).flatten(2)
    tokens = tokens + gathered @ attention.out.weight.T + attention.out.bias
    normed = functional.layer_norm(tokens, (width,), block.before_mlp.weight, block.before_mlp.bias, 1e-6)
    if isinstance(block.mlp, DenseMlp):
        return tokens + block.mlp.narrow(functional.gelu(block.mlp.widen(normed)))
    widen, narrow = block.mlp.widen, block.mlp.narrow
    hidden = functional.gelu(normed[:, 1:] @ widen.weight[:, :, 0, 0].T + widen.bias)
    patches = hidden @ narrow.weight[:, :, 0, 0].T + narrow.bias
    return tokens + torch.cat([normed[:, :1], patches], 1)


@pytest.mark.parametrize("mlp", ["pointwise", "dense"])
def test_a_block_is_what_the_layer_table_says(mlp: Any) -> None:
    torch.manual_seed(0)
    block = CvtBlock(16, mlp)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    block.eval()
    tokens = torch.randn(2, 13, 16)
    with torch.no_grad():
        torch.testing.assert_close(block(tokens, (3, 4)), plain_block(block, tokens, (3, 4)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("patch", [2, 4])
def test_the_fast_form_is_the_plain_one(patch: int) -> None:
    torch.manual_seed(0)
    shape = Layout(9, 6 * patch, 8 * patch, patch, 4, 24, "pointwise", True)
    teacher, student = Teacher(shape), Student(shape)
    images, masks = torch.randn(3, 9, 6 * patch, 8 * patch), draw_masks(torch.rand(3, 48), 24, "shuffled")
    with torch.no_grad():
        for _ in range(5):
            student(teacher(images, masks).trunk)  # batch norms see something
        for network in (teacher, student):
            network.eval()
        expected = plain_sdmae.forward(teacher, student, images, masks)
        for network in (teacher, student):
            fold_norms(network)
        assert not [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
        given = teacher(images, masks)
        for found, wanted in zip((given.patches, student(given.trunk), given.head), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_masks_keep_the_lowest_noise_and_restore_the_raster() -> None:
    noise = torch.rand(3, 12)
    for order in ("shuffled", "raster"):
        masks = draw_masks(noise, 6, order)  # type: ignore[arg-type]
        hidden = noise.argsort(1)[:, 6:]
        for image in range(3):
            assert set(masks.kept[image].tolist()) | set(hidden[image].tolist()) == set(range(12))
            assert masks.masked[image].sum() == 6
            assert masks.masked[image][masks.kept[image]].sum() == 0
            # The i-th kept token goes back to its place.
            assert (masks.restore[image][masks.kept[image]] == torch.arange(6)).all()
    assert (draw_masks(noise, 6, "raster").kept.diff(dim=1) > 0).all()


def test_patches_are_cut_in_raster_order() -> None:
    images = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    patches = to_patches(images, 2)
    assert patches.shape == (2, 6, 12)
    for row in range(2):
        for column in range(3):
            cut = images[1, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].permute(1, 2, 0).flatten()
            assert (patches[1, 3 * row + column] == cut).all()


def test_motion_weights_of_the_toy_check() -> None:
    """Reference, S3.4: m = (30, 0, 0, 5), w = (6/7, 0, 0, 1/7)."""
    motion = np.zeros((1, 4, 4, 2), np.uint8)
    motion[0, 0, 0, 0], motion[0, 1, 0, 1], motion[0, 3, 3, 0] = 40, 20, 10
    weights = token_weights(motion, np.zeros((1, 4, 4), bool), 2, "paper")
    np.testing.assert_allclose(weights, [[6 / 7, 0, 0, 1 / 7]], rtol=1e-6)


def test_still_frames_weigh_all_tokens_alike() -> None:
    still = np.zeros((2, 4, 4, 3), np.uint8)
    for kind in ("paper", "code", "none"):
        np.testing.assert_allclose(token_weights(still, np.zeros((2, 4, 4), bool), 2, kind), 0.25)


def test_anomalies_count_as_motion() -> None:
    motion = np.zeros((1, 4, 4, 3), np.uint8)
    motion[0, 0, 0] = 51
    anomalies = np.zeros((1, 4, 4), bool)
    anomalies[0, 3, 3] = True
    paper = token_weights(motion, anomalies, 2, "paper")
    np.testing.assert_allclose(paper, np.array([[0.2, 0, 0, 1]]) / 1.2, rtol=1e-6)
    code = token_weights(motion, anomalies, 2, "code")
    np.testing.assert_allclose(code, np.array([[51, 0, 0, 128]]) / 179, rtol=1e-6)
    motion[0, 0, 0] = 200
    np.testing.assert_allclose(token_weights(motion, anomalies, 2, "code"), [[0.5, 0, 0, 0.5]], rtol=1e-6)


def test_motion_gradients_of_paper_and_code() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 6, 7, 1)).astype(np.uint8)

    def median(image: np.ndarray) -> np.ndarray:
        padded = np.pad(image[..., 0], 1, mode="edge")
        windows = [padded[i : i + 6, j : j + 7] for i in range(3) for j in range(3)]
        return np.median(windows, axis=0)[..., None]

    paper = motion_gradients(frames, "paper")
    for index in range(5):
        before = max(index - 1, 0)
        after = max(index, 1)
        assert (paper[index] == np.abs(median(frames[after]) - median(frames[before]))).all()
    wide = frames.astype(int)
    code = motion_gradients(frames, "code")
    assert (code[0] == np.abs(wide[0] - wide[1])).all()
    assert (code[2] == np.abs(wide[1] - wide[3])).all()
    assert (code[4] == np.abs(wide[3] - wide[4])).all()
    assert not motion_gradients(frames, "none").any()


def test_each_frame_is_decoded_once_and_batches_hold_what_the_store_does(
    composites: Store[Any], tmp_path: Path
) -> None:
    clips = composites.clips("train")
    frames = cached_frames(clips, (HEIGHT, WIDTH), "paper", tmp_path / "frames")
    assert len(frames) == 29
    index = np.array([6, 0, 20, 28, 6])
    batch = frames.batch(index, np.array([True, False, False, True, False]), 3, 4, "paper")
    clean = np.concatenate([chunk for clip in clips for chunk in clip.chunks()])
    pasted = np.concatenate([chunk for clip in clips for chunk in clip.composites()])
    # Frames 3 before and after; at the ends of the clips (0 to 19, 20 to 28) the frame itself.
    for row, (source, numbers) in enumerate([
        (pasted, (3, 6, 9)), (clean, (0, 0, 3)), (clean, (20, 20, 23)), (pasted, (25, 28, 28)), (clean, (3, 6, 9)),
    ]):  # fmt: skip
        expected = np.concatenate([source[number].transpose(2, 0, 1) for number in numbers])
        assert (batch.images[row].numpy() == expected).all()
        assert (batch.clean[row].numpy() == clean[numbers[1]].transpose(2, 0, 1)).all()
    # Into the last frame nothing was pasted, whatever it was asked for.
    assert batch.composite.tolist() == [1, 0, 0, 0, 0]
    assert batch.pasted[0, 0, 12:20, 6:14].all()
    assert batch.pasted.sum() == 64
    alone = frames.batch(index, np.zeros(5, bool), 0, 4, "none")
    assert alone.images.shape == (5, 3, HEIGHT, WIDTH)
    assert (alone.images == alone.clean).all()


def test_neighbours_of_a_stream_are_those_of_its_clip() -> None:
    frames = [np.full((3, 2, 2), number, np.uint8) for number in range(9)]
    for count in (1, 2, 3, 5, 9):
        for reach in (1, 3, 4):
            found = [triple[::3, 0, 0].tolist() for triple in _triples(iter(frames[:count]), reach)]
            assert found == [
                [i - reach if i >= reach else i, i, i + reach if i + reach < count else i] for i in range(count)
            ]


def test_both_phases_learn_and_the_second_leaves_the_teacher_alone(composites: Store[Any], tmp_path: Path) -> None:
    short = method(epochs=12, student_epochs=0)
    short.fit(composites, Fit(0, tmp_path / "short"))
    both = method(epochs=12, student_epochs=12)
    both.fit(composites, Fit(0, tmp_path / "both"))
    # Weights, and the statistics of the batch norms too.
    for name, value in short.teacher.state_dict().items():
        assert (value == both.teacher.state_dict()[name]).all(), name
    assert [set(epoch) for epoch in both.losses] == [{"loss", "teacher", "head"}] * 12 + [{"loss", "student"}] * 12
    assert both.losses[11]["teacher"] < both.losses[0]["teacher"]
    assert both.losses[-1]["loss"] < both.losses[12]["loss"]
    assert not (tmp_path / "both").exists()
    for epoch in both.losses[:12]:
        assert epoch["loss"] == pytest.approx(epoch["teacher"] + epoch["head"], rel=1e-5)


def test_half_precision_learns_what_full_precision_learns(composites: Store[Any], tmp_path: Path) -> None:
    full = method(epochs=1, student_epochs=1)
    full.fit(composites, Fit(0, tmp_path / "full"))
    half = method(epochs=1, student_epochs=1, precision="bf16")
    half.fit(composites, Fit(0, tmp_path / "half"))
    assert all(
        value.dtype == torch.float32 for value in half.teacher.state_dict().values() if value.is_floating_point()
    )
    for one, other in zip(full.losses, half.losses, strict=True):
        assert one != other
        assert one["loss"] == pytest.approx(other["loss"], rel=0.05)


@pytest.mark.parametrize("changes", [
    {"neighbour": 0}, {"anomaly_map": "none"}, {"anomaly_map": "signed", "motion": "code", "student_loss": "masked"},
    {"head": 0.0}, {"composites": 0.0, "head": 0.0}, {"mlp": "dense"}, {"order": "raster", "masked": 0.25},
    {"motion": "none", "student_epochs": 0},
])  # fmt: skip
def test_variants_train_save_load_and_score(composites: Store[Any], tmp_path: Path, changes: dict[str, Any]) -> None:
    one = method(epochs=1, **{"student_epochs": 1, **changes})
    one.fit(composites, Fit(0, tmp_path / "state"))
    clip = composites.clips("test")[0]
    before = list(one.score(clip))
    (tmp_path / "model").mkdir()
    one.save(tmp_path / "model")
    again = method(epochs=1, **{"student_epochs": 1, **changes})
    again.load(tmp_path / "model")
    after = list(again.score(clip))
    names = [
        "teacher",
        *(["student", "discrepancy"] if one.train.student_epochs else []),
        *(["head"] if one.train.head else []),
    ]
    assert list(before[0].components) == names
    assert sum(len(chunk.components["teacher"]) for chunk in after) == 11
    for left, right in zip(before, after, strict=True):
        for name in names:
            # What is loaded has its batch norms folded.
            np.testing.assert_allclose(left.components[name], right.components[name], rtol=1e-4)
            if name != "head":
                assert left.maps[name].shape[1:] == (3, 4)
                np.testing.assert_allclose(left.maps[name].mean((1, 2)), left.components[name], rtol=1e-5)
            else:
                assert ((left.components[name] > 0) & (left.components[name] < 1)).all()


def test_more_passes_are_the_mean_of_single_ones(composites: Store[Any], tmp_path: Path) -> None:
    one = method(epochs=1, student_epochs=0)
    one.fit(composites, Fit(0, tmp_path / "state"))
    clip = composites.clips("test")[0]

    def scores(passes: int) -> np.ndarray:
        one.score_params = one.score_params.model_copy(update={"passes": passes})
        return np.concatenate([chunk.components["teacher"] for chunk in one.score(clip)])

    assert not np.allclose(scores(1), scores(2))
    spread = [np.abs(scores(passes) - scores(32)).mean() for passes in (1, 8)]
    assert spread[1] < spread[0]


def test_a_still_clip_gives_numbers(tmp_path: Path) -> None:
    frames = {f"{split}/a": [Frame(str(index), draw(0)) for index in range(6)] for split in ("train", "test")}
    write_clips(tmp_path / "clips", tmp_path / "labels", frames)
    one = method(composites=0.0, head=0.0)
    one.fit(open_store(tmp_path / "clips", "clips"), Fit(0, tmp_path / "state"))
    assert np.isfinite([epoch["loss"] for epoch in one.losses]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"patch": 5}, "a patch of 5 does not divide the size, 24x32"),
     ({"width": 40}, "2.5 of 5 columns of patches are kept"),
     ({"composites": 0.0}, "a head learns to tell composites from frames"),
     ({"masked": 1.0}, "masked"), ({"anomaly_map": "both"}, "anomaly_map")],
)  # fmt: skip
def test_parameters_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        method(**changes)


def test_a_run_that_needs_composites_says_so(tmp_path: Path) -> None:
    frames = {f"{split}/a": [Frame(str(index), draw(index)) for index in range(6)] for split in ("train", "test")}
    write_clips(tmp_path / "clips", tmp_path / "labels", frames)
    with pytest.raises(UserError, match=r"holds no composites, but train\.composites is 0\.5"):
        method().fit(open_store(tmp_path / "clips", "clips"), Fit(0, tmp_path / "state"))


def test_a_clip_of_two_frames_has_too_little_motion(tmp_path: Path) -> None:
    frames = {f"{split}/a": [Frame(str(index), draw(index)) for index in range(2)] for split in ("train", "test")}
    write_clips(tmp_path / "clips", tmp_path / "labels", frames)
    with pytest.raises(UserError, match=r"a.parquet has 2 frames, but motion needs 3"):
        method(composites=0.0, head=0.0).fit(open_store(tmp_path / "clips", "clips"), Fit(0, tmp_path / "state"))


def test_a_model_of_another_configuration_is_refused(composites: Store[Any], tmp_path: Path) -> None:
    one = method(epochs=1, student_epochs=0)
    one.fit(composites, Fit(0, tmp_path / "state"))
    (tmp_path / "model").mkdir()
    one.save(tmp_path / "model")
    with pytest.raises(UserError, match=r"patch=8.*params.yaml asks for.*patch=4"):
        method(patch=4).load(tmp_path / "model")


CHILD = """
import os, signal, sys
from contextlib import contextmanager
from pathlib import Path
from vadpipe.training import loop
loop.SAVE_EVERY_S = 0.0
from tests.test_sdmae import method
from vadpipe.methods.base import Fit
from vadpipe.store import open_store
saved, replacing = [], loop.replacing
@contextmanager
def counted(path):
    with replacing(path) as beside:
        yield beside
    saved.append(path.parent.name)
    # Behind each of the four batches of an epoch, and behind the epoch: in the midst of the second.
    if saved.count(sys.argv[3]) == 7:
        os.kill(os.getpid(), signal.SIGKILL)
loop.replacing, loop._SHARE = counted, 0.0
one = method(epochs=4, student_epochs=4)
one.fit(open_store(Path(sys.argv[1]), "clips"), Fit(0, Path(sys.argv[2])))
"""


@pytest.mark.parametrize("phase", ["phase_1", "phase_2"])
def test_a_killed_training_goes_on_in_either_phase_with_equal_weights(
    composites: Store[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(composites.path), str(tmp_path / "killed"), phase],
        cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO), "VADPIPE_CORES": "1"}, check=False, capture_output=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert (tmp_path / "killed" / phase / "state.pt").is_file()
    assert (tmp_path / "killed" / "teacher").is_dir() == (phase == "phase_2")
    monkeypatch.setenv("VADPIPE_CORES", "1")
    straight, resumed = method(epochs=4, student_epochs=4), method(epochs=4, student_epochs=4)
    straight.fit(composites, Fit(0, tmp_path / "straight"))
    resumed.fit(composites, Fit(0, tmp_path / "killed"))
    assert straight.losses == resumed.losses
    for left, right in ((straight.teacher, resumed.teacher), (straight.student, resumed.student)):
        assert left is not None
        assert right is not None
        for name, value in left.state_dict().items():
            assert (value == right.state_dict()[name]).all(), name


def test_pixels_are_brought_to_minus_one_and_one() -> None:
    assert in_range(torch.tensor([0, 255], dtype=torch.uint8)).tolist() == [-1, 1]
