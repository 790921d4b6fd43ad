"""Owns the user's options of inference."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from wsi_seg.choices import Blend, Compile, Save, Tta
from wsi_seg.errors import ConfigError
from wsi_seg.inference.blend import MAX_OVERLAP
from wsi_seg.shard import Shard

if TYPE_CHECKING:  # importing it loads polygon libraries, which most runs do not need
    from wsi_seg.masks.inside import Inside

# Strips consist of whole chunks of the output.
STRIP_ROWS = 512

# ``auto`` saves probabilities too up to this number of classes.
_PROBABILITIES_UP_TO = 4


@dataclass(frozen=True, slots=True)
class InferOptions:
    """Options of inference.

    Parameters
    ----------
    overlap
        Fraction of a tile that neighbouring tiles share, 0 to 0.9; or ``adaptive``: first 0,
        then half a tile where needed, see `inference.adaptive`.
    tile_px
        Side of a tile in output pixels, 1 to 8192; None for that of the model card.
    blend
        How to merge overlapping tiles; see `blend.axis_weights`.
    batch
        Tiles per forward pass; 0 to choose automatically.
    device, precision
        ``auto``, or a torch device; ``auto``, ``fp32``, ``bf16`` or ``fp16``.
    tta
        Test-time augmentation: ``none``, ``hflip``, ``flips`` or ``d4``.
    skip_background
        Skip tiles without tissue in the slide's tissue mask.
    allow_mpp_mismatch
        Accept a slide of unknown or too coarse mpp; the override is recorded in the output.
    compiled
        Compile networks: ``on``, ``off``, or ``auto``, on CUDA if the number of tiles makes it
        worthwhile.
    readers
        Number of concurrent reads; 0 for the cores of this process less two, at least two.
    save
        ``probabilities``, ``labels`` or ``both``; ``auto`` is both up to 4 classes, else labels.
    mpp
        Micrometres per pixel at which to read slides, instead of the model's.
    level
        Level to read without resampling, instead of the one that matches the model's mpp.
    max_ram
        Limit for main memory of the process in bytes; None for the fastest sizes within three
        quarters of the limit of its container.
    strip_px
        Rows that are written at a time, a multiple of 512; None lets the memory plan choose.
    inside
        Part of each slide to predict; tiles outside are skipped like those without tissue. None
        for the whole slide.
    shard
        Share of the work for this process, which then continues the work of stopped processes.
        None takes all unclaimed work and waits for the rest.
    stage
        Local folder to download slides of an object store to, each while the previous one is
        predicted; None reads them directly.

    Raises
    ------
    ConfigError
        If a value is out of range, or both ``mpp`` and ``level`` are given.

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
        """Return what to save for a model with this number of classes."""
        if self.save != "auto":
            return self.save
        return "both" if classes <= _PROBABILITIES_UP_TO else "labels"

    @property
    def fraction(self) -> float:
        """Overlap of the finest grid of tiles, 0.5 for ``adaptive``."""
        return 0.5 if self.overlap == "adaptive" else self.overlap
