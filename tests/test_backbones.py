"""Published backbones from a file, each against timm's plain network; what they see of a frame; maps of a ViT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import nn
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from stages import features, ingest, score, train
from tests.conftest import prepare, tiny_params, write_params
from vadpipe import store
from vadpipe.errors import UserError
from vadpipe.nn.backbones import Backbone
from vadpipe.params import FeatureSet
from vadpipe.store.images import encode_png
from vadpipe.store.scores import read_scores

VIT = "vit_small_patch16_224.dino"
SMALL_VIT = "vit_tiny_patch16_224"
WEIGHTS = Path("w.safetensors")


def feature_set(**changes: Any) -> FeatureSet:
    tiny = tiny_params()["features"]["tiny_net"]
    return FeatureSet(**{**tiny, "weights": str(WEIGHTS), "height": 64, "width": 64, **changes})


def maps_set(backbone: str, layers: list[int], **changes: Any) -> Backbone:
    params = feature_set(backbone=backbone, layers=layers, grid=None, **changes)
    return Backbone(params, params.grid)


def frames(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def picture(height: int, width: int) -> np.ndarray:
    """Return an image uint8 (height, width, 3) in which every pixel counts."""
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def trained(name: str, **options: Any) -> nn.Module:
    """Return timm's network with its class head, and with statistics and factors as if it had been trained.

    As it is made, a ResNet's blocks add nothing: their last factor is zero.
    """
    torch.manual_seed(1)
    net = timm.create_model(name, **options).eval()
    for tensor in net.state_dict().values():
        if tensor.ndim == 1:
            tensor.uniform_(0.2, 0.4)
    return net


def seen(backbone: Backbone, images: torch.Tensor) -> torch.Tensor:
    return (images - backbone.mean) / backbone.std


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Parameters as torchvision's documentation counts them, less those of 1,000 classes; length of a vector; what the
# maps of layers 1 to 3 are at 64x64.
RESNETS = {
    "resnet18.tv_in1k": (11_689_512 - 513_000, 512, [(16, 16, 64), (8, 8, 128), (4, 4, 256)]),
    "resnet152.tv_in1k": (60_192_808 - 2_049_000, 2048, [(16, 16, 256), (8, 8, 512), (4, 4, 1024)]),
    "wide_resnet50_2.tv_in1k": (68_883_240 - 2_049_000, 2048, [(16, 16, 256), (8, 8, 512), (4, 4, 1024)]),
}


@pytest.mark.parametrize("name", RESNETS)
def test_published_resnets_are_the_plain_network(here: Path, name: str) -> None:
    plain = trained(name)
    save_file(plain.state_dict(), WEIGHTS)
    count, dim, maps = RESNETS[name]
    backbone = Backbone(feature_set(backbone=name))
    assert (sum(one.numel() for one in backbone.net.parameters()), backbone.dim) == (count, dim)
    images = seen(backbone, frames())
    with torch.inference_mode():
        depths = [plain.maxpool(plain.act1(plain.bn1(plain.conv1(images))))]
        for layer in (plain.layer1, plain.layer2, plain.layer3, plain.layer4):
            depths.append(layer(depths[-1]))
        assert torch.allclose(backbone(frames()), depths[4].mean((2, 3)), rtol=1e-4, atol=1e-5)
        of_layers = maps_set(name, [1, 2, 3])
        assert of_layers.maps == maps
        assert of_layers.record["sha256"] == backbone.record["sha256"] != ""
        for found, expected in zip(of_layers.pyramid(frames()), depths[1:4], strict=True):
            assert torch.allclose(found.permute(0, 3, 1, 2), expected, rtol=1e-4, atol=1e-5)
            assert float(expected.std()) > 0.01


@pytest.mark.parametrize("name", RESNETS)
def test_torchvision_calls_the_tensors_of_resnets_as_timm_does(name: str) -> None:
    with torch.device("meta"):
        ours = timm.create_model(name).state_dict()
        theirs = torchvision.models.get_model(name.partition(".")[0], weights=None).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize("head", [True, False])
def test_the_published_vit_is_the_plain_network(here: Path, head: bool) -> None:
    plain = trained(VIT, **({"num_classes": 1000} if head else {}))
    save_file(plain.state_dict(), WEIGHTS)
    backbone = Backbone(feature_set(backbone=VIT, height=224, width=224))
    assert (sum(one.numel() for one in backbone.net.parameters()), backbone.dim) == (21_665_664, 384)
    tokens: list[torch.Tensor] = []
    for block in plain.blocks:
        block.register_forward_hook(lambda block, given, result: tokens.append(result))
    with torch.inference_mode():
        last = plain.forward_features(seen(backbone, frames(224, 224)))
        assert torch.allclose(backbone(frames(224, 224)), last[:, 0], rtol=1e-4, atol=1e-5)
        of_layers = maps_set(VIT, [2, 5, 8], height=224, width=224)
        assert of_layers.maps == [(14, 14, 384)] * 3
        for layer, found in zip((2, 5, 8), of_layers.pyramid(frames(224, 224)), strict=True):
            # Patch by patch as they were cut out, without the class token before them.
            assert torch.allclose(found, tokens[layer][:, 1:].reshape(2, 14, 14, 384), rtol=1e-4, atol=1e-5)
    assert sum(one.numel() for one in of_layers.net.parameters()) < 21_665_664


def test_pooling_a_vit_keeps_its_norm(here: Path) -> None:
    plain = trained(SMALL_VIT, img_size=64)
    save_file(plain.state_dict(), WEIGHTS)
    backbone = Backbone(feature_set(backbone=SMALL_VIT, pool="max"))
    with torch.inference_mode():
        patches = plain.forward_features(seen(backbone, frames()))[:, 1:]
        assert torch.allclose(backbone(frames()), patches.amax(1), rtol=1e-4, atol=1e-5)


# 7x28 patches are as many as 14x14, but lie elsewhere.
@pytest.mark.parametrize(("height", "width"), [(64, 96), (112, 448)])
def test_a_vit_at_another_size_than_its_weights(here: Path, height: int, width: int) -> None:
    weights = trained(SMALL_VIT).state_dict()
    save_file(weights, WEIGHTS)
    size = {"height": height, "width": width}
    found = Backbone(feature_set(backbone=SMALL_VIT, **size)).net.state_dict()
    grid = [height // 16, width // 16]
    expected = resample_abs_pos_embed(weights["pos_embed"], grid, [14, 14], num_prefix_tokens=1)
    assert torch.equal(found.pop("pos_embed"), expected)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in found.items())
    of_layers = maps_set(SMALL_VIT, [1], **size)
    assert torch.equal(of_layers.net.state_dict()["model.pos_embed"], expected)
    assert of_layers.maps == [(*grid, 192)]


def test_swin_at_another_size_than_its_weights(here: Path) -> None:
    """Its maps have the channels behind, and the tables of its windows are brought to another size."""
    name = "swin_tiny_patch4_window7_224"
    weights = trained(name).state_dict()
    save_file(weights, WEIGHTS)
    options = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": dict(weights)}, "img_size": 64}
    plain = timm.create_model(name, **options).eval()
    of_layers = maps_set(name, [0, 1])
    assert of_layers.maps == [(16, 16, 96), (8, 8, 192)]
    with torch.inference_mode():
        first = plain.layers[0](plain.patch_embed(seen(of_layers, frames())))
        for found, expected in zip(of_layers.pyramid(frames()), (first, plain.layers[1](first)), strict=True):
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)
        backbone = Backbone(feature_set(backbone=name))
        pooled = plain.forward_features(seen(backbone, frames())).mean((1, 2))
        assert torch.allclose(backbone(frames()), pooled, rtol=1e-4, atol=1e-5)


def test_weights_of_the_hub_fit_as_those_of_a_file_do(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    donor = trained(SMALL_VIT)
    save_file(donor.state_dict(), WEIGHTS)
    expected = maps_set(SMALL_VIT, [1]).net.state_dict()
    create = timm.create_model

    def from_hub(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        return donor if pretrained else create(name, **options)

    monkeypatch.setattr(timm, "create_model", from_hub)
    found = maps_set(SMALL_VIT, [1], weights="auto")
    assert found.record["weights"] == f"timm hub {SMALL_VIT}"
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.net.state_dict().items())


def test_names_of_a_network_for_layers_are_read_too(here: Path) -> None:
    made = timm.create_model(SMALL_VIT, features_only=True, out_indices=(0, 1), img_size=64)
    save_file(made.state_dict(), WEIGHTS)
    assert all(
        torch.equal(tensor, made.state_dict()[name])
        for name, tensor in maps_set(SMALL_VIT, [1]).net.state_dict().items()
    )


def test_a_name_with_a_tag_is_found_where_a_plain_one_is(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VADPIPE_WEIGHTS", str(here))
    for name in ("resnet18", "resnet18.tv_in1k"):
        save_file(trained(name).state_dict(), f"{name}.safetensors")
        assert Backbone(feature_set(backbone=name, weights="auto")).record["weights"] == f"{name}.safetensors"
    plain, tagged = (
        Backbone(feature_set(backbone=name, weights="auto"))
        for name in ("tf_efficientnet_lite0", "tf_efficientnet_lite0.in1k")
    )
    assert plain.record == {**tagged.record, "backbone": "tf_efficientnet_lite0"}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "tag": ({"backbone": "resnet18.tv_in2k"}, r"no backbone 'resnet18\.tv_in2k'; did you mean 'resnet18\.tv_in1k'"),
    "patches": ({"backbone": SMALL_VIT, "width": 72}, "patches of 16x16 pixels, which do not divide 64x72; give mult"),
    "layer of pixels": (
        {"backbone": "pixels", "layers": [0, 2]},
        r"pixels have no layer but 0, and \[0, 2\] are given",
    ),
    "layer of a vit": ({"backbone": SMALL_VIT, "layers": [12]}, "has no layer 12"),
    "another network": (
        {"backbone": SMALL_VIT},
        "another architecture than vit_tiny_patch16_224: it lacks 'cls_token'",
    ),
    "another width": (
        {"backbone": SMALL_VIT, "weights": "wide.safetensors"},
        r"it has 'cls_token' with shape \(1, 1, 3",
    ),
    "another depth": (
        {"backbone": "swin_tiny_patch4_window7_224", "weights": "deep.safetensors"},
        r"deep\.safetensors is of another architecture than swin_tiny",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_named(here: Path, case: str) -> None:
    save_file(timm.create_model("resnet18").state_dict(), WEIGHTS)
    save_file({"cls_token": torch.zeros(1, 1, 384), "pos_embed": torch.zeros(1, 197, 384)}, "wide.safetensors")
    save_file({"layers.2.blocks.17.attn.relative_position_bias_table": torch.zeros(169, 12)}, "deep.safetensors")
    changes, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        Backbone(feature_set(**changes))


def shown(backbone: Backbone, image: np.ndarray) -> np.ndarray:
    (found,) = backbone.frames([[encode_png(image)]])
    return found[0]


SIZES = [
    (240, 360),
    (360, 240),
    (101, 333),
    (333, 102),
    (37, 53),
    (20, 500),
    (256, 256),
    (224, 224),
    (225, 227),
    (1, 9),
]
TESTED = {
    "resnet18.tv_in1k": (256, InterpolationMode.BILINEAR),  # 224 / 0.875
    "resnet18": (235, InterpolationMode.BICUBIC),  # a1_in1k: 224 / 0.95 = 235.8
    VIT: (248, InterpolationMode.BICUBIC),  # 224 / 0.9 = 248.9
    "tf_efficientnet_lite0": (256, InterpolationMode.BICUBIC),
}


@pytest.mark.parametrize("name", TESTED)
def test_the_preprocessing_of_the_weights_is_torchvisions(name: str) -> None:
    side, mode = TESTED[name]
    backbone = Backbone(feature_set(backbone=name, weights="random", height=224, width=224, preprocessing="weights"))
    twin = transforms.Compose([transforms.Resize(side, mode), transforms.CenterCrop(224)])
    for height, width in SIZES:
        image = picture(height, width)
        assert np.array_equal(shown(backbone, image), np.asarray(twin(Image.fromarray(image)))), (height, width)
    mean = 0.5 if name == "tf_efficientnet_lite0" else 0.485
    assert (backbone.record["mean"][0], backbone.record["crop_mode"]) == (mean, "center")
    assert backbone.record["interpolation"] == mode.value


@pytest.mark.parametrize(("height", "width"), [(150, 200), (301, 64), (90, 500)])
def test_what_is_cut_out_need_not_be_square(height: int, width: int) -> None:
    """Both sides reach 64 / 0.875 = 73 and 96 / 0.875 = 109, and 64x96 of the middle are left."""
    params = feature_set(backbone="resnet18.tv_in1k", weights="random", width=96, preprocessing="weights")
    image = picture(height, width)
    ratio = min(height / 73, width / 109)
    tall, wide = round(height / ratio), round(width / ratio)
    assert min(tall - 73, wide - 109) == 0
    top, left = round((tall - 64) / 2), round((wide - 96) / 2)
    whole = Image.fromarray(image).resize((wide, tall), Image.Resampling.BILINEAR)
    expected = np.asarray(whole.crop((left, top, left + 96, top + 64)))
    assert np.array_equal(shown(Backbone(params), image), expected)


@pytest.mark.parametrize(
    ("height", "width", "how"), [(150, 200, cv2.INTER_AREA), (64, 30, cv2.INTER_CUBIC), (20, 30, cv2.INTER_CUBIC)]
)
def test_the_whole_frame_is_seen_as_ever(height: int, width: int, how: int) -> None:
    backbone = Backbone(feature_set(weights="random"))
    image = picture(height, width)
    assert np.array_equal(shown(backbone, image), cv2.resize(image, (64, 64), interpolation=how))
    assert np.array_equal(shown(backbone, picture(64, 64)), picture(64, 64))
    assert backbone.record["crop_pct"] is None
    assert "area" in backbone.record["interpolation"]


def test_vectors_with_the_preprocessing_of_the_weights(tiny: Path) -> None:
    """A twin of torchvision and timm alone; what was done to the frames stands in the store and beside the scores."""
    name = "resnet18.tv_in1k"
    plain = trained(name)
    save_file(plain.state_dict(), WEIGHTS)
    tree = tiny_params()
    tree["features"]["tiny_net"] |= {"backbone": name, "weights": str(WEIGHTS), "preprocessing": "weights"}
    write_params(tree)
    ingest.main("tiny")
    features.main("tiny_net")
    clip = next(one for one in store.open_store(Path("data/features/tiny_net")).all_clips() if one.name == "a1")
    steps = [transforms.Resize(36), transforms.CenterCrop(32), transforms.ToTensor()]
    twin = transforms.Compose([*steps, transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    image = Image.fromarray(cv2.imread("data/raw/tiny/train/a1/008.jpg")[..., ::-1].copy())
    with torch.inference_mode():
        expected = plain.forward_head(plain.forward_features(twin(image)[None]), pre_logits=True)[0]
    assert clip.vectors()[7] == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-4)
    done = {"interpolation": "bilinear", "crop_pct": 0.875, "crop_mode": "center", "preprocessing": "weights"}
    done |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    train.main("tiny_knn")
    score.main("tiny_knn")
    for recorded in (clip.info["computed"], read_scores(Path("data/scores/tiny_knn")).info["computed"]):
        assert {key: recorded[key] for key in done} == done


def test_pixels_are_the_frame_itself() -> None:
    frame = picture(60, 90)
    for layers, grid in (([], (1, 1)), ([0], None)):
        backbone = Backbone(feature_set(backbone="pixels", height=60, width=90, layers=layers), grid)
        (seen,) = backbone.frames([[encode_png(frame)]])
        (vector,) = backbone(torch.from_numpy(seen).permute(0, 3, 1, 2)).numpy()
        assert backbone.dim == len(vector) == 3 * 60 * 90
        shape = (60, 90, 3) if layers else (3, 60, 90)
        found = vector.reshape(shape) if layers else vector.reshape(shape).transpose(1, 2, 0)
        assert found == pytest.approx(frame / 255, abs=1e-6)
        assert backbone.record["weights"] == "none"
    assert backbone.maps == [(60, 90, 3)]


def test_a_method_on_vectors_runs_on_pixels(tiny: Path) -> None:
    """`knn` on them is the sum of the squared differences to the two nearest scaled frames."""
    tree = tiny_params()
    tree["features"]["tiny_net"] |= {"backbone": "pixels", "layers": [], "grid": [1, 1], "height": 16, "width": 24}
    write_params(tree)
    ingest.main("tiny")
    features.main("tiny_net")
    train.main("tiny_knn")
    score.main("tiny_knn")

    def small(clips: Sequence[Any]) -> np.ndarray:
        frames = [one.frame(index) for one in clips for index in range(one.length)]
        return np.stack([cv2.resize(one, (24, 16), interpolation=cv2.INTER_AREA).ravel() / 255 for one in frames])

    clips = store.open_clips(Path("data/clips/tiny"))
    gallery = small([one for one in clips if one.split == "train"])
    tested = next(one for one in clips if one.split == "test")
    distances = ((small([tested])[:, None] - gallery[None]) ** 2).sum(-1)
    scores = read_scores(Path("data/scores/tiny_knn")).frames
    found = scores[scores["clip"] == tested.name].sort_values("frame")["distance"]
    assert found.to_numpy() == pytest.approx(np.sort(distances, axis=1)[:, :2].sum(1), rel=1e-3)


def transformer_params() -> dict[str, Any]:
    """Return the small params with maps and cells of a ViT and methods on them."""
    tree = tiny_params()
    vit = {"backbone": SMALL_VIT, "height": 48, "width": 64}
    tree["features"]["tiny_maps"] |= {**vit, "layers": [2, 5, 8]}
    tree["features"]["tinypool_cells"] |= {**vit, "layers": [2, 5]}
    methods = tree["methods"]
    methods["spade"]["train"] |= {"image_layer": 8, "map_layers": [2, 5]}
    methods["spade"]["score"] |= {"k": 5}
    methods["padim"]["train"] |= {"layers": [2, 5, 8], "dimensions": 20}
    methods["patchcore"]["train"] |= {"layers": [2, 5]}
    methods["reverse_distillation"]["train"] |= {"layers": [2, 5]}
    return tree


@pytest.mark.parametrize("method", ["spade", "padim", "patchcore", "dfr"])
def test_methods_on_maps_run_on_a_vit(tiny: Path, method: str) -> None:
    write_params(transformer_params())
    run = f"tiny_{method}"
    cells = method == "dfr"
    prepare("data/features/tinypool_cells" if cells else "data/features/tiny_maps")
    train.main(run)
    score.main(run)
    table = read_scores(Path("data/scores") / run)
    assert np.isfinite(table.frames[table.components].to_numpy()).all()
    assert table.frames[table.components[0]].std() > 0
    maps = [np.load(path) for path in Path("data/scores", run, "maps", "0").glob("*.npy")]
    assert sum(map(len, maps)) == (6 if cells else 79)
    inside = np.concatenate([one[~np.isnan(one)] for one in maps])
    assert all(one.shape[1:] == (3, 4) for one in maps)
    assert np.isfinite(inside).all()
    # Only cells outside the pool have no score.
    assert cells or inside.size == 79 * 12
    assert inside.std() > 0


def test_reverse_distillation_says_that_a_vit_has_no_halves(tiny: Path) -> None:
    write_params(transformer_params())
    prepare("data/features/tiny_maps")
    with pytest.raises(UserError, match=r"layers \[2, 5\] are 3x4, 3x4; each must be half .* which a ViT"):
        train.main("tiny_reverse_distillation")
