"""Owns how a network is built from its name: smp architectures, smp and timm encoders, weights."""

import difflib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.models.foundation import Value
from wsi_seg.models.full_resolution import add_full_resolution_skip
from wsi_seg.models.linknet import join_skips
from wsi_seg.models.plain_vit import PlainDPT, VitEncoder
from wsi_seg.models.pretrained import (
    HUB,
    fill_encoder,
    hub_statement,
    hub_weights,
    no_weights,
    packaged_weights,
)
from wsi_seg.models.tensors import of_network, read_tensors, unwrapped

logger = logging.getLogger(__name__)

# Our Linknet that joins skips as channels; all others are smp's.
_CONCAT = "linknetconcat"

# smp's Unet with a narrow decoder, whose channels are these; a step takes a third of the time.
_LEAN = "unetlean"
_LEAN_CHANNELS = (96, 48, 32, 16, 8)

# smp's DPT, which takes plain vision transformers.
_DPT = "dpt"

# What is smp's own under another name.
_VARIANTS = {_CONCAT: "linknet", _LEAN: "unet"}

ARCHITECTURES = {
    model.__name__: name for name, model in smp.MODEL_ARCHITECTURES_MAPPING.items()
} | {"LinknetConcat": _CONCAT, "UnetLean": _LEAN}

# Architectures whose decoder can have attention.
_ATTENTIVE = ("unet", "unetplusplus")

# Architectures whose decoder gives as many pixels as the image has.
_FULL_SIZE = ("unet", "unetplusplus", "linknet", "manet", _CONCAT, _LEAN)

# Prefix of encoders that smp takes from timm by their timm name.
_TIMM = "tu-"

# Prefix that smp gave its own copies of timm's encoders, before it took them from timm.
_OLD_SMP = "timm-"

