"""PANDA: its losses, Fisher information and early stopping against twins, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from tests.conftest import tiny_params, write_clips
from vadpipe.errors import UserError
from vadpipe.methods import panda
from vadpipe.methods.base import Fit
from vadpipe.methods.panda import Adapted, CollapsedError, Panda
from vadpipe.nn.adapting import class_head, trained_after
from vadpipe.nn.backbones import Backbone
from vadpipe.params import BackboneParams
from vadpipe.store import Clip, Store, open_store
from vadpipe.store.frames import Frame
from vadpipe.training import loop
from vadpipe.training.fisher import fisher_diagonal, load_fisher, save_fisher
from vadpipe.training.labelled import encoded, find_labelled, linear_classifier


def pictures(count: int, seed: int, bright: int = 0) -> list[Frame]:
    """Return pictures of one texture with some noise; the last `bright` of them have a bright half."""
    chance, texture = np.random.default_rng(seed), np.random.default_rng(9).integers(60, 120, (32, 32, 3))
    images = [np.clip(texture + chance.normal(0, 6, texture.shape), 0, 255).astype(np.uint8) for _ in range(count)]
    for image in images[count - bright :]:
        image[:, 16:] = 255 - image[:, 16:]
    return [Frame(f"{number}", image, label=0) for number, image in enumerate(images)]


def written(folder: Path, **clips: list[Frame]) -> Store[Clip]:
    """Return a clip store of a training clip `train` and a test clip `test`."""
    write_clips(folder / "clips", folder / "labels", {f"{split}/a": frames for split, frames in clips.items()})
    return open_store(folder / "clips")


@pytest.fixture
def images(tmp_path: Path) -> Store[Clip]:
    return written(tmp_path, train=pictures(10, 0), test=pictures(6, 1, bright=3))


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Return a folder of labelled images: bright and dark ones."""
    chance = np.random.default_rng(4)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number in range(5):
            image = np.clip(level + chance.normal(0, 20, (40, 30, 3)), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / "classes" / name / f"{number}.png"), image)
    return tmp_path / "classes"


def method(k: int = 2, statistic: str = "knn", **changes: Any) -> Panda:
    train = tiny_params()["methods"]["panda"]["train"] | {"device": "cpu", **changes}
    return Panda(Panda.Train(**train), Panda.Score(k=k, statistic=statistic, device="cpu"))


def scores(own: Panda, store: Store[Clip], folder: Path) -> np.ndarray:
    """Return the scores of the test clip by a model that was saved and loaded."""
    own.fit(store, Fit(0, folder / "state"))
    assert not (folder / "state").exists()
    (folder / "model").mkdir(parents=True)
    own.save(folder / "model")
    again = Panda(own.train, own.score_params)
    again.load(folder / "model")
    assert again.record == own.record
    (found,) = [one.components for one in again.score(store.clips("test")[0])]
    ((_, values),) = found.items()
    return values


def network(**changes: Any) -> tuple[Backbone, dict[str, nn.Parameter]]:
    own = method(**changes)
    own._build("cpu")
    return own.backbone, own.trained


def test_without_adaptation_it_is_the_distance_to_neighbours(images: Store[Clip], tmp_path: Path) -> None:
    own = method(adaptation="none")
    found = scores(own, images, tmp_path)
    vectors = {
        split: np.concatenate([own._of(frames) for frames in own.backbone.frames(images.clips(split)[0].encoded())])
        for split in ("train", "test")
    }
    distances = np.sort(((vectors["test"][:, None] - vectors["train"]) ** 2).sum(2), axis=1)
    assert found == pytest.approx(distances[:, :2].sum(1), rel=1e-3)
    assert found[3:].min() > found[:3].max()
    assert own.record["trained"] == 0
    assert own.losses == []


@pytest.mark.parametrize(("stage", "first"), [(0, "layer1.0.conv1.weight"), (2, "layer3.0.conv1.weight")])
def test_stages_are_frozen_from_below(stage: int, first: str) -> None:
    net = timm.create_model("test_resnet", num_classes=0)
    found = trained_after(net, stage)
    assert next(iter(found)) == first
    assert list(found) == [name for name in dict(net.named_parameters()) if "layer" in name and name >= first[:6]]
    lite = timm.create_model("tf_efficientnet_lite0", num_classes=0)
    names = {name.split(".")[1] if "blocks" in name else name.split(".")[0] for name in trained_after(lite, 2)}
    assert names == {"3", "4", "5", "6", "conv_head", "bn2"}
    maps = timm.create_model("convnext_atto", features_only=True, out_indices=(0, 1, 2))
    assert {name.split(".")[0] for name in trained_after(maps, 1)} == {"stages_2"}
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    assert {name.split(".")[1] for name in trained_after(vit, 9) if "blocks" in name} == {"10", "11"}
    assert "pos_embed" not in trained_after(vit, 9)


