"""Owns the rule that turns probabilities into a decision, and the file it is kept in.

All four kinds of the literature are one rule with three numbers. An image or an object is left out
where its pixels above the high threshold cover less than ``min_area``; of the others all pixels
above the low threshold are kept:

- fixed threshold: the two are equal, ``min_area = 0``
- doublet: the two are equal
- triplet: all three, for each image or for each object
- hysteresis: for each object, one pixel above the high threshold is enough

Comparisons are strict, as in the first place of SIIM-ACR 2019: above is ``>``, less is ``<``.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from wsi_seg.atomic import write_atomic
from wsi_seg.choices import Scope, Unit
from wsi_seg.errors import ConfigError, ResolutionError

FILE = "rule.json"

SCOPES: tuple[Scope, ...] = ("image", "object")

# Keys of rules that were written before the first release, and what they are called now.
_EARLIER = {
    "top": "high_threshold",
    "bottom": "low_threshold",
    "scope": "per",
    "largest": "keep_largest",
    "split": "watershed_depth",
    "apart": "min_distance",
    "max_iou": "nms_iou",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """How probabilities become a label map; see the module's text for the first three.

    Parameters
    ----------
    high_threshold, low_threshold
        Probabilities, 0 to 1, as in `skimage.filters.apply_hysteresis_threshold`; the low one is
        at most the high one. None decides as inference does: by one half, or, where classes are
        exclusive, by what is most probable. There a threshold is one of doubt: pixels whose class
        is not above it become background.
    min_area
        Least area of pixels above the high threshold.
    unit
        Of all areas: um², so that the same is decided at any level, or pixels of the prediction.
    per
        Whether ``min_area`` is for each class of an image, or for each object.
    min_object_area
        Smaller objects are left out.
    keep_largest
        Number of largest objects to keep of each class; 0 keeps all.
    max_hole_area
        Holes up to this area are filled, after objects were left out.
    watershed_depth
        Touching objects are split by a watershed of the distance to their outlines; this is the
        ``h`` of its h-maxima: the half width of a cut neck is smaller by more than this than that
        of both sides. In um, or in pixels where ``unit`` is; 0 splits none. Then holes are filled
        first, and objects are left out by what they are after the split.
    min_distance
        Of objects, of whatever class, whose centroids are nearer than this length, only the one
        of the higher probability stays, see `nms.non_maximum_suppression`; 0 keeps all.
    nms_iou
        The same for objects whose bounding boxes overlap with an IoU above this; 1 keeps all.

    Examples
    --------
    >>> Rule(high_threshold=0.7, low_threshold=0.4, min_area=200).describe()
    'images with 200 um2 above 0.7, then all above 0.4'
    """

    high_threshold: float | None = None
    low_threshold: float | None = None
    min_area: float = 0.0
    unit: Unit = "um2"
    per: Scope = "image"
    min_object_area: float = 0.0
    keep_largest: int = 0
    max_hole_area: float = 0.0
    watershed_depth: float = 0.0
    min_distance: float = 0.0
    nms_iou: float = 1.0

    def __post_init__(self) -> None:
        high, low = self.thresholds()
        if not 0 <= low <= high <= 1:
            raise ConfigError(
                f"got high_threshold={high:g}, low_threshold={low:g}; expected 0 <= low_threshold "
                "<= high_threshold <= 1"
            )
        sizes = (*self._sizes, self.keep_largest)
        if not all(math.isfinite(size) and size >= 0 for size in sizes):
            raise ConfigError(f"got {self}; expected areas, lengths and counts of at least 0")
        if not 0 <= self.nms_iou <= 1:
            raise ConfigError(f"got nms_iou={self.nms_iou:g}; expected 0 to 1")

    @property
    def length_unit(self) -> str:
        """Unit of all lengths."""
        return "um" if self.unit == "um2" else "px"

    def thresholds(self, *, exclusive: bool = False) -> tuple[float, float]:
        """High and low threshold for classes that are exclusive, or not.

        Examples
        --------
        >>> Rule().thresholds(), Rule().thresholds(exclusive=True), Rule(0.7).thresholds()
        ((0.5, 0.5), (0.0, 0.0), (0.7, 0.5))
        """
        usual = 0.0 if exclusive else 0.5
        high, low = self.high_threshold, self.low_threshold
        return (
            max(usual, low or 0.0) if high is None else high,
            min(usual, 1.0 if high is None else high) if low is None else low,
        )

    def needs_probabilities(self, *, exclusive: bool = False) -> bool:
        """Whether it decides by more than the class ids that inference saves.

        ``exclusive`` says whether classes exclude each other, so that ids are the most probable.
        """
        changed = self.thresholds(exclusive=exclusive) != Rule().thresholds(exclusive=exclusive)
        return changed or self.min_distance > 0 or self.nms_iou < 1

    @property
    def _sizes(self) -> tuple[float, ...]:
        """All areas and lengths."""
        return (
            self.min_area,
            self.min_object_area,
            self.max_hole_area,
            self.watershed_depth,
            self.min_distance,
        )

    def px_area(self, mpp: float | None, *, name: str) -> float:
        """Area of one pixel of the prediction ``name`` with this ``mpp``, in the rule's unit.

        Raises
        ------
        ResolutionError
            If areas are asked for in um² and the mpp is unknown.
        """
        if self.unit == "px" or not any(self._sizes):
            return 1.0
        if mpp is None:
            raise ResolutionError(
                f"slide {name!r} has no mpp, and the rule's areas are in um2; give them in "
                "pixels, or the slide's mpp with `wsi-seg tile --mpp`"
            )
        return mpp**2

    def describe(self) -> str:
        """One line for people."""
        above, kept = map(_above, (self.high_threshold, self.low_threshold))
        text = above
        if self.min_area or above != kept:
            text = f"{self.per}s with {self.min_area:g} {self.unit} {above}, then all {kept}"
        if self.watershed_depth:
            text += f", split by a watershed {self.watershed_depth:g} {self.length_unit} deep"
        if self.min_distance:
            text += f", centroids at least {self.min_distance:g} {self.length_unit} apart"
        if self.nms_iou < 1:
            text += f", boxes with an IoU up to {self.nms_iou:g}"
        return text


def _above(threshold: float | None) -> str:
    return "as inferred" if threshold is None else f"above {threshold:g}"


def fixed(threshold: float) -> Rule:
    """Rule that keeps all pixels above a threshold."""
    return Rule(threshold, threshold)


def least_above(threshold: float) -> int:
    """Lowest uint8 probability (value / 255) that is above a threshold; 256 if no value is."""
    return int((np.arange(256) / 255 <= threshold).sum())


def write_rule(path: Path, rule: Rule, found: dict[str, object]) -> None:
    """Keep a rule as JSON, with what is worth knowing about how it was found.

    The folder is made where it is absent.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_atomic(path, json.dumps({"rule": asdict(rule), "found": found}, indent=1))


def read_rule(path: Path) -> Rule:
    """Read a rule that `wsi-seg search` wrote.

    Parameters
    ----------
    path
        JSON file.

    Returns
    -------
    Rule
        How probabilities become a label map.

    Raises
    ------
    ConfigError
        If there is no such file, it is damaged, or its keys are those of an earlier version.

    Examples
    --------
    >>> read_rule(Path("run/rule.json")).describe()  # doctest: +SKIP
    'above 0.7'
    """
    try:
        found = json.loads(path.read_bytes())["rule"]
        earlier = [key for key in _EARLIER if key in found]
        rule = None if earlier else TypeAdapter(Rule).validate_python(found)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"{path} does not hold a rule ({error}); find one with `wsi-seg search`"
        ) from error
    if rule is None:
        now = ", ".join(f"{key!r} is now {_EARLIER[key]!r}" for key in earlier)
        raise ConfigError(f"{path} is a rule of an earlier version: {now}; rename these keys")
    return rule