# Arguments of timm's encoders that are layers, which a recipe can only name.
_LAYERS = {name: getattr(timm.layers, name) for name in ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")}

# Channel statistics of ImageNet, which networks without a statement of their own are fed with.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Everything that decides the layers of a network.

    Parameters
    ----------
    architecture
        Name of an smp model in any case, for example ``Unet``, ``Linknet``, ``UnetPlusPlus``,
        ``FPN``, ``PAN`` or ``DeepLabV3Plus``; or ``UnetLean``, a Unet with a narrow decoder, or
        ``LinknetConcat``, which joins skips as channels.
    encoder
        Name of an smp encoder (``efficientnet-b0``), or of a timm model after ``tu-``.
    in_channels
        Channels of the image.
    classes
        Channels of the output, see `ClassTable.outputs`.
    decoder_attention
        ``scse`` lets the decoder weigh its channels and places (Unet and UnetPlusPlus).
    full_resolution_skip
        Channels of a skip at full resolution, which smp's networks lack; 0 adds none.
    encoder_args
        What timm is given with the encoder's name, such as ``("dynamic_img_size", True)``; sorted.
    """

    architecture: str
    encoder: str
    in_channels: int
    classes: int
    decoder_attention: str | None = None
    full_resolution_skip: int = 0
    encoder_args: tuple[tuple[str, Value], ...] = ()


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Channel means and deviations of ``image / 255`` that a network expects to be removed."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def build_network(spec: NetworkSpec, *, weights: str | Path | None = None) -> nn.Module:
    """Build a network that maps normalised images to logits.

    Input is ``(B, in_channels, H, W)`` float with sides that `size_multiple` divides, output
    ``(B, classes, H, W)`` float logits; see `models.activation`.

    Parameters
    ----------
    spec
        What to build.
    weights
        None for random weights (drawn from torch's global generator); ``imagenet``, or another
        name of weights that an installed package has, or smp or timm publishes, for the encoder;
        ``hf-hub:OWNER/NAME``; or a local file (``.safetensors``, or of ``torch.save``) that holds
        the encoder as smp, timm, torchvision or the original EfficientNet names it, or a whole
        network.

    Raises
    ------
    ConfigError
        If architecture or encoder do not exist, or do not fit each other.
    CheckpointError
        If the weights cannot be had. Random weights never take their place.
    """
    _require_names(spec)
    if weights is None:
        return _create(spec)
    if (packaged := packaged_weights(spec.encoder)) and weights == "imagenet":
        return _start(spec, read_tensors(packaged), source=packaged.name)
    if isinstance(weights, Path):
        return _start(spec, read_tensors(weights), source=str(weights))
    if weights.startswith(HUB):
        return _start(spec, hub_weights(weights, spec.encoder), source=weights)
    try:
        # timm's published weights are part of the encoder's name; smp wants True for them.
        return _create(spec, True if spec.encoder.startswith(_TIMM) else weights)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise no_weights(spec.encoder, weights, _first_line(error)) from error


def blank_network(spec: NetworkSpec) -> nn.Module:
    """Build a network whose weights are not drawn, because they are loaded next; on the CPU.

    Raises
    ------
    ConfigError
        See `build_network`.
    """
    with _NoDraws():
        return build_network(spec)


class _NoDraws(TorchFunctionMode):
    """Leaves weights as they are where they would be drawn at random."""

    _DRAWS = (
        nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_,
        torch.Tensor.normal_, torch.Tensor.uniform_,
    )  # fmt: skip

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        given = kwargs or {}
        if func in self._DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def size_multiple(network: nn.Module) -> int:
    """Return the number of pixels that must divide height and width of the network's input."""
    if not getattr(network, "requires_divisible_input_shape", False):
        return 1
    encoder = network.get_submodule("encoder")
    return int(encoder.output_stride)  # type: ignore[arg-type]  # smp leaves it unannotated


def published_normalisation(spec: NetworkSpec, weights: str | Path | None) -> Normalisation:
    """Normalisation that the published weights of an encoder were trained with.

    Without weights, or for a local file of an smp encoder, it is ImageNet's; for a model of the
    hub its own statement, if it makes one.

    Raises
    ------
    CheckpointError
        If the encoder wants anything but RGB scaled to 0..1, or its statement cannot be fetched.
    """
    timm_encoder = spec.encoder.startswith(_TIMM)
    if spec.in_channels != 3:
        return Normalisation((0.5,) * spec.in_channels, (0.5,) * spec.in_channels)
    if weights is None or (isinstance(weights, Path) and not timm_encoder):
        return Normalisation(_IMAGENET_MEAN, _IMAGENET_STD)
    try:
        stated = _statement(spec.encoder, str(weights))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"got no normalisation for weights {str(weights)!r} of encoder {spec.encoder!r} "
            f"({_first_line(error)}); connect to the network once, or name a local file"
        ) from error
    if stated["input_space"] != "RGB" or list(stated["input_range"]) != [0, 1]:
        raise CheckpointError(
            f"weights {str(weights)!r} of encoder {spec.encoder!r} want {stated['input_space']} "
            f"in the range {stated['input_range']}; expected RGB in 0..1; choose another encoder"
        )
    return Normalisation(tuple(stated["mean"]), tuple(stated["std"]))


def published_size(spec: NetworkSpec) -> int | None:
    """Side of the images that a timm encoder was published for, in pixels; None where unknown."""
    found = timm.get_pretrained_cfg(spec.encoder.removeprefix(_TIMM))
    return None if found is None else int(found.input_size[-1])


def _statement(encoder: str, weights: str) -> dict[str, Any]:
    """Input that weights were trained with: ``mean``, ``std``, ``input_space``, ``input_range``."""
    if not weights.startswith(HUB):
        published: dict[str, Any] = smp.encoders.get_preprocessing_params(encoder, weights)
        return published
    usual = {
        "input_space": "RGB",
        "input_range": [0, 1],
        "mean": _IMAGENET_MEAN,
        "std": _IMAGENET_STD,
    }
    return usual | hub_statement(weights)


def current_encoder(name: str) -> str:
    """Today's name of an encoder that smp or timm renamed, with a warning; else the same name."""
    if name.startswith(_OLD_SMP):
        bare = name.removeprefix(_OLD_SMP).replace("efficientnet-", "tf_efficientnet_")
        now = _TIMM + ("tf_" + bare if bare.startswith("mobilenetv3") else bare)
    else:
        renamed = timm.models.get_deprecated_models().get(name.removeprefix(_TIMM))
        now = _TIMM + renamed if name.startswith(_TIMM) and renamed else name
    if now != name:
        logger.warning("encoder %s is called %s now; write that in the recipe", name, now)
    return now


def _require_names(spec: NetworkSpec) -> None:
    _require_known("architecture", spec.architecture.lower(), list(ARCHITECTURES.values()))
    if spec.decoder_attention is not None and spec.architecture.lower() not in _ATTENTIVE:
        raise ConfigError(
            f"{spec.architecture} takes no decoder_attention; expected one of "
            f"{', '.join(_ATTENTIVE)}, or leave it out"
        )
    if spec.full_resolution_skip and spec.architecture.lower() not in _FULL_SIZE:
        raise ConfigError(
            f"{spec.architecture} decodes at reduced resolution and takes no "
            f"full_resolution_skip; set it to 0, or take one of {', '.join(_FULL_SIZE)}"
        )
    if spec.encoder_args and not spec.encoder.startswith(_TIMM):
        raise ConfigError(
            f"got encoder_args for {spec.encoder}; expected an encoder of timm ({_TIMM}...), which "
            "alone take any"
        )
    if spec.encoder.startswith(_TIMM):
        if not timm.is_model(spec.encoder.removeprefix(_TIMM)):
            known = [_TIMM + name for name in timm.list_models()]
            _require_known("encoder", spec.encoder, known)
    else:
        _require_known("encoder", spec.encoder, smp.encoders.get_encoder_names())


def _require_known(what: str, name: str, known: list[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=5)
    hint = ", ".join(near) if near else f"one of the {len(known)} that smp and timm offer"
    raise ConfigError(f"got {what} {name!r}; expected for example {hint}")


def _create(spec: NetworkSpec, encoder_weights: str | bool | None = None) -> nn.Module:
    architecture = spec.architecture.lower()
    try:
        network = _of_names(spec, architecture, encoder_weights)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        if encoder_weights is not None:
            raise  # the weights may be at fault, which the caller can tell
        raise ConfigError(
            f"encoder {spec.encoder!r} does not fit architecture {spec.architecture!r}: "
            f"{_first_line(error)}; choose another encoder, other encoder_args, or architecture "
            "DPT for a plain vision transformer"
        ) from error
    if architecture == _CONCAT:
        join_skips(network)
    if spec.full_resolution_skip:
        add_full_resolution_skip(network, image=spec.in_channels, skip=spec.full_resolution_skip)
    return network


def _of_names(
    spec: NetworkSpec, architecture: str, encoder_weights: str | bool | None
) -> nn.Module:
    """Network of smp, as it is."""
    arguments: dict[str, Any] = {
        name: _LAYERS.get(str(value), value) if name == "mlp_layer" else value
        for name, value in spec.encoder_args
    }
    if architecture == _DPT:
        if not spec.encoder.startswith(_TIMM):
            raise ValueError("DPT takes encoders of timm (tu-...)")
        name, pretrained = spec.encoder.removeprefix(_TIMM), encoder_weights is not None
        encoder = VitEncoder(name, spec.in_channels, arguments, pretrained=pretrained)
        return PlainDPT(encoder, spec.classes)
    if spec.decoder_attention is not None:
        arguments["decoder_attention_type"] = spec.decoder_attention
    if architecture == _LEAN:
        arguments["decoder_channels"] = _LEAN_CHANNELS
    network: nn.Module = smp.create_model(
        _VARIANTS.get(architecture, architecture),
        encoder_name=spec.encoder,
        encoder_weights=encoder_weights,
        in_channels=spec.in_channels,
        classes=spec.classes,
        **arguments,
    )
    return network


def _start(spec: NetworkSpec, tensors: dict[str, torch.Tensor], *, source: str) -> nn.Module:
    """Network that starts from tensors: of a whole network, or of an encoder."""
    network = _create(spec)
    whole = of_network(tensors, network.state_dict().keys(), source=source)
    if whole is None:
        whole = unwrapped(tensors)
        if not any(name.startswith("decoder.") for name in whole):
            fill_encoder(network.get_submodule("encoder"), tensors, source=source)
            return network
    try:
        return _fill_network(network, whole)
    except RuntimeError as error:
        raise CheckpointError(
            f"weights {source} do not fit {spec.architecture} with encoder {spec.encoder}: "
            f"{_first_line(error)}"
        ) from error


def _fill_network(network: nn.Module, tensors: dict[str, torch.Tensor]) -> nn.Module:
    """Load a whole network; only the last layer may differ, because classes may."""
    head = {n: t for n, t in network.state_dict().items() if n.startswith("segmentation_head.")}
    if any(name in tensors and tensors[name].shape != head[name].shape for name in head):
        tensors = tensors | head
    network.load_state_dict(tensors)
    return network


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return " ".join(line.strip() for line in lines[:2]) if lines else type(error).__name__