@pytest.mark.parametrize("stage", [4, 5])
def test_one_stage_at_least_is_trained(images: Store[Clip], tmp_path: Path, stage: int) -> None:
    with pytest.raises(UserError, match=f"frozen is {stage}, but the backbone has the stages 0 to 4"):
        method(adaptation="early", frozen=stage).fit(images, Fit(0, tmp_path))


def test_pixels_cannot_be_adapted(images: Store[Clip], tmp_path: Path) -> None:
    method(adaptation="none", backbone="pixels").fit(images, Fit(0, tmp_path))
    with pytest.raises(UserError, match="pixels have nothing to adapt"):
        method(adaptation="early", backbone="pixels").fit(images, Fit(0, tmp_path))


def test_a_step_is_that_of_the_paper(images: Store[Clip], tmp_path: Path) -> None:
    """One step of plain SGD with momentum on the clipped gradient of the mean square to the first centre."""
    plain = {"adaptation": "early", "steps": 2, "checkpoints": 1, "batch": 10, "clip_norm": 0.01, "frozen": 2}
    own = method(**plain)
    own.fit(images, Fit(0, tmp_path / "state"))
    backbone, weights = network(**plain)
    frames = torch.from_numpy(next(backbone.frames(images.clips("train")[0].encoded()))).permute(0, 3, 1, 2)
    centre = backbone(frames).detach().mean(0)
    velocity = {name: torch.zeros_like(value) for name, value in weights.items()}
    for _ in range(2):
        vectors = backbone(frames)
        loss = ((vectors - centre) ** 2).sum(1).div(vectors.shape[1]).mean()
        gradients = torch.autograd.grad(loss, list(weights.values()))
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        for (name, value), gradient in zip(weights.items(), gradients, strict=True):
            clipped = gradient * min(1, 0.01 / (norm + 1e-6)) + 5e-5 * value.detach()
            velocity[name] = 0.9 * velocity[name] + clipped
            value.data -= 0.01 * velocity[name]
    for name, value in weights.items():
        assert torch.allclose(own.trained[name], value, atol=1e-6), name
    for name, value in backbone.net.state_dict().items():
        if name not in weights:
            assert (own.backbone.net.state_dict()[name] == value).all(), name  # running statistics, too


def test_the_loss_falls_and_the_training_draws_together(images: Store[Clip], tmp_path: Path) -> None:
    own = method(adaptation="early", steps=20, checkpoints=4, clip_norm=None, learning_rate=3.0, batch=10)
    found = scores(own, images, tmp_path)
    assert len(own.losses) == 4
    assert own.losses[-1]["loss"] < own.losses[0]["loss"]
    assert own.record["spread"] < 1
    assert own.record["trained"] == sum(value.numel() for value in own.trained.values())
    assert found.shape == (6,)


