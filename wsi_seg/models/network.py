"""Owns building networks: architectures of smp, encoders of smp and timm, initial weights."""

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
from wsi_seg.models.linknet import concatenate_skips
from wsi_seg.models.plain_vit import PlainDPT, VitEncoder
from wsi_seg.models.pretrained import (
    HUB,
    fill_encoder,
    hub_config,
    hub_weights,
    missing_weights,
    packaged_weights,
)
from wsi_seg.models.tensors import read_tensors, select_network, strip_prefixes

logger = logging.getLogger(__name__)

# Linknet with concatenated skip connections.
_CONCAT = "linknetconcat"

# smp's Unet with these decoder channels; a training step takes a third of the time.
_LEAN = "unetlean"
_LEAN_CHANNELS = (96, 48, 32, 16, 8)

# DPT for plain vision transformers.
_DPT = "dpt"

# smp architectures that the variants are built from.
_VARIANTS = {_CONCAT: "linknet", _LEAN: "unet"}

ARCHITECTURES = {
    model.__name__: name for name, model in smp.MODEL_ARCHITECTURES_MAPPING.items()
} | {"LinknetConcat": _CONCAT, "UnetLean": _LEAN}

# Architectures with decoder_attention.
_ATTENTION = ("unet", "unetplusplus")

# Architectures whose decoder's output has the size of the image.
_FULL_SIZE = ("unet", "unetplusplus", "linknet", "manet", _CONCAT, _LEAN)

# Prefix in smp of encoders from timm.
_TIMM = "tu-"

# Prefix in older releases of smp, which had its own copies of timm's encoders.
_OLD_SMP = "timm-"

# Layer classes for timm's mlp_layer argument, by name.
_LAYERS = {name: getattr(timm.layers, name) for name in ("Mlp", "GluMlp", "SwiGLU", "SwiGLUPacked")}

