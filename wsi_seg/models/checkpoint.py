"""Owns checkpoints: one safetensors file that holds the weights and a model card, nothing else.

The card is JSON in the file's own metadata, so weights and card cannot be separated; a copy
for people is next to the file. Such a file cannot run code when it is opened, so formats that can
(pickles: ``.pt``, ``.pth``, ``.ckpt``) are refused.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from wsi_seg.atomic import write_atomic
from wsi_seg.classes import ClassMode, ClassTable
from wsi_seg.config.intensity import IntensityConfig
from wsi_seg.config.recipe import Resize
from wsi_seg.errors import CheckpointError, ConfigError, OutputError
from wsi_seg.models.foundation import Value
from wsi_seg.models.lora import plain_state
from wsi_seg.models.network import NetworkSpec, blank_network
from wsi_seg.models.tensors import read_safetensors
from wsi_seg.reading.view import View, channels_with

# Form of a card: 2 since it says resize, context_slices and full_resolution_skip.
FORMAT = 2

_KEY = "wsi_seg"

# Longest header we read. A network of 10,000 tensors needs 2 MB; more is an attack or damage.
_MAX_HEADER_BYTES = 2**24

# What a network gives: `probabilities` has its activation inside.
Output = Literal["logits", "probabilities"]

# First bytes of formats that can hold pickles: zip archives and pickle protocols 2 to 5.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What has to be known about a network to use it rightly.

    Parameters
    ----------
    architecture, encoder
        See `NetworkSpec`; None for a module of one's own, which no file can be built from.
    in_channels
        See `NetworkSpec`.
    classes
        Classes in the order of the output channels; where they are exclusive, the background has
        the channel before them.
    mpp
        Micrometres per pixel that the network was trained at; None for pixels of level 0.
    tile_px
        Side of the patches that it was trained on.
    mean, std
        Normalisation of ``image / 255``, one value per channel.
    scores
        Validation scores by name, for example ``val_dice``.
    training
        How it was trained, as plain JSON values.
    decoder_attention, full_resolution_skip
        See `NetworkSpec`.
    resize, context_slices, context_step_mm, intensity
        How the network looks at slides; see `reading.view.View`.
    min_object_um2
        Area below which nothing is an object of these classes; exports leave it out. 0 for none.
    output
        Whether the network gives logits, or probabilities 0 to 1.
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

    def __post_init__(self) -> None:
        if not len(self.mean) == len(self.std) == self.in_channels:
            raise ConfigError(
                f"got {len(self.mean)} means and {len(self.std)} deviations; "
                f"expected {self.in_channels} of each"
            )

    def view(self, tile_px: int | None = None) -> View:
        """How the network looks at slides; with another ``tile_px``, a resized slide fills that."""
        return View(
            self.mpp,
            self.resize,
            tile_px or self.tile_px,
            self.context_slices,
            self.context_step_mm,
            self.intensity,
        )

    @property
    def spec(self) -> NetworkSpec:
        """What to build.

        Raises
        ------
        ConfigError
            If the card is that of a module of one's own.
        """
        if self.architecture is None or self.encoder is None:
            raise ConfigError(
                "got a card without architecture and encoder; expected the names of an smp "
                "network, because a checkpoint is built from its card"
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
        """Card as plain JSON values."""
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
    """Form of a card on disk; checked strictly because files come from anywhere."""

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

    @model_validator(mode="before")
    @classmethod
    def _format_of_today(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise ValueError(
                f"it has format {values.get('format')!r}; expected {FORMAT}; train again, or use "
                "the wsi_seg that wrote it"
            )
        return values

    def card(self) -> ModelCard:
        """Card in the form the rest of the code uses."""
        if self.context_slices and self.in_channels != channels_with(self.context_slices):
            raise ConfigError(
                f"got {self.in_channels} channels and {self.context_slices} context slices; "
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
        )


def save_checkpoint(path: Path, network: nn.Module, card: ModelCard) -> None:
    """Write a network and its card, and the card once more as JSON next to it for people.

    Both files are written atomically.

    Parameters
    ----------
    path
        Ends with ``.safetensors``; the copy of the card replaces that by ``.json``.
    network
        Built by `build_network` from ``card.spec``; what `lora` added is added to its weights.
    card
        Embedded in the file.

    Raises
    ------
    OutputError
        If the files cannot be written.
    """
    if path.suffix != ".safetensors":
        raise OutputError(f"got checkpoint path {path}; expected a name ending in .safetensors")
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in plain_state(network).items()
    }
    values = card.to_json()
    metadata = {_KEY: json.dumps(values, allow_nan=False), "format": "pt"}
    write_atomic(path, save(tensors, metadata))
    pretty = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path.with_suffix(".json"), pretty + "\n")


def load_checkpoint(path: Path | str) -> tuple[nn.Module, ModelCard]:
    """Load a network and its card; torch's global generator is left as it was.

    Parameters
    ----------
    path
        Checkpoint, such as ``run/best.safetensors``.

    Returns
    -------
    nn.Module, ModelCard
        In eval mode, on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, a pickle, has no card, or card and weights disagree.

    Examples
    --------
    >>> network, card = load_checkpoint("run/best.safetensors")  # doctest: +SKIP
    """
    path = Path(path)
    card = read_card(path)
    try:
        with torch.random.fork_rng(devices=[]):
            network = blank_network(card.spec)
        network.load_state_dict(read_safetensors(path))
    except (SafetensorError, RuntimeError, ConfigError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"checkpoint {path}: the weights do not fit its model card ({card.architecture}, "
            f"{card.encoder}): {reason}"
        ) from error
    return network.eval(), card


def read_card(path: Path) -> ModelCard:
    """Model card of a checkpoint, without reading its weights.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, a pickle, or has no valid card.
    """
    _require_safetensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {path} is damaged ({error}); expected a file written by `wsi-seg train`"
        ) from error
    if text is None:
        raise CheckpointError(
            f"checkpoint {path} has no model card; expected a file written by `wsi-seg train`; "
            "plain weights can only be named as model.weights of a recipe"
        )
    try:
        return card_from_json(text)
    except (ValidationError, ConfigError) as error:
        raise CheckpointError(
            f"checkpoint {path} has a damaged model card: {' '.join(str(error).split())[:300]}"
        ) from error


def card_from_json(text: str) -> ModelCard:
    """Card from its JSON.

    Raises
    ------
    pydantic.ValidationError, ConfigError
        If it is not a card.
    """
    return _CardFile.model_validate_json(text).card()


def weights_digest(path: Path) -> str:
    """SHA-256 of a checkpoint's tensors alone, whatever its card says.

    Raises
    ------
    CheckpointError
        If it is not a safetensors file.
    """
    _require_safetensors(path)
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()


# Model that comes with the package; its page is next to it.
_SHIPPED = Path(__file__).parent / "shipped" / "nuclei_he.safetensors"


def shipped_checkpoint() -> Path:
    """File of the model that comes with the package: nuclei in H&E."""
    return _SHIPPED


def newest_checkpoint(folder: Path) -> Path | None:
    """Best checkpoint of the last training run under a folder; None without one."""
    # A run that keeps several networks writes others after the best.
    every = list(folder.rglob("best.safetensors")) or list(folder.rglob("*.safetensors"))
    found = sorted(every, key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None


def _require_safetensors(path: Path) -> None:
    """Refuse, by content, whatever cannot be a checkpoint of ours."""
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; expected a .safetensors file")
    with path.open("rb") as file:
        head = file.read(9)
    length, size = int.from_bytes(head[:8], "little"), path.stat().st_size
    # The header is JSON; its length alone may look like the start of a pickle.
    if head[8:] == b"{" and length <= min(size - 8, _MAX_HEADER_BYTES):
        return
    if head.startswith(_PICKLES):
        raise CheckpointError(
            f"checkpoint {path} is a pickle, which can run code when it is opened; expected a "
            ".safetensors file written by `wsi-seg train`"
        )
    raise CheckpointError(
        f"checkpoint {path} is not a safetensors file, or is cut short ({size} bytes, header of "
        f"{length}); expected a file written by `wsi-seg train`"
    )
