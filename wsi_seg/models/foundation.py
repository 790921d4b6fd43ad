"""Owns what is known of published encoders for pathology, and of encoders on the hub.

Each is a plain vision transformer, so a network on it is a `DPT`. Numbers are those of its own
page on the hub, or of programs that load it; what could not be confirmed is left out (None).
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
    """An encoder as timm builds it.

    Parameters
    ----------
    name
        Of the architecture in timm.
    arguments
        What timm is given with it.
    weights
        ``hf-hub:OWNER/NAME`` of its weights; None where the recipe has to name them.
    mean, std
        Normalisation of ``image / 255``; None where nothing is known.
    """

    name: str
    arguments: dict[str, Value]
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Foundation:
    """A published encoder.

    Parameters
    ----------
    encoder
        How timm builds it, where its weights are, and its normalisation.
    mpp
        Micrometres per pixel that it was trained at.
    tile_px
        Side of the images that it was trained on.
    licence
        Of its weights.
    gated
        Whether the hub asks for an account and consent first.
    source
        Where these facts are from.
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

# By the name that a recipe gives as model.encoder.
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
    """Find an encoder by a name of `FOUNDATIONS`, or on the hub; None for any other name.

    Parameters
    ----------
    name
        ``UNI2-h``, ..., or ``hf-hub:OWNER/NAME`` of a model that timm can build.

    Raises
    ------
    CheckpointError
        If the hub or its cache have no such model.
    ConfigError
        If it is not a model of timm.
    """
    known = {key.lower(): found for key, found in FOUNDATIONS.items()}
    if found := known.get(name.lower()):
        return found.encoder
    if not name.startswith(HUB):
        return None
    try:
        text = Path(hf_hub_download(name.removeprefix(HUB), "config.json")).read_text("utf-8")
        stated = json.loads(text)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"got no description of encoder {name!r} ({reason}); connect to the network once, or "
            "name its architecture (tu-...), encoder_args and a local file as model.weights"
        ) from error
    architecture = stated.get("architecture") if isinstance(stated, dict) else None
    if not isinstance(architecture, str):
        raise ConfigError(
            f"{name} is not a model of timm: its config.json names no architecture; expected one, "
            f"or one of {', '.join(FOUNDATIONS)}"
        )
    given = {
        key: value
        for key, value in (stated.get("model_args") or {}).items()
        if isinstance(value, Value) and key != "in_chans"
    }
    norm = stated.get("pretrained_cfg") or {}
    mean, std = (tuple(norm[key]) if key in norm else None for key in ("mean", "std"))
    return Encoder(architecture, {"num_classes": 0} | given, name, mean, std)
