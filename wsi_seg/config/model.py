"""Owns the section of a recipe that says which network is trained."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Unit

# What files of weights end with.
_FILES = (".safetensors", ".pth", ".pt", ".bin")


class ModelConfig(Section):
    """Network; see `wsi_seg.models.build_network`."""

    architecture: str = "UnetLean"
    """Architecture, by its name in smp."""
    encoder: str = "tu-tf_efficientnet_lite0"
    """Encoder, by its name in smp; a timm encoder has ``tu-`` before its name. For pathology, with
    architecture ``DPT``: ``UNI2-h``, ``Virchow2``, ``H-optimus-0``, ``H-optimus-1``, ``H0-mini``,
    ``Phikon-v2`` or ``Prov-GigaPath``; or ``hf-hub:OWNER/NAME`` of any model of timm."""
    encoder_args: dict[str, bool | int | float | str] = Field(default={})
    """What timm is given with the encoder's name, such as ``dynamic_img_size: true``."""
    encoder_training: Literal["full", "frozen", "lora"] = "full"
    """Which weights of the encoder learn: all, none, or small products that are added to those of
    its linear layers (LoRA)."""
    lora_rank: int = Field(default=8, ge=1, le=256)
    """Rank of these products."""
    weights: str | None = "imagenet"
    """First weights: ``imagenet`` (an installed package has them for ``tu-tf_efficientnet_lite0``,
    ``lite1`` and ``lite2``; those of other encoders are downloaded; an encoder for pathology has
    its own) or the name of other published weights; ``hf-hub:OWNER/NAME``; the path of a file
    (``.safetensors``, ``.pth``, ``.pt`` or ``.bin``), in which ``{fold}`` stands for the number of
    the fold; or null (random)."""
    decoder_attention: Literal["scse"] | None = None
    """Attention in the decoder of Unet and UnetPlusPlus; null has no attention."""
    full_resolution_skip: Annotated[int, Unit("channels")] = Field(default=0, ge=0, le=64)
    """Width of a skip connection at full resolution, which smp's networks lack, for sharper
    borders of small objects; 0 has no such skip."""
    head: Literal["avg", "max", "gem"] | None = None
    """Pooling of a class head, which decides whether each class is in the patch at all and is
    trained by ``loss.bce_empty``; null has no head."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the decoder's channels dropped before the last layer, and of the head's input."""
    deep_supervision: float = Field(default=0.0, ge=0)
    """Weight of the loss at each inner depth of the decoder; 0 has no such loss."""
    encoder_norm: Literal["auto", "batch", "kept"] = "auto"
    """What the encoder's BatchNorm normalises by: the ``batch``, or the statistics ``kept`` from
    its first weights; ``auto`` keeps them below 8 patches per step and device, where there are
    first weights."""
    freeze_encoder_epochs: Annotated[int, Unit("epochs")] = Field(default=0, ge=0)
    """How long the encoder's weights are frozen at the start."""

    @model_validator(mode="after")
    def _one_way_to_freeze(self) -> Self:
        if self.encoder_training != "full" and self.freeze_encoder_epochs:
            raise ValueError(
                f"got encoder_training {self.encoder_training} and freeze_encoder_epochs "
                f"{self.freeze_encoder_epochs}; expected one of them"
            )
        return self

    @property
    def start(self) -> str | Path | None:
        """Weights to start from: a path where a file is named."""
        if self.weights is None or self.weights.startswith("hf-hub:"):
            return self.weights
        return Path(self.weights) if self.weights.endswith(_FILES) else self.weights
