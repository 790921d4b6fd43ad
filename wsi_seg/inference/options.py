"""Owns what a user may choose about inference."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wsi_seg.choices import Blend, Compile, Save, Tta
from wsi_seg.errors import ConfigError
from wsi_seg.inference.blend import MAX_OVERLAP
from wsi_seg.shard import Shard

if TYPE_CHECKING:  # it loads what draws polygons, which most runs need not
    from wsi_seg.masks.inside import Inside

# Strips are whole chunks of the output.
STRIP_ROWS = 512

# Classes up to which probabilities are saved too where nothing else is asked for.
_PROBABILITIES_UP_TO = 4


@dataclass(frozen=True, slots=True)
class InferOptions:
    """What a user may choose about inference.

    Parameters
    ----------
    overlap
        Fraction of a tile that neighbouring tiles share, 0 to 0.9; or ``adaptive``: first 0,
        then half a tile where it is needed, see `inference.adaptive`.
    tile_px
        Side of a tile at the inference level; None takes the model card's.
    blend
        How overlapping tiles are merged; see `blend.axis_weights`.
    batch
        Tiles per forward pass; 0 lets the predictor choose.
    device, precision
        ``auto``, or a torch device; ``auto``, ``fp32``, ``bf16`` or ``fp16``.
    tta
        Test-time augmentation: ``none``, ``hflip``, ``flips`` or ``d4``.
    skip_background
        Leave out tiles in which the store's tissue mask has nothing.
    allow_mpp_mismatch
        Accept a slide of unknown or too coarse mpp; the override is recorded in the output.
    compiled
        Compile networks before they run: ``on``, ``off``, or ``auto``: on CUDA, where the tiles
        that are planned save more time than it costs.
    readers
        Reads and decodes at a time; 0 is the cores of this process less two, at least two.
    save
        ``probabilities``, ``labels`` or ``both``; ``auto`` is both up to 4 classes, else labels.
    mpp
        Micrometres per pixel to read slides at in place of the model's.
    level
        Level to read as it is, in place of the one that fits the model's mpp.
    max_ram
        Bytes of main memory that the process may use; None takes what runs fastest, within three
        quarters of the limit of its container.
    strip_px
        Rows that are written as a unit, a multiple of 512; None lets the memory plan choose.
    inside
        Part of each slide to predict: tiles that do not touch it are left out, as those without
        tissue are. None is all of it.
    shard
        Which share of the work this process does; then it does what others have left that were
        stopped. None does all that nobody does, and waits for the rest.
    stage
        Folder of this machine into which slides of an object store are fetched, each while the one
        before it is predicted; None reads them from there.

    Examples
    --------
    >>> InferOptions(overlap=0.25, tta="flips").saved(classes=2)
    'both'
    """

    overlap: float | Literal["adaptive"] = 0.5
    tile_px: int | None = None
    blend: Blend = "gaussian"
    batch: int = 0
    device: str = "auto"
    precision: str = "auto"
    tta: Tta = "none"
    skip_background: bool = True
    allow_mpp_mismatch: bool = False
    compiled: Compile = "auto"
    readers: int = 0
    save: Save | Literal["auto"] = "auto"
    mpp: float | None = None
    level: int | None = None
    max_ram: int | None = None
    strip_px: int | None = None
    inside: "Inside | None" = None
    shard: Shard | None = None
    stage: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= MAX_OVERLAP:
            raise ConfigError(
                f"got overlap {self.overlap}; expected 0 to {MAX_OVERLAP}, or adaptive"
            )
        if self.tile_px is not None and not 1 <= self.tile_px <= 8192:
            raise ConfigError(f"got tile {self.tile_px} px; expected 1 to 8192")
        if self.batch < 0:
            raise ConfigError(f"got batch {self.batch}; expected 0 (choose for me) or more")
        if self.readers < 0:
            raise ConfigError(f"got {self.readers} readers; expected 0 (choose for me) or more")
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise ConfigError(f"got mpp {self.mpp}; expected a number above 0")
        if self.mpp is not None and self.level is not None:
            raise ConfigError(f"got mpp {self.mpp} and level {self.level}; expected one of them")
        if self.strip_px is not None and (self.strip_px < 1 or self.strip_px % STRIP_ROWS):
            raise ConfigError(
                f"got strips of {self.strip_px} rows; expected a multiple of {STRIP_ROWS}"
            )

    def saved(self, classes: int) -> Save:
        """Choose what is saved of a model with so many ``classes``."""
        if self.save != "auto":
            return self.save
        return "both" if classes <= _PROBABILITIES_UP_TO else "labels"

    @property
    def fraction(self) -> float:
        """Overlap of the finest grid that may be predicted."""
        return 0.5 if self.overlap == "adaptive" else self.overlap
