"""Owns the model card: what inference needs to know about a network, and its JSON format."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsi_seg.classes import ClassMode, ClassTable
from wsi_seg.config.intensity import IntensityConfig
from wsi_seg.config.recipe import Resize
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError
from wsi_seg.models.foundation import Value
from wsi_seg.models.network import NetworkSpec
from wsi_seg.reading.view import View, channels_with

# Version of the card format: 2 added resize, context_slices and full_resolution_skip.
FORMAT = 2

# Output of a network; `probabilities` means that it includes the activation.
Output = Literal["logits", "probabilities"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Everything that is needed to use a network for inference.

    Parameters
    ----------
    architecture, encoder
        See `NetworkSpec`; None for a custom module, which cannot be built from the card.
    in_channels
        See `NetworkSpec`.
    classes
        Classes in the order of the output channels; exclusive classes have the background channel
        before them.
    mpp
        Micrometres per pixel of the training patches; None for pixels of level 0.
    tile_px
        Side of the training patches, in pixels.
    mean, std
        Normalisation of ``image / 255``, one value per channel.
    scores
        Validation scores by name, for example ``val_dice``.
    training
        Training record, as JSON values.
    decoder_attention, full_resolution_skip
        See `NetworkSpec`.
    resize, resize_px, context_slices, context_step_mm, intensity
        Preprocessing of slides; see `reading.view.View`.
    min_object_um2
        Minimum area of an object; exports leave out smaller ones. 0 keeps all.
    output
        Whether the network returns logits, or probabilities 0 to 1.
    encoder_args
        See `NetworkSpec`, as a mapping.

    Examples
    --------
    >>> card = ModelCard(
    ...     classes=ClassTable.named(["gland"]),
    ...     mpp=0.5,
    ...     tile_px=512,
    ...     mean=(0.485, 0.456, 0.406),
    ...     std=(0.229, 0.224, 0.225),
    ... )
    """

    classes: ClassTable
    mpp: float | None
    tile_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    architecture: str | None = None
    encoder: str | None = None
    in_channels: int = 3
    scores: dict[str, float] = field(default_factory=dict)
    training: dict[str, object] = field(default_factory=dict)
    decoder_attention: str | None = None
    resize: Resize | None = None
    context_slices: int = 0
    full_resolution_skip: int = 0
    min_object_um2: float = 0.0
    context_step_mm: float | None = None
    intensity: IntensityConfig = IntensityConfig()  # noqa: RUF009 (frozen)
    output: Output = "logits"
    encoder_args: dict[str, Value] = field(default_factory=dict)
    resize_px: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.in_channels:
            raise ConfigError(
                f"got {counted(len(self.mean), 'mean')} and "
                f"{counted(len(self.std), 'standard deviation')}; "
                f"expected {self.in_channels} of each"
            )

    def view(self, tile_px: int | None = None) -> View:
        """Return the preprocessing of slides; ``tile_px`` overrides the tile that they fill."""
        return View(
            self.mpp,
            self.resize,
            tile_px or self.tile_px,
            self.context_slices,
            self.context_step_mm,
            self.intensity,
            self.resize_px,
        )

    @property
    def spec(self) -> NetworkSpec:
        """Specification from which the network is built.

        Raises
        ------
        ConfigError
            If the card belongs to a custom module.
        """
        if self.architecture is None or self.encoder is None:
            raise ConfigError(
                "got a card without architecture and encoder; expected the names of an smp "
                "network, because the network of a checkpoint is built from its card"
            )
        return NetworkSpec(
            self.architecture,
            self.encoder,
            self.in_channels,
            self.classes.outputs,
            self.decoder_attention,
            self.full_resolution_skip,
            tuple(sorted(self.encoder_args.items())),
        )

    def to_json(self) -> dict[str, object]:
        """Return the card as JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {"intensity": self.intensity.model_dump(mode="json")}
        return {"format": FORMAT} | values | {"classes": self.classes.to_json()}


class _ClassRow(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    colour: str
    merged: list[str] = Field(default=[], alias="from")


_ClassRows = Annotated[list[_ClassRow], Field(min_length=1, max_length=254)]


class _ClassTable(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    mode: ClassMode
    table: _ClassRows


class _CardFile(BaseModel):
    """Schema of a card on disk, validated strictly because files are untrusted."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    format: int
    architecture: str | None = None
    encoder: str | None = None
    in_channels: int = Field(ge=1, le=1024)
    classes: _ClassRows | _ClassTable
    mpp: float | None = Field(gt=0)
    tile_px: int = Field(ge=1, le=2**16)
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]
    scores: dict[str, float]
    training: dict[str, object]
    decoder_attention: str | None = None
    resize: Resize | None = None
    context_slices: int = Field(default=0, ge=0, le=32)
    full_resolution_skip: int = Field(default=0, ge=0, le=64)
    min_object_um2: float = Field(default=0.0, ge=0)
    context_step_mm: float | None = Field(default=None, gt=0)
    intensity: dict[str, object] = Field(default_factory=dict)
    output: Output = "logits"
    encoder_args: dict[str, Value] = {}
    resize_px: tuple[int, int] | None = None

    @model_validator(mode="before")
    @classmethod
    def _format_of_today(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise ValueError(
                f"it has format {values.get('format')!r}; expected {FORMAT}; train again, or use "
                "the version of wsi_seg that wrote it"
            )
        return values

    def card(self) -> ModelCard:
        """Convert to a `ModelCard`."""
        if self.context_slices and self.in_channels != channels_with(self.context_slices):
            raise ConfigError(
                f"got {counted(self.in_channels, 'channel')} and "
                f"{counted(self.context_slices, 'context slice')}; "
                f"expected {channels_with(self.context_slices)} channels"
            )
        values = self.model_dump(by_alias=True, include={"classes"})
        return ModelCard(
            architecture=self.architecture,
            encoder=self.encoder,
            in_channels=self.in_channels,
            classes=ClassTable.from_json(values["classes"]),
            mpp=self.mpp,
            tile_px=self.tile_px,
            mean=tuple(self.mean),
            std=tuple(self.std),
            scores=self.scores,
            training=self.training,
            decoder_attention=self.decoder_attention,
            resize=self.resize,
            context_slices=self.context_slices,
            full_resolution_skip=self.full_resolution_skip,
            min_object_um2=self.min_object_um2,
            context_step_mm=self.context_step_mm,
            intensity=IntensityConfig.model_validate_json(json.dumps(self.intensity)),
            output=self.output,
            encoder_args=self.encoder_args,
            resize_px=self.resize_px,
        )


def card_from_json(text: str) -> ModelCard:
    """Parse a card from JSON.

    Raises
    ------
    ConfigError
        If it is not a valid card; the message names the invalid fields.
    """
    try:
        return _CardFile.model_validate_json(text).card()
    except ValidationError as error:
        found = [
            ": ".join([*map(str, one["loc"]), one["msg"].removeprefix("Value error, ")])
            for one in error.errors()[:5]
        ]
        raise ConfigError("; ".join(found)) from error
