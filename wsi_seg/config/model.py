"""Owns the recipe section for the network."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wsi_seg.config.section import Section, Unit

# Suffixes of weight files.
_FILES = (".safetensors", ".pth", ".pt", ".bin")


class ModelConfig(Section):
    """Network; see `wsi_seg.models.build_network`."""

    architecture: str = "UnetLean"
    """Name of the architecture in segmentation_models_pytorch (smp)."""
    encoder: str = "tu-tf_efficientnet_lite0"
    """Name of the encoder in smp; timm encoders have the prefix ``tu-``. Pathology foundation
    models, with architecture ``DPT``: ``UNI2-h``, ``Virchow2``, ``H-optimus-0``, ``H-optimus-1``,
    ``H0-mini``, ``Phikon-v2`` or ``Prov-GigaPath``; or ``hf-hub:OWNER/NAME`` of any timm model."""
    encoder_args: dict[str, bool | int | float | str] = Field(default={})
    """Keyword arguments for timm's ``create_model``, such as ``dynamic_img_size: true``."""
    encoder_training: Literal["full", "frozen", "lora"] = "full"
    """Which weights of the encoder are trained: all, none, or low-rank adapters of its linear
    layers (LoRA)."""
    lora_rank: int = Field(default=8, ge=1, le=256)
    """Rank of the adapters."""
    weights: str | None = "imagenet"
    """Initial weights: ``imagenet`` (installed with the package for ``tu-tf_efficientnet_lite0``,
    ``lite1`` and ``lite2``; downloaded for other encoders; a pathology foundation model has its
    own) or the name of other published weights; ``hf-hub:OWNER/NAME``; the path of a file
    (``.safetensors``, ``.pth``, ``.pt`` or ``.bin``), in which ``{fold}`` is replaced by the index
    of the fold; or null (random)."""
    decoder_attention: Literal["scse"] | None = None
    """Attention in the decoder of Unet and UnetPlusPlus; null uses no attention."""
    full_resolution_skip: Annotated[int, Unit("channels")] = Field(default=0, ge=0, le=64)
    """Width of an extra skip connection at full resolution, which smp's networks lack, for sharper
    borders of small objects; 0 adds no skip."""
    head: Literal["avg", "max", "gem"] | None = None
    """Pooling of a classification head, which predicts whether each class is in the patch and is
    trained by ``loss.bce_empty``; null adds no head."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of the decoder's channels before the last layer, and of the
    classification head's input."""
    deep_supervision: float = Field(default=0.0, ge=0)
    """Weight of the loss at each inner depth of the decoder; 0 disables deep supervision."""
    encoder_norm: Literal["auto", "batch", "kept"] = "auto"
    """Statistics of the encoder's BatchNorm: those of the ``batch``, or the running statistics
    ``kept`` from its initial weights; ``auto`` keeps them if there are initial weights and fewer
    than 8 patches per step and device."""
    freeze_encoder_epochs: Annotated[int, Unit("epochs")] = Field(default=0, ge=0)
    """Number of epochs at the start in which the encoder is frozen."""

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
        """Initial weights; a `Path` if they are a file."""
        if self.weights is None or self.weights.startswith("hf-hub:"):
            return self.weights
        return Path(self.weights) if self.weights.endswith(_FILES) else self.weights
