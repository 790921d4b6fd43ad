"""Owns the table of pathology foundation models, and looking up encoders on the Hugging Face Hub.

All are plain vision transformers, for the architecture `DPT`. Values are from the model's own page
or from software that loads it; a value that could not be confirmed is None.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from wsi_seg.errors import CheckpointError, ConfigError

HUB = "hf-hub:"

Value = bool | int | float | str

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_BIOPTIMUS = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))

_NC_ND = "CC-BY-NC-ND-4.0"


@dataclass(frozen=True, slots=True)
class Encoder:
    """An encoder for timm's ``create_model``.

    Parameters
    ----------
    name
        Name of the architecture in timm.
    arguments
        Keyword arguments for ``create_model``.
    weights
        ``hf-hub:OWNER/NAME`` of its weights; None if the recipe must name them.
    mean, std
        Normalisation of ``image / 255``, one value per channel; None if unknown.
    """

    name: str
    arguments: dict[str, Value]
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Foundation:
    """A pathology foundation model.

    Parameters
    ----------
    encoder
        Architecture, weights and normalisation.
    mpp
        Micrometres per pixel of its training images; None if unknown.
    tile_px
        Side of its training images, in pixels.
    licence
        Licence of its weights.
    gated
        Whether the download requires an account and accepting terms.
    source
        Source of these values.
    """

    encoder: Encoder
    mpp: float | None
    tile_px: int
    licence: str
    gated: bool
    source: str


def _vit(hub: str, name: str, norm: Any, **arguments: Value) -> Encoder:  # noqa: ANN401
    usual: dict[str, Value] = {"img_size": 224, "init_values": 1e-5, "num_classes": 0}
    usual["dynamic_img_size"] = True
    return Encoder(name, usual | arguments, HUB + hub, *norm)


_GATED: dict[str, Value] = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}

# By the value of model.encoder in a recipe.
FOUNDATIONS: dict[str, Foundation] = {
    "UNI2-h": Foundation(
        _vit(
            "MahmoodLab/UNI2-h", "vit_giant_patch14_224", _IMAGENET, patch_size=14, depth=24,
            num_heads=24, embed_dim=1536, mlp_ratio=5.33334, no_embed_class=True, reg_tokens=8,
            **_GATED,
        ),
        mpp=0.5, tile_px=224, licence=_NC_ND, gated=True,
        source="page of MahmoodLab/UNI2-h, its licence too; 20x by TRIDENT",
    ),
    "Virchow2": Foundation(
        _vit(
            "paige-ai/Virchow2", "vit_huge_patch14_224", _IMAGENET, mlp_ratio=5.3375, reg_tokens=4,
            global_pool="", **_GATED,
        ),
        mpp=0.5, tile_px=224, licence=_NC_ND, gated=True,
        source="config.json of paige-ai/Virchow2; trained at several mpp, used at 20x by TRIDENT; "
        "licence by its page",
    ),
    "H-optimus-0": Foundation(
        _vit("bioptimus/H-optimus-0", "vit_giant_patch14_reg4_dinov2", _BIOPTIMUS),
        mpp=0.5, tile_px=224, licence="Apache-2.0", gated=True,
        source="page of bioptimus/H-optimus-0",
    ),
    "H-optimus-1": Foundation(
        _vit("bioptimus/H-optimus-1", "vit_giant_patch14_reg4_dinov2", _BIOPTIMUS),
        mpp=0.5, tile_px=224, licence=_NC_ND, gated=True,
        source="built as H-optimus-0; 20x by TRIDENT; licence by LazySlide",
    ),
    "H0-mini": Foundation(
        _vit(
            "bioptimus/H0-mini", "vit_base_patch14_reg4_dinov2", _BIOPTIMUS, mlp_ratio=5.33334,
            global_pool="", **_GATED,
        ),
        mpp=0.5, tile_px=224, licence=_NC_ND, gated=True,
        source="model types of the bioptimus SDK; licence by LazySlide",
    ),
    "Phikon-v2": Foundation(
        _vit("owkin/phikon-v2", "vit_large_patch16_224", _IMAGENET),
        mpp=0.5, tile_px=224, licence="Owkin non-commercial", gated=False,
        source="Phikon-v2 (arXiv 2409.09173); licence by its page",
    ),
    "Prov-GigaPath": Foundation(
        _vit(
            "prov-gigapath/prov-gigapath", "vit_giant_patch14_dinov2", _IMAGENET, patch_size=16,
            embed_dim=1536, depth=40, num_heads=24, mlp_ratio=5.33334,
        ),
        mpp=0.5, tile_px=224, licence="Apache-2.0 with conditions", gated=True,
        source="config.json of prov-gigapath/prov-gigapath; 20x by TRIDENT; licence by LazySlide",
    ),
}  # fmt: skip


def find_encoder(name: str) -> Encoder | None:
    """Look up an encoder in `FOUNDATIONS` or on the Hugging Face Hub; None for any other name.

    Parameters
    ----------
    name
        Key of `FOUNDATIONS`, or ``hf-hub:OWNER/NAME`` of a timm model.

    Raises
    ------
    CheckpointError
        If neither the Hub nor its cache has the model.
    ConfigError
        If it is not a timm model.
    """
    known = {key.lower(): found for key, found in FOUNDATIONS.items()}
    if found := known.get(name.lower()):
        return found.encoder
    if not name.startswith(HUB):
        return None
    try:
        text = Path(hf_hub_download(name.removeprefix(HUB), "config.json")).read_text("utf-8")
        config = json.loads(text)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"cannot fetch the config of encoder {name!r} ({reason}); connect to the network once, "
            "or set its architecture (tu-...), encoder_args and a local file as model.weights"
        ) from error
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if not isinstance(architecture, str):
        raise ConfigError(
            f"{name} is not a timm model: its config.json names no architecture; expected a timm "
            f"model, or one of {', '.join(FOUNDATIONS)}"
        )
    given = {
        key: value
        for key, value in (config.get("model_args") or {}).items()
        if isinstance(value, Value) and key != "in_chans"
    }
    norm = config.get("pretrained_cfg") or {}
    mean, std = (tuple(norm[key]) if key in norm else None for key in ("mean", "std"))
    return Encoder(architecture, {"num_classes": 0} | given, name, mean, std)
