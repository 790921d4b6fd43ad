"""Owns the section of a recipe that says which network is trained."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from wsi_seg.config.section import Section

# What files of weights end with.
_FILES = (".safetensors", ".pth", ".pt", ".bin")


class ModelConfig(Section):
    """Network; see `wsi_seg.models.build_network`.

    Parameters
    ----------
    architecture, encoder
        Names in smp; a timm encoder is named after ``tu-``.
    weights
        ``imagenet`` (an installed package has them for ``tu-tf_efficientnet_lite0``, ``lite1``
        and ``lite2``; those of other encoders are downloaded) or the name of other published
        weights; ``hf-hub:OWNER/NAME``; the path of a file (``.safetensors``, ``.pth``, ``.pt`` or
        ``.bin``); or null (random). In a path ``{fold}`` stands for the number of the fold, so
        that a fold can go on from the network of an earlier run that has not seen its slides
        either.
    decoder_attention
        ``scse`` or null; Unet and UnetPlusPlus alone have it.
    full_resolution_skip
        Channels of a skip at full resolution, which smp's networks lack: sharper borders of small
        objects; 0 has none.
    head
        Pooling of a class head, which tells whether each class is in the patch at all; null has
        no head. Its loss is the term ``bce_empty``.
    dropout
        Share of the decoder's channels left out before the last layer, and of the head's input.
    deep_supervision
        Weight of the loss of each inner depth of the decoder; 0 has none.
    encoder_norm
        What BatchNorm of the encoder goes by: the ``batch``, or the statistics ``kept`` from its
        first weights. ``auto`` keeps them below 8 patches per step and device, which say too
        little, where there are first weights.
    freeze_encoder_epochs
        The encoder begins to learn after so many epochs.
    """

    architecture: str = "UnetLean"
    encoder: str = "tu-tf_efficientnet_lite0"
    weights: str | None = "imagenet"
    decoder_attention: Literal["scse"] | None = None
    full_resolution_skip: int = Field(default=0, ge=0, le=64)
    head: Literal["avg", "max", "gem"] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    deep_supervision: float = Field(default=0.0, ge=0)
    encoder_norm: Literal["auto", "batch", "kept"] = "auto"
    freeze_encoder_epochs: int = Field(default=0, ge=0)

    @property
    def start(self) -> str | Path | None:
        """Weights to start from: a path where a file is named."""
        if self.weights is None or self.weights.startswith("hf-hub:"):
            return self.weights
        return Path(self.weights) if self.weights.endswith(_FILES) else self.weights