# Channel statistics of ImageNet: the default normalisation.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Everything that determines the layers of a network.

    Parameters
    ----------
    architecture
        Name of an smp model, case-insensitive, for example ``Unet``, ``Linknet``,
        ``UnetPlusPlus``, ``FPN``, ``PAN`` or ``DeepLabV3Plus``; or ``UnetLean``, a Unet with a
        narrow decoder, or ``LinknetConcat``, which concatenates its skip connections.
    encoder
        Name of an smp encoder (``efficientnet-b0``), or of a timm model with the prefix ``tu-``.
    in_channels
        Channels of the image.
    classes
        Channels of the output; see `ClassTable.outputs`.
    decoder_attention
        ``scse`` adds channel and spatial attention to the decoder (Unet and UnetPlusPlus).
    full_resolution_skip
        Channels of a skip connection at full resolution, which smp's networks lack; 0 adds none.
    encoder_args
        Sorted keyword arguments for timm's ``create_model``, such as
        ``("dynamic_img_size", True)``.
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
    """Mean and standard deviation of ``image / 255`` per channel that a network expects."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def build_network(spec: NetworkSpec, *, weights: str | Path | None = None) -> nn.Module:
    """Build a network that maps normalised images to logits.

    The input is ``(B, in_channels, H, W)`` float32 with sides that are multiples of
    `size_multiple`; the output is ``(B, classes, H, W)`` float32 logits; see `models.activation`.

    Parameters
    ----------
    spec
        Specification of the network.
    weights
        None for random weights (from torch's global generator); ``imagenet`` or another name of
        encoder weights in an installed package or published by smp or timm;
        ``hf-hub:OWNER/NAME``; or a local file (``.safetensors``, or from ``torch.save``) with the
        weights of a whole network, or of an encoder with the names of smp, timm, torchvision or the
        original EfficientNet.

    Raises
    ------
    ConfigError
        If the architecture or encoder does not exist, or they are incompatible.
    CheckpointError
        If the weights cannot be loaded. There is no fallback to random weights.
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
        # timm selects weights by the encoder's name; smp expects True for them.
        return _create(spec, True if spec.encoder.startswith(_TIMM) else weights)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise missing_weights(spec.encoder, weights, _first_line(error)) from error


def blank_network(spec: NetworkSpec) -> nn.Module:
    """Build a network on the CPU without random initialisation, for weights to be loaded.

    Raises
    ------
    ConfigError
        See `build_network`.
    """
    with _SkipInit():
        return build_network(spec)


class _SkipInit(TorchFunctionMode):
    """Skips random initialisation of weights."""

    _INITS = (
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
        if func in self._INITS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def size_multiple(network: nn.Module) -> int:
    """Return the number of which height and width of the network's input must be multiples."""
    if not getattr(network, "requires_divisible_input_shape", False):
        return 1
    encoder = network.get_submodule("encoder")
    return int(encoder.output_stride)  # type: ignore[arg-type]  # smp leaves it unannotated


def published_normalisation(spec: NetworkSpec, weights: str | Path | None) -> Normalisation:
    """Return the normalisation with which the published weights of an encoder were trained.

    It is that of ImageNet without weights or for a local file of an smp encoder; a model on the Hub
    may have its own.

    Raises
    ------
    CheckpointError
        If the encoder expects anything but RGB in 0..1, or its config cannot be downloaded.
    """
    timm_encoder = spec.encoder.startswith(_TIMM)
    if spec.in_channels != 3:
        return Normalisation((0.5,) * spec.in_channels, (0.5,) * spec.in_channels)
    if weights is None or (isinstance(weights, Path) and not timm_encoder):
        return Normalisation(_IMAGENET_MEAN, _IMAGENET_STD)
    try:
        config = _preprocessing(spec.encoder, str(weights))
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"got no normalisation for weights {str(weights)!r} of encoder {spec.encoder!r} "
            f"({_first_line(error)}); connect to the network once, or name a local file"
        ) from error
    if config["input_space"] != "RGB" or list(config["input_range"]) != [0, 1]:
        raise CheckpointError(
            f"weights {str(weights)!r} of encoder {spec.encoder!r} need {config['input_space']} "
            f"in the range {config['input_range']}; expected RGB in 0..1; use another encoder"
        )
    return Normalisation(tuple(config["mean"]), tuple(config["std"]))


def published_size(spec: NetworkSpec) -> int | None:
    """Return the image side for which a timm encoder was published, in pixels; None if unknown."""
    found = timm.get_pretrained_cfg(spec.encoder.removeprefix(_TIMM))
    return None if found is None else int(found.input_size[-1])


def _preprocessing(encoder: str, weights: str) -> dict[str, Any]:
    """Return ``mean``, ``std``, ``input_space`` and ``input_range`` of published weights."""
    if not weights.startswith(HUB):
        published: dict[str, Any] = smp.encoders.get_preprocessing_params(encoder, weights)
        return published
    defaults = {
        "input_space": "RGB",
        "input_range": [0, 1],
        "mean": _IMAGENET_MEAN,
        "std": _IMAGENET_STD,
    }
    return defaults | hub_config(weights)


def current_encoder(name: str) -> str:
    """Return the current name of an encoder, with a warning if smp or timm renamed it."""
    if name.startswith(_OLD_SMP):
        bare = name.removeprefix(_OLD_SMP).replace("efficientnet-", "tf_efficientnet_")
        now = _TIMM + ("tf_" + bare if bare.startswith("mobilenetv3") else bare)
    else:
        renamed = timm.models.get_deprecated_models().get(name.removeprefix(_TIMM))
        now = _TIMM + renamed if name.startswith(_TIMM) and renamed else name
    if now != name:
        logger.warning("encoder %s was renamed to %s; use the new name in the recipe", name, now)
    return now


def _require_names(spec: NetworkSpec) -> None:
    _require_known("architecture", spec.architecture.lower(), list(ARCHITECTURES.values()))
    if spec.decoder_attention is not None and spec.architecture.lower() not in _ATTENTION:
        raise ConfigError(
            f"{spec.architecture} takes no decoder_attention; leave it out, or use one of "
            f"{', '.join(_ATTENTION)}"
        )
    if spec.full_resolution_skip and spec.architecture.lower() not in _FULL_SIZE:
        raise ConfigError(
            f"{spec.architecture} decodes at reduced resolution and takes no "
            f"full_resolution_skip; set it to 0, or use one of {', '.join(_FULL_SIZE)}"
        )
    if spec.encoder_args and not spec.encoder.startswith(_TIMM):
        raise ConfigError(
            f"got encoder_args for {spec.encoder}; only timm encoders ({_TIMM}...) take them"
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
        network = _create_smp(spec, architecture, encoder_weights)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        if encoder_weights is not None:
            raise  # the caller reports failures of the weights
        raise ConfigError(
            f"encoder {spec.encoder!r} is incompatible with architecture {spec.architecture!r}: "
            f"{_first_line(error)}; use another encoder, other encoder_args, or architecture "
            "DPT for a plain vision transformer"
        ) from error
    if architecture == _CONCAT:
        concatenate_skips(network)
    if spec.full_resolution_skip:
        add_full_resolution_skip(network, image=spec.in_channels, skip=spec.full_resolution_skip)
    return network


def _create_smp(
    spec: NetworkSpec, architecture: str, encoder_weights: str | bool | None
) -> nn.Module:
    """Build a network of smp, before the modifications of `_create`."""
    arguments: dict[str, Any] = {
        name: _LAYERS.get(str(value), value) if name == "mlp_layer" else value
        for name, value in spec.encoder_args
    }
    if architecture == _DPT:
        if not spec.encoder.startswith(_TIMM):
            raise ValueError("DPT takes timm encoders (tu-...)")
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
    """Build a network initialised with the tensors of a whole network or of an encoder."""
    network = _create(spec)
    whole = select_network(tensors, network.state_dict().keys(), source=source)
    if whole is None:
        whole = strip_prefixes(tensors)
        if not any(name.startswith("decoder.") for name in whole):
            fill_encoder(network.get_submodule("encoder"), tensors, source=source)
            return network
    try:
        return _fill_network(network, whole)
    except RuntimeError as error:
        raise CheckpointError(
            f"weights {source} do not match {spec.architecture} with encoder {spec.encoder}: "
            f"{_first_line(error)}"
        ) from error


def _fill_network(network: nn.Module, tensors: dict[str, torch.Tensor]) -> nn.Module:
    """Load a whole network; the last layer stays random if the number of classes differs."""
    head = {n: t for n, t in network.state_dict().items() if n.startswith("segmentation_head.")}
    if any(name in tensors and tensors[name].shape != head[name].shape for name in head):
        tensors = tensors | head
    network.load_state_dict(tensors)
    return network


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return " ".join(line.strip() for line in lines[:2]) if lines else type(error).__name__
