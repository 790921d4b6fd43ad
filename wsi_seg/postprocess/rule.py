"""Owns the rule that turns probabilities into a decision, and its JSON file.

One rule with three numbers covers the four kinds in the literature. An image or object is removed
if its pixels above the high threshold cover less than ``min_area``; otherwise all its pixels above
the low threshold are kept:

- fixed threshold: equal thresholds, ``min_area = 0``
- doublet: equal thresholds
- triplet: different thresholds, per image or per object
- hysteresis: per object, one pixel above the high threshold is enough

Comparisons are strict, as in the winning solution of SIIM-ACR 2019: above is ``>``, less is ``<``.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from wsi_seg.choices import Scope, Unit
from wsi_seg.errors import ConfigError, ResolutionError
from wsi_seg.files.atomic import write_atomic
from wsi_seg.files.half_written import remove_partials

FILE = "rule.json"

SCOPES: tuple[Scope, ...] = ("image", "object")

# Old names of keys, from before the first release, and their new names.
_RENAMED = {
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
    """Parameters of turning probabilities into a label map; see the module docstring.

    Parameters
    ----------
    high_threshold, low_threshold
        Probabilities, 0 to 1, as in `skimage.filters.apply_hysteresis_threshold`; the low one is
        at most the high one. None decides as inference does: by one half, or by the most probable
        class if classes are exclusive. For exclusive classes, pixels whose most probable class is
        not above the threshold become background.
    min_area
        Smallest area of pixels above the high threshold.
    unit
        Unit of areas: um², which decides the same at any level, or pixels of the prediction.
    per
        Whether ``min_area`` applies to each class of an image, or to each object.
    min_object_area
        Smaller objects are removed.
    keep_largest
        Number of largest objects to keep of each class; 0 keeps all.
    max_hole_area
        Holes up to this area are filled, after objects were removed.
    watershed_depth
        ``h`` of the h-maxima of a watershed of the distance transform, which splits touching
        objects: a neck is cut if its half width is smaller by more than this than the half widths
        of both sides. In um, or in pixels if ``unit`` is; 0 splits nothing. With it, holes are
        filled first, and objects are removed by their properties after the split.
    min_distance
        If centroids of objects of any class are closer than this length, only the object of higher
        probability is kept; see `nms.non_maximum_suppression`. 0 keeps all.
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
        """Unit of lengths: ``um`` or ``px``."""
        return "um" if self.unit == "um2" else "px"

    def thresholds(self, *, exclusive: bool = False) -> tuple[float, float]:
        """Return the high and low thresholds, with defaults that depend on ``exclusive``.

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
        """Return whether the rule needs more than the class ids that inference saves.

        ``exclusive`` states whether classes are exclusive; then ids are the most probable class.
        """
        changed = self.thresholds(exclusive=exclusive) != Rule().thresholds(exclusive=exclusive)
        return changed or self.min_distance > 0 or self.nms_iou < 1

    @property
    def _sizes(self) -> tuple[float, ...]:
        """Areas and lengths."""
        return (
            self.min_area,
            self.min_object_area,
            self.max_hole_area,
            self.watershed_depth,
            self.min_distance,
        )

    def px_area(self, mpp: float | None, *, name: str) -> float:
        """Return the area of one pixel of the prediction ``name``, in the rule's unit.

        Raises
        ------
        ResolutionError
            If areas are in um² and ``mpp`` is None.
        """
        if self.unit == "px" or not any(self._sizes):
            return 1.0
        if mpp is None:
            raise ResolutionError(
                f"slide {name!r} has no mpp, but the rule's areas are in um2; give them in "
                "pixels, or set the slide's mpp with `wsi-seg tile --mpp`"
            )
        return mpp**2

    def describe(self) -> str:
        """Describe the rule in one line."""
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
    """Make a rule that keeps all pixels above a threshold."""
    return Rule(threshold, threshold)


def least_above(threshold: float) -> int:
    """Return the lowest uint8 probability (value / 255) above a threshold; 256 if there is none."""
    return int((np.arange(256) / 255 <= threshold).sum())


def write_rule(path: Path, rule: Rule, found: dict[str, object]) -> None:
    """Write a rule as JSON, with details of how it was found; create the folder if necessary.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    write_atomic(path, json.dumps({"rule": asdict(rule), "found": found}, indent=1))
    remove_partials((path,))


def read_rule(path: Path) -> Rule:
    """Read a rule that `wsi-seg search` wrote.

    Parameters
    ----------
    path
        JSON file.

    Returns
    -------
    Rule
        The rule.

    Raises
    ------
    ConfigError
        If the file is missing or damaged, or has keys of an earlier version.

    Examples
    --------
    >>> read_rule(Path("run/rule.json")).describe()  # doctest: +SKIP
    'above 0.7'
    """
    try:
        found = json.loads(path.read_bytes())["rule"]
        renamed = [key for key in _RENAMED if key in found]
        rule = None if renamed else TypeAdapter(Rule).validate_python(found)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(
            f"{path} is not a valid rule ({error}); find one with `wsi-seg search`"
        ) from error
    if rule is None:
        now = ", ".join(f"{key!r} is now {_RENAMED[key]!r}" for key in renamed)
        raise ConfigError(f"{path} is a rule of an earlier version: {now}; rename these keys")
    return rule
