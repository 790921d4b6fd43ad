"""Owns micrometres per pixel: parsing them, their source, and which values are trusted."""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.errors import UndecidedSlideError
from wsi_seg.geometry.pyramid import SAME_MPP

logger = logging.getLogger(__name__)

# A resolution tag outside this range is a mistake of the writer, or a printer's dots per inch
# (72 dpi is 353 um, 300 dpi is 85 um); no slide's finest level is that coarse.
_PLAUSIBLE = (0.01, 20.0)
# Explicit metadata (not resolution tags) are trusted below this.
_MAX_UM = 1e4

_UM: dict[str, float] = {
    "pm": 1e-6, "picometer": 1e-6, "Å": 1e-4, "angstrom": 1e-4, "nm": 1e-3, "nanometer": 1e-3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00B5m": 1.0, "micron": 1.0,
    "micrometer": 1.0, "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "centimeter": 1e4, "dm": 1e5,
    "decimeter": 1e5, "m": 1e6, "meter": 1e6, "in": 25_400.0, "inch": 25_400.0, "inches": 25_400.0,
    "thou": 25.4, "mil": 25.4,
}  # fmt: skip
# Micrometres per TIFF ResolutionUnit; 4 and 5 are not in the standard, but some writers use them.
_PER_UNIT = {2: 25_400.0, 3: 10_000.0, 4: 1_000.0, 5: 1.0}


@dataclass(frozen=True, slots=True)
class Resolution:
    """Micrometres per pixel of level 0, or None, and their source.

    Parameters
    ----------
    mpp
        Micrometres per pixel; the mean of the axes where these differ slightly.
    source
        Short name of the source, such as ``aperio``.
    anisotropic
        Micrometres along x and along y where pixels are not square.
    rejected
        Value that was found but not trusted, and why; empty if there was none.
    """

    mpp: float | None
    source: str
    anisotropic: tuple[float, float] | None = None
    rejected: str = ""


UNKNOWN = Resolution(None, "none")


def choose_resolution(
    mpp: float | None, found: Resolution, path: Path, *, microscope: bool = True
) -> Resolution:
    """Use the mpp that the user gives, or else the one in the file.

    An mpp that no microscope has is used, with a warning; a rejected one is warned about, too.

    Parameters
    ----------
    mpp
        The user's value, if any.
    found
        The file's value.
    path
        The file.
    microscope
        Whether the image is from a microscope; radiographs and volumes are coarser.

    Raises
    ------
    UndecidedSlideError
        If the file states that pixels are not square and the user gives no mpp.
    """
    if mpp is not None:
        return Resolution(mpp, "option")
    if found.anisotropic is not None:
        x, y = found.anisotropic
        raise UndecidedSlideError(
            f"{path}: got pixels of {x:.4g} um along x and {y:.4g} um along y ({found.source}); "
            "expected square pixels; resample it, or give --mpp to treat them as square"
        )
    low, high = _PLAUSIBLE
    if microscope and found.rejected:
        logger.warning("%s: mpp is unknown: %s; give it with --mpp", path, found.rejected)
    if microscope and found.mpp and not low <= found.mpp <= high:
        logger.warning(
            "%s: states %g um per pixel (%s), which no microscope has; if its unit is wrong, give "
            "the right value with --mpp",
            path, found.mpp, found.source,
        )  # fmt: skip
    return found


def pixel_resolution(x: float | None, y: float | None, source: str) -> Resolution:
    """Return the resolution of micrometres along x and y; one of them applies to both axes.

    Values that are not positive numbers below 10,000 are not trusted.
    """
    sizes = [size for size in (x, y) if size is not None]
    if not sizes or not all(0 < size < _MAX_UM for size in sizes):
        return UNKNOWN
    mean = sum(sizes) / len(sizes)
    if max(sizes) > SAME_MPP * min(sizes):
        return Resolution(mean, source, (sizes[0], sizes[1]))
    return Resolution(mean, source)


def parse_um(text: str | None, unit: str = "um") -> float | None:
    """Parse a length with a decimal point or comma to micrometres; NaN if it is not a number.

    Parameters
    ----------
    text
        The number, or None, for which None is returned.
    unit
        Name of the unit.

    Examples
    --------
    >>> parse_um("0,25"), parse_um("250", "nm")
    (0.25, 0.25)
    """
    if text is None:
        return None
    number = text.strip()
    if re.fullmatch(r"[-+]?[0-9]*,[0-9]+([eE][-+]?[0-9]+)?", number):
        number = number.replace(",", ".")
    try:
        return float(number) * micrometres(unit)
    except ValueError:
        return math.nan


def micrometres(unit: str) -> float:
    """Return the micrometres of a unit by any of its usual names; NaN for others (``pixel``).

    Examples
    --------
    >>> micrometres("nanometres"), micrometres("µm"), micrometres("pixel")
    (0.001, 1.0, nan)
    """
    name = unit.strip()
    english = name.lower().replace("metre", "meter").removesuffix("s")
    return next((_UM[one] for one in (name, name.lower(), english) if one in _UM), math.nan)


def tag_resolution(x: object, y: object, unit: int) -> Resolution:
    """Read the TIFF tags XResolution, YResolution (numerator, denominator) and ResolutionUnit."""
    per_unit = _PER_UNIT.get(unit)
    sizes = [_um_per_px(value, per_unit) for value in (x, y)]
    return plausible_resolution(sizes[0], sizes[1], "resolution tags")


def plausible_resolution(x: float | None, y: float | None, source: str) -> Resolution:
    """Return the resolution if a microscope may have it: printers' dpi are in the same tags."""
    if x is None or y is None:
        return UNKNOWN
    low, high = _PLAUSIBLE
    outside = [size for size in (x, y) if not low <= size <= high]
    if outside:
        return Resolution(None, UNKNOWN.source, rejected=(
            f"got {outside[0]:.3g} um per pixel ({source}); expected {low:g} to {high:g}"
        ))  # fmt: skip
    return pixel_resolution(x, y, source)


def spacing_resolution(spacing: Sequence[object], source: str) -> Resolution:
    """Return the resolution of a pixel spacing in mm: between rows, then between columns."""
    y, x = [*(parse_um(str(size), "mm") for size in spacing[:2]), None, None][:2]
    return pixel_resolution(x, y, source)


def _um_per_px(value: object, per_unit: float | None) -> float | None:
    match value:
        case (int(numerator), int(denominator)) if numerator > 0 and denominator > 0:
            return None if per_unit is None else per_unit * denominator / numerator
        case _:
            return None
