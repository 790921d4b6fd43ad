"""Pathology foundation models, tested on small models of the same architectures."""

import dataclasses
import json
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models import NetworkSpec, build_network, load_checkpoint, save_checkpoint
from wsi_seg.models.foundation import FOUNDATIONS, find_encoder
from wsi_seg.models.lora import add_low_rank, merged_state
from wsi_seg.models.memory_estimate import estimate_memory
from wsi_seg.models.pretrained import fill_encoder
from wsi_seg.models.training_network import EncoderTraining, TrainingNetwork

# A transformer of the same architecture as each of them, with few and thin layers.
SMALL = {"embed_dim": 48, "depth": 4, "num_heads": 3}


def small(name, **changes):
    encoder = FOUNDATIONS[name].encoder
    arguments = encoder.arguments | SMALL | changes
    return NetworkSpec(
        "DPT", f"tu-{encoder.name}", 3, 2, encoder_args=tuple(sorted(arguments.items()))
    )


@pytest.mark.parametrize("name", FOUNDATIONS)
def test_networks_with_every_encoder_return_logits_of_the_image_size(name):
    torch.manual_seed(0)
    network: Any = build_network(small(name)).eval()
    patch = network.encoder.output_stride
    assert patch == (16 if name in ("Phikon-v2", "Prov-GigaPath") else 14)
    with torch.no_grad():
        for height, width in ((224, 224), (6 * patch, 10 * patch)):
            assert network(torch.randn(1, 3, height, width)).shape == (1, 2, height, width)


@pytest.mark.parametrize("name", FOUNDATIONS)
def test_parameter_counts_are_the_published_ones(name):
    """On torch's meta device, where even 1.1 billion weights need no memory."""
    encoder = FOUNDATIONS[name].encoder
    arguments = encoder.arguments | {
        key: getattr(timm.layers, str(value))
        for key, value in encoder.arguments.items() if key == "mlp_layer"
    }  # fmt: skip
    with torch.device("meta"):
        found: Any = timm.create_model(encoder.name, **arguments)
    millions = sum(p.numel() for p in found.parameters()) / 1e6
    published = {"UNI2-h": 681.4, "Virchow2": 631.2, "H-optimus-0": 1134.8, "H-optimus-1": 1134.8,
                 "H0-mini": 85.7, "Phikon-v2": 303.4, "Prov-GigaPath": 1134.9}  # fmt: skip
    assert millions == pytest.approx(published[name], rel=2e-3)


def test_weights_of_the_hub_fill_an_encoder(tmp_path):
    torch.manual_seed(0)
    spec = small("UNI2-h")
    arguments: dict[str, Any] = dict(spec.encoder_args)
    arguments["mlp_layer"] = getattr(timm.layers, str(arguments["mlp_layer"]))
    source: Any = timm.create_model(spec.encoder.removeprefix("tu-"), **arguments)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    network: Any = build_network(spec, weights=tmp_path / "model.safetensors")
    ours = network.encoder.model.state_dict()
    assert all(torch.equal(ours[name], t) for name, t in source.state_dict().items())


def transformers_names(state):
    """Rename the tensors of a timm transformer as in transformers' Dinov2Model."""
    found = {"embeddings.mask_token": torch.zeros(1, 48)}
    for name, tensor in state.items():
        name = name.replace("patch_embed.proj.", "embeddings.patch_embeddings.projection.")
        name = name.replace("cls_token", "embeddings.cls_token")
        name = name.replace("pos_embed", "embeddings.position_embeddings")
        name = "layernorm." + name.removeprefix("norm.") if name.startswith("norm.") else name
        name = name.replace("blocks.", "encoder.layer.")
        name = name.replace("attn.proj.", "attention.output.dense.")
        for half in "12":
            name = name.replace(f"ls{half}.gamma", f"layer_scale{half}.lambda1")
        if "attn.qkv." in name:
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[name.replace("attn.qkv.", f"attention.attention.{part}.")] = rows
        else:
            found[name] = tensor
    return found


def test_weights_saved_by_transformers_are_accepted(tmp_path):
    torch.manual_seed(0)
    spec = small("Phikon-v2")
    source: Any = timm.create_model(spec.encoder.removeprefix("tu-"), **dict(spec.encoder_args))
    network: Any = build_network(spec)
    fill_encoder(network.encoder, transformers_names(source.state_dict()), source="test")
    ours = network.encoder.model.state_dict()
    assert all(torch.equal(ours[name], t) for name, t in source.state_dict().items())


