"""Owns the rule that turns probabilities into a decision, and the file it is kept in.

All four kinds of the literature are one rule with three numbers. A px is *strong* where its
probability is above ``top`` and *weak* where it is above ``bottom``; an image or an object whose
strong px cover less than ``min_area`` is left out, and of the others all weak px are kept:

- fixed threshold: ``bottom = top``, ``min_area = 0``
- doublet: ``bottom = top``
- triplet: all three, for each image or for each object
- hysteresis: for each object, one strong px is enough

Comparisons are strict, as in the first place of SIIM-ACR 2019: above is ``>``, less is ``<``.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from wsi_seg.choices import Scope, Unit
from wsi_seg.errors import ConfigError, OutputError, ResolutionError

FILE = "rule.json"

SCOPES: tuple[Scope, ...] = ("image", "object")


@dataclass(frozen=True, slots=True)
class Rule:
    """How probabilities become a label map; see the module's text for the first three.

    Parameters
    ----------
    top, bottom
        Probabilities, 0 to 1; ``bottom`` is at most ``top``.
    min_area
        Least area of strong px.
    unit
        Of all areas: um², so that the same is decided at any level, or px of the prediction.
    scope
        Whether strong px are counted for each class of an image, or for each object.
    min_object_area
        Smaller objects are left out.
    largest
        Number of largest objects to keep of each class; 0 keeps all.
    max_hole_area
        Holes up to this area are filled, after objects were left out.
    split
        Objects are parted at necks whose half width is smaller by more than this length than
        that of both sides; in um, or in px where ``unit`` is; 0 parts none. Then holes are
        filled first, and objects are left out by what their parts are.
    apart
        Of objects, of whatever class, whose centroids are nearer than this length, only the
        likelier stays, see `suppress.clear_of_likelier`; 0 keeps all.
    max_iou
        The same for objects whose bounding boxes overlap with an IoU above this; 1 keeps all.
    """

    top: float = 0.5
    bottom: float = 0.5
    min_area: float = 0.0
    unit: Unit = "um2"
    scope: Scope = "image"
    min_object_area: float = 0.0
    largest: int = 0
    max_hole_area: float = 0.0
    split: float = 0.0
    apart: float = 0.0
    max_iou: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.bottom <= self.top <= 1:
            raise ConfigError(
                f"got thresholds top={self.top:g}, bottom={self.bottom:g}; expected "
                "0 <= bottom <= top <= 1"
            )
        sizes = (*self._sizes, self.largest)
        if not all(math.isfinite(size) and size >= 0 for size in sizes):
            raise ConfigError(f"got {self}; expected areas, lengths and counts of at least 0")
        if not 0 <= self.max_iou <= 1:
            raise ConfigError(f"got max_iou={self.max_iou:g}; expected 0 to 1")

    @property
    def length_unit(self) -> str:
        """Unit of all lengths."""
        return "um" if self.unit == "um2" else "px"

    @property
    def needs_probabilities(self) -> bool:
        """Whether it decides by more than the class ids that inference saves, cut at one half."""
        return (self.top, self.bottom) != (0.5, 0.5) or self.apart > 0 or self.max_iou < 1

    @property
    def _sizes(self) -> tuple[float, ...]:
        """All areas and lengths."""
        return (self.min_area, self.min_object_area, self.max_hole_area, self.split, self.apart)

    def px_area(self, mpp: float | None, *, name: str) -> float:
        """Area of one px of a prediction with this mpp, in the rule's unit.

        Raises
        ------
        ResolutionError
            If areas are asked for in um² and the mpp is unknown.
        """
        if self.unit == "px" or not any(self._sizes):
            return 1.0
        if mpp is None:
            raise ResolutionError(
                f"slide {name!r} has no mpp, and the rule's areas are in um2; give them in px, or "
                "the slide's mpp with `wsi-seg tile --mpp`"
            )
        return mpp**2

    def describe(self) -> str:
        """One line for people."""
        text = f"above {self.top:g}"
        if self.min_area or self.bottom < self.top:
            text = f"{self.scope}s with {self.min_area:g} {self.unit} above {self.top:g}, "
            text += f"then all above {self.bottom:g}"
        if self.split:
            text += f", parted at necks {self.split:g} {self.length_unit} deep"
        if self.apart:
            text += f", {self.apart:g} {self.length_unit} apart"
        if self.max_iou < 1:
            text += f", boxes with an IoU up to {self.max_iou:g}"
        return text


def fixed(threshold: float) -> Rule:
    """Rule that keeps all px above a threshold."""
    return Rule(top=threshold, bottom=threshold)


def doublet(top: float, min_area: float, *, unit: Unit = "um2", scope: Scope = "image") -> Rule:
    """Rule that keeps px above ``top`` where they cover ``min_area``."""
    return Rule(top, top, min_area, unit, scope)


def triplet(
    top: float, min_area: float, bottom: float, *, unit: Unit = "um2", scope: Scope = "image"
) -> Rule:
    """Rule that keeps px above ``bottom`` where those above ``top`` cover ``min_area``."""
    return Rule(top, bottom, min_area, unit, scope)


def hysteresis(top: float, bottom: float) -> Rule:
    """Rule that keeps objects above ``bottom`` which have a px above ``top``."""
    return Rule(top, bottom, 1, "px", "object")


def least_above(threshold: float) -> int:
    """Lowest uint8 probability (value / 255) that is above a threshold; 256 if none is."""
    return int((np.arange(256) / 255 <= threshold).sum())


def write_rule(path: Path, rule: Rule, found: dict[str, object]) -> None:
    """Keep a rule as JSON, with what is worth knowing about how it was found.

    The folder is made where it is absent.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        text = json.dumps({"rule": asdict(rule), "found": found}, indent=1)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def read_rule(path: Path) -> Rule:
    """Read a rule that `write_rule` wrote.

    Raises
    ------
    ConfigError
        If there is none, or it is damaged.
    """
    try:
        document = json.loads(path.read_bytes())
        return TypeAdapter(Rule).validate_python(document["rule"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"{path} holds no rule ({error}); find one with `wsi-seg search`"
        ) from error
