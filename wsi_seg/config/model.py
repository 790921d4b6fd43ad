"""Owns the section of a recipe that says which network is trained."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from wsi_seg.config.section import Section, Unit

# What files of weights end with.
_FILES = (".safetensors", ".pth", ".pt", ".bin")


class ModelConfig(Section):
    """Network; see `wsi_seg.models.build_network`."""

    architecture: str = "UnetLean"
    """Architecture, by its name in smp."""
    encoder: str = "tu-tf_efficientnet_lite0"
    """Encoder, by its name in smp; a timm encoder has ``tu-`` before its name."""
    weights: str | None = "imagenet"
    """First weights: ``imagenet`` (an installed package has them for ``tu-tf_efficientnet_lite0``,
    ``lite1`` and ``lite2``; those of other encoders are downloaded) or the name of other published
    weights; ``hf-hub:OWNER/NAME``; the path of a file (``.safetensors``, ``.pth``, ``.pt`` or
    ``.bin``), in which ``{fold}`` stands for the number of the fold; or null (random)."""
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

    @property
    def start(self) -> str | Path | None:
        """Weights to start from: a path where a file is named."""
        if self.weights is None or self.weights.startswith("hf-hub:"):
            return self.weights
        return Path(self.weights) if self.weights.endswith(_FILES) else self.weights