def test_equal_seeds_give_equal_models(images: Store[Clip], tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        own = method(adaptation="early", batch=4, clip_norm=None)
        own.fit(images, Fit(seed, tmp_path / str(number)))
        found.append(torch.cat([value.detach().flatten() for value in own.trained.values()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_an_interrupted_adaptation_keeps_its_checkpoints(
    images: Store[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "_SHARE", 0.0)
    straight = method(adaptation="ses", steps=6, checkpoints=3, batch=4, clip_norm=None)
    expected = scores(straight, images, tmp_path)
    killed = method(adaptation="ses", steps=6, checkpoints=3, batch=4, clip_norm=None)
    left = [5]

    def counted(self: Adapted, *given: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return forward(self, *given)

    forward = Adapted.forward
    monkeypatch.setattr(Adapted, "forward", counted)
    with pytest.raises(KeyboardInterrupt):
        killed.fit(images, Fit(0, tmp_path / "killed" / "state"))
    monkeypatch.setattr(Adapted, "forward", forward)
    assert len(list((tmp_path / "killed" / "state" / "kept").iterdir())) == 2
    assert scores(killed, images, tmp_path / "killed") == pytest.approx(expected)
    assert killed.losses == straight.losses


@pytest.mark.parametrize("statistic", ["center", "knn"])
def test_a_frame_takes_the_checkpoint_at_which_it_stands_out_most(
    images: Store[Clip], tmp_path: Path, statistic: str
) -> None:
    own = method(statistic=statistic, adaptation="ses", steps=9, checkpoints=3, clip_norm=None, learning_rate=0.001)
    found = scores(own, images, tmp_path)
    assert own.record["checkpoints"] == 3
    frames = next(own.backbone.frames(images.clips("test")[0].encoded()))
    centre, ratios = own.centre, []
    for state, gallery in zip(own.states, own.galleries, strict=True):
        own._take(state)
        vectors = own._of(frames)
        if statistic == "center":
            mean, values = ((gallery - centre) ** 2).sum(1).mean(), ((vectors - centre) ** 2).sum(1)
        else:
            among = ((gallery[:, None] - gallery) ** 2).sum(2) + np.diag(np.full(len(gallery), np.inf))
            mean = np.sort(among, axis=1)[:, :2].sum(1).mean()
            values = np.sort(((vectors[:, None] - gallery) ** 2).sum(2), axis=1)[:, :2].sum(1)
        ratios.append(values / mean)
    assert found == pytest.approx(np.max(ratios, axis=0), rel=1e-2)
    assert len({tuple(one) for one in np.round(ratios, 6)}) == 3


def test_fisher_information_is_a_mean_of_squares_of_single_gradients() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    weights, inputs, labels = dict(net.named_parameters()), torch.randn(5, 3), [0, 1, 1, 0, 1]
    found = fisher_diagonal(net, weights, [(one[None], label) for one, label in zip(inputs, labels, strict=True)])

    def loss(values: dict[str, torch.Tensor], one: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(torch.func.functional_call(net, values, (one[None],)), label[None])

    values = {name: value.detach() for name, value in weights.items()}
    single = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(values, inputs, torch.tensor(labels))
    for name, gradients in single.items():
        assert torch.allclose(found[name], gradients.square().mean(0), atol=1e-7)
        assert not torch.allclose(found[name], gradients.mean(0).square(), atol=1e-7)


def test_drawn_labels_give_the_fisher_information_of_the_network_itself() -> None:
    """That of logits z = w x with two classes is, for the first weight, p (1 - p) x^2."""
    layer = nn.Linear(1, 2, bias=False)
    layer.weight.data = torch.tensor([[0.5], [-0.5]])
    torch.manual_seed(0)
    found = fisher_diagonal(layer, {"w": layer.weight}, [(torch.full((1, 1), 2.0), None)] * 4000)
    share = 1 / (1 + np.exp(-2.0))
    assert found["w"].flatten().tolist() == pytest.approx([4 * share * (1 - share)] * 2, rel=0.1)


def test_consolidation_holds_what_matters(images: Store[Clip], tmp_path: Path) -> None:
    moved, shared = {}, {"steps": 12, "clip_norm": None, "weight_decay": 0.0, "learning_rate": 0.01}
    for name, changes in {
        "early": {},
        "loose": {"penalty": 0.0},
        "tight": {"penalty": 1e6, "learning_rate": 1e-5},
    }.items():
        own = method(adaptation="early" if name == "early" else "ewc", **shared | changes)
        own.fit(images, Fit(0, tmp_path / name))
        before = trained_after(Backbone(own.train).net, own.train.frozen)
        moved[name] = {key: (value - before[key]).detach() for key, value in own.trained.items()}
        if own.fisher:
            assert own.record["fisher"]["source"] == "predictions for training images"
            assert own.record["fisher"]["images"] == 3
            assert "penalty" in own.losses[0]
    assert all(torch.equal(moved["early"][key], moved["loose"][key]) for key in moved["early"])
    drift = {name: sum(float(value.square().sum()) for value in parts.values()) for name, parts in moved.items()}
    assert drift["tight"] < drift["loose"]


def test_fisher_information_is_saved_and_taken_up(images: Store[Clip], tmp_path: Path) -> None:
    first = method(adaptation="ewc", weight_decay=0.0)
    scores(first, images, tmp_path)
    path = tmp_path / "model" / "fisher.safetensors"
    again = method(adaptation="ewc", fisher=str(path), weight_decay=0.0)
    again.fit(images, Fit(0, tmp_path / "again"))
    assert again.record["fisher"] == first.record["fisher"]
    assert all(torch.equal(again.fisher[0][name], first.fisher[0][name]) for name in again.trained)  # type: ignore[index]
    with pytest.raises(
        UserError, match="is of another backbone: its backbone is 'test_resnet', that of the run 'test_convnext'"
    ):
        method(adaptation="ewc", fisher=str(path), backbone="test_convnext").fit(images, Fit(0, tmp_path / "x"))
    with pytest.raises(UserError, match=r"says nothing of 'layer3.0.conv1.weight'"):
        method(adaptation="ewc", fisher=str(path), frozen=2).fit(images, Fit(0, tmp_path / "x"))
    with pytest.raises(UserError, match="is not here; give null"):
        method(adaptation="ewc", fisher="nowhere").fit(images, Fit(0, tmp_path / "x"))
    for damage in (path.read_bytes()[:-9], b"", b"nothing"):
        path.write_bytes(damage)
        with pytest.raises(UserError, match="is no Fisher information that panda saved"):
            method(adaptation="ewc", fisher=str(path)).fit(images, Fit(0, tmp_path / "x"))


def test_fisher_information_of_labelled_images(images: Store[Clip], classes: Path, tmp_path: Path) -> None:
    own = method(adaptation="ewc", labelled=str(classes), fisher_images=4)
    own.fit(images, Fit(0, tmp_path / "state"))
    assert own.record["fisher"] | {"sha256": ""} == {
        "backbone": "test_resnet", "sha256": "", "source": f"labels of {classes}", "images": 4,
    }  # fmt: skip


def test_joint_optimisation_learns_classes_on_the_side(images: Store[Clip], classes: Path, tmp_path: Path) -> None:
    own = method(adaptation="joint", labelled=str(classes), steps=12, clip_norm=None, learning_rate=0.001)
    found = scores(own, images, tmp_path)
    assert set(own.losses[0]) == {"loss", "compactness", "classes"}
    assert own.losses[-1]["loss"] < own.losses[0]["loss"]
    assert found[3:].min() > found[:3].max()


def test_the_classifier_is_a_logistic_regression() -> None:
    chance = np.random.default_rng(0)
    vectors = np.concatenate([chance.normal(place, 1, (30, 5)) for place in (-2, 2)]).astype(np.float32)
    vectors[:, 0] += np.repeat([-2, 2, -2], 20)
    for labels in (np.repeat([0, 1], 30), np.repeat([0, 1, 2], 20)):
        layer = linear_classifier(np.pad(vectors, ((0, 0), (0, 1)), constant_values=7), labels)
        shares = layer(torch.from_numpy(np.pad(vectors, ((0, 0), (0, 1)), constant_values=7))).softmax(1)
        assert shares.shape == (60, len(set(labels)))
        assert (shares.argmax(1).numpy() == labels).mean() > 0.9
        assert (layer.weight[:, 5] == 0).all()


def test_the_head_of_the_weights_is_found(tmp_path: Path) -> None:
    torch.manual_seed(2)
    net = timm.create_model("test_resnet").eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    save_file({k: v for k, v in net.state_dict().items() if "fc" not in k}, tmp_path / "bare.safetensors")
    shared = {"backbone": "test_resnet", "height": 32, "width": 32, "pool": "avg", "preprocessing": "frame"}
    params = BackboneParams(**shared, layers=[], weights=str(tmp_path / "w.safetensors"))
    frames = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    backbone, head = Backbone(params), class_head(params)
    assert head is not None
    expected = net((frames - backbone.mean) / backbone.std)
    assert torch.allclose(head(backbone(frames)), expected, atol=1e-4)
    assert class_head(params.model_copy(update={"weights": str(tmp_path / "bare.safetensors")})) is None
    assert class_head(params.model_copy(update={"layers": [3]})) is None
    packaged = BackboneParams(**shared | {"backbone": "tf_efficientnet_lite0"}, layers=[], weights="auto")
    assert class_head(packaged).out_features == 1000  # type: ignore[union-attr]


def test_predictions_need_a_head(images: Store[Clip], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"have no class head, so they predict nothing; give train.labelled"):
        method(adaptation="ewc", layers=[3], frozen=1).fit(images, Fit(0, tmp_path))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adaptation": "joint"}, "joint learns the classes of labelled images; give `labelled`"),
        ({"steps": 1, "checkpoints": 2}, "1 steps cannot give 2 checkpoints"),
    ],
)
def test_parameters_that_do_not_go_together(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        method(**changes)


def test_a_folder_of_labelled_images_has_classes(classes: Path, tmp_path: Path) -> None:
    found = find_labelled(classes)
    assert found.names == ["dark", "light"]
    assert found.labels.tolist() == [0] * 5 + [1] * 5
    few = found.some(4, np.random.default_rng(0))
    assert len(few.files) == len(few.labels) == 4
    assert [path.parent.name for path in few.files] == [found.names[label] for label in few.labels]
    with pytest.raises(UserError, match=r"needs two classes at least, FOLDER/CLASS/\*.jpg, and has 0"):
        find_labelled(classes / "dark")
    with pytest.raises(UserError, match="nowhere"):
        find_labelled(tmp_path / "nowhere")
    (classes / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no images"):
        find_labelled(classes)
    (classes / "dark" / "0.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"0\.png: .*; mend or remove it"):
        encoded(classes / "dark" / "0.png")


def test_labelled_images_of_16_bit_are_brought_to_8(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "deep.png"), np.full((4, 4), 257 * 90, np.uint16))
    pixels = cv2.imdecode(np.frombuffer(encoded(tmp_path / "deep.png"), np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint8
    assert (pixels == 90).all()


def test_a_collapse_is_named(images: Store[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panda, "_COLLAPSED", 2.0)
    with pytest.raises(CollapsedError, match=r"collapsed within 4 steps: all training images have the same vector"):
        method(adaptation="early").fit(images, Fit(0, tmp_path))


def test_a_collapse_by_long_training(images: Store[Clip], tmp_path: Path) -> None:
    """Weights that decay to nothing give the same vector for every image."""
    with pytest.raises(CollapsedError, match=r"lower train.steps or train.learning_rate"):
        method(adaptation="early", steps=60, weight_decay=1.0, learning_rate=0.1).fit(images, Fit(0, tmp_path))


def test_collapsed_checkpoints_are_left_out(images: Store[Clip], tmp_path: Path) -> None:
    own = method(adaptation="ses", steps=60, checkpoints=10, weight_decay=1.0, learning_rate=0.1)
    found = scores(own, images, tmp_path)
    assert own.record["collapsed"] > 0
    assert own.record["checkpoints"] == 10 - own.record["collapsed"]
    assert np.isfinite(found).all()


def test_images_that_are_all_equal(tmp_path: Path) -> None:
    same = [Frame(str(number), np.full((32, 32, 3), 90, np.uint8), label=0) for number in range(4)]
    store = written(tmp_path, train=same, test=pictures(3, 0))
    for adaptation in ("early", "ses"):
        found = scores(method(adaptation=adaptation), store, tmp_path / adaptation)
        assert np.isfinite(found).all()
        assert (found > 0).all()


def test_one_training_image_has_one_neighbour(tmp_path: Path) -> None:
    store = written(tmp_path, train=pictures(1, 0), test=pictures(3, 1))
    with pytest.raises(UserError, match="k = 2 is larger than the gallery of 1 training vectors"):
        scores(method(adaptation="early"), store, tmp_path)
    assert len(scores(method(adaptation="early", k=1), store, tmp_path / "one")) == 3


def test_other_weights_than_were_adapted_are_refused(images: Store[Clip], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    own = method(adaptation="early", weights=str(path))
    scores(own, images, tmp_path)
    save_file(timm.create_model("test_resnet").state_dict(), path)
    with pytest.raises(UserError, match="are now others"):
        Panda(own.train, own.score_params).load(tmp_path / "model")


def test_a_saved_diagonal_is_whole(tmp_path: Path) -> None:
    weights = {"a": nn.Parameter(torch.ones(2, 3))}
    backbone = {"backbone": "x", "sha256": "1"}
    save_fisher(tmp_path / "f.safetensors", {"a": torch.rand(2, 3)}, **backbone, images=7)
    found, known = load_fisher(tmp_path / "f.safetensors", weights, backbone)
    assert known["images"] == 7
    assert torch.equal(found["a"], load_file(tmp_path / "f.safetensors")["a"])
    with pytest.raises(UserError, match="its sha256 is '1', that of the run '2'"):
        load_fisher(tmp_path / "f.safetensors", weights, {**backbone, "sha256": "2"})