def test_names_are_case_insensitive_or_on_the_hub(tmp_path, monkeypatch):
    found = find_encoder("h-OPTIMUS-0")
    assert found is not None
    assert found.weights == "hf-hub:bioptimus/H-optimus-0"
    assert find_encoder("tu-resnet18") is None
    stated = {"architecture": "vit_small_patch16_224",
              "model_args": {"img_size": 96, "in_chans": 3},
              "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(stated))
    monkeypatch.setattr(
        "wsi_seg.models.foundation.hf_hub_download", lambda owner, name: tmp_path / name
    )
    there = find_encoder("hf-hub:owner/name")
    assert there is not None
    assert (there.name, there.weights) == ("vit_small_patch16_224", "hf-hub:owner/name")
    assert there.arguments == {"num_classes": 0, "img_size": 96}
    assert there.mean == (0.1, 0.2, 0.3)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="names no architecture"):
        find_encoder("hf-hub:owner/name")
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="encoder_args"):
        find_encoder("hf-hub:owner/name")


def test_a_checkpoint_records_its_encoder(tmp_path, card_for):
    torch.manual_seed(0)
    spec = small("UNI2-h")
    card = dataclasses.replace(card_for(spec), encoder_args=dict(spec.encoder_args))
    network = build_network(spec).eval()
    save_checkpoint(tmp_path / "a.safetensors", network, card)
    loaded, found = load_checkpoint(tmp_path / "a.safetensors")
    assert found.spec == spec
    images = torch.randn(1, 3, 112, 112)
    with torch.no_grad():
        assert torch.equal(loaded(images), network(images))
    assert 100 < estimate_memory(found.spec).values_per_px < 1e5


def test_encoder_args_are_for_timm_encoders_only():
    with pytest.raises(ConfigError, match="encoder_args for resnet18"):
        build_network(NetworkSpec("Unet", "resnet18", 3, 1, encoder_args=(("img_size", 64),)))
    with pytest.raises(ConfigError, match="DPT for a plain vision transformer"):
        build_network(NetworkSpec("Unet", "tu-vit_tiny_patch16_224", 3, 1))


def learner_of(training, rank=2):
    torch.manual_seed(0)
    return TrainingNetwork(build_network(small("Phikon-v2")), classes=2,
                           encoder_training=EncoderTraining(training, rank))  # fmt: skip


def one_step(learner):
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    learner.train()
    learner(torch.randn(2, 3, 64, 64)).logits.square().mean().backward()
    optimizer.step()
    return learner


@pytest.mark.parametrize("training", ["frozen", "lora", "full"])
def test_which_weights_of_an_encoder_are_trained(training):
    before = {n: t.clone() for n, t in merged_state(learner_of(training).network).items()}
    learner = one_step(learner_of(training))
    after = merged_state(learner.network)
    assert list(after) == list(before)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    inside = {name for name in changed if name.startswith("encoder.")}
    assert any(name.startswith("decoder.") for name in changed)
    blocks = {name for name in inside if ".blocks." in name and name.endswith(".weight")}
    linear = {name for name in blocks if "norm" not in name}
    assert inside == {"frozen": set(), "lora": linear, "full": inside}[training]
    assert bool(linear) is (training != "frozen")
    encoder = learner.network.get_submodule("encoder")
    assert encoder.training is (training == "full")


def test_adapters_have_their_rank_and_are_merged_into_the_weights(tmp_path, card_for):
    spec = small("Phikon-v2")
    card = dataclasses.replace(card_for(spec), encoder_args=dict(spec.encoder_args))
    before = (
        learner_of("lora").network.get_submodule("encoder.model.blocks.0.attn.qkv").weight.clone()
    )
    network = one_step(learner_of("lora")).network.eval()
    layer: Any = network.get_submodule("encoder.model.blocks.0.attn.qkv")
    product = layer.parametrizations.weight[0]
    assert (product.up.shape, product.down.shape) == ((len(before), 2), (2, before.shape[1]))
    assert product.up.abs().max() > 0
    assert torch.equal(layer.weight, before + product.up @ product.down)
    assert sum(p.numel() for p in layer.parameters() if p.requires_grad) == 2 * sum(before.shape)
    save_checkpoint(tmp_path / "a.safetensors", network, card)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(
            load_checkpoint(tmp_path / "a.safetensors")[0](images), network(images), atol=1e-5
        )


def test_lora_needs_linear_layers():
    assert add_low_rank(nn.Conv2d(3, 3, 1), 2) == 0
    network = build_network(NetworkSpec("Unet", "mobilenet_v2", 3, 1))
    with pytest.raises(ConfigError, match="expected a transformer"):
        TrainingNetwork(network, classes=1, encoder_training=EncoderTraining("lora"))
