"""Owns micrometres per pixel: where they were found, and which of them are trusted."""

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.errors import UndecidedSlideError
from wsi_seg.geometry.pyramid import SAME_MPP

logger = logging.getLogger(__name__)

# Outside of it a resolution tag is a mistake of the writer, or dots per inch of a printer
# (72 dpi is 353 um, 300 dpi is 85 um); no slide's finest level is that coarse.
_PLAUSIBLE = (0.01, 20.0)
# What is written out is trusted within these.
_MOST_UM = 1e4

_UM: dict[str, float] = {
    "pm": 1e-6, "picometer": 1e-6, "Å": 1e-4, "angstrom": 1e-4, "nm": 1e-3, "nanometer": 1e-3,
    "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00B5m": 1.0, "micron": 1.0,
    "micrometer": 1.0, "mm": 1e3, "millimeter": 1e3, "cm": 1e4, "centimeter": 1e4, "dm": 1e5,
    "decimeter": 1e5, "m": 1e6, "meter": 1e6, "in": 25_400.0, "inch": 25_400.0, "inches": 25_400.0,
    "thou": 25.4, "mil": 25.4,
}  # fmt: skip
# Micrometres of TIFF's units; 4 and 5 are no standard, but written.
_PER_UNIT = {2: 25_400.0, 3: 10_000.0, 4: 1_000.0, 5: 1.0}


@dataclass(frozen=True, slots=True)
class Resolution:
    """Micrometres per pixel of level 0, or None, and the place they come from.

    Parameters
    ----------
    mpp
        Of both axes; the mean where they are alike.
    source
        A word for the place.
    unlike
        Micrometres along x and along y, where pixels are not square.
    refused
        What was found where mpp is None, and why it is not taken; empty if nothing was.
    """

    mpp: float | None
    source: str
    unlike: tuple[float, float] | None = None
    refused: str = ""


UNKNOWN = Resolution(None, "none")


def chosen(
    mpp: float | None, found: Resolution, path: Path, *, microscope: bool = True
) -> Resolution:
    """Prefer what the user says to what the file says.

    A size that no microscope has is taken as stated, and a warning names it; one that was not taken
    is named, too.

    Parameters
    ----------
    mpp
        What the user says, if anything.
    found
        What the file says.
    path
        The file.
    microscope
        Whether it shows a microscope's picture; radiographs and volumes are coarser.

    Raises
    ------
    UndecidedSlideError
        If the file says that pixels are not square, and the user says nothing.
    """
    if mpp is not None:
        return Resolution(mpp, "option")
    if found.unlike is not None:
        x, y = found.unlike
        raise UndecidedSlideError(
            f"{path}: got pixels of {x:.4g} um along x and {y:.4g} um along y ({found.source}); "
            "expected square pixels; resample it, or give --mpp to take them as square"
        )
    low, high = _PLAUSIBLE
    if microscope and found.refused:
        logger.warning("%s: mpp is unknown: %s; give it with --mpp", path, found.refused)
    if microscope and found.mpp and not low <= found.mpp <= high:
        logger.warning(
            "%s: states %g um per pixel (%s), which no microscope has; if its unit is wrong, give "
            "the right value with --mpp",
            path, found.mpp, found.source,
        )  # fmt: skip
    return found


def sized(x: float | None, y: float | None, source: str) -> Resolution:
    """Take micrometres along x and along y; of one axis alone, it stands for both.

    Sizes that are not positive numbers below 10,000 are not trusted.
    """
    sizes = [size for size in (x, y) if size is not None]
    if not sizes or not all(0 < size < _MOST_UM for size in sizes):
        return UNKNOWN
    mean = sum(sizes) / len(sizes)
    if max(sizes) > SAME_MPP * min(sizes):
        return Resolution(mean, source, (sizes[0], sizes[1]))
    return Resolution(mean, source)


def written(text: str | None, unit: str = "um") -> float | None:
    """Micrometres written out with a decimal point or comma; NaN if they are not a number.

    Parameters
    ----------
    text
        The number; None, which is returned, if nothing is written.
    unit
        Name of the unit.

    Examples
    --------
    >>> written("0,25"), written("250", "nm")
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
    """Micrometres of a unit by any usual name; NaN of others, such as ``pixel``.

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
    return plausible(sizes[0], sizes[1], "resolution tags")


def plausible(x: float | None, y: float | None, source: str) -> Resolution:
    """Take micrometres along x and y that a microscope may have, as printers' dots are tags too."""
    if x is None or y is None:
        return UNKNOWN
    low, high = _PLAUSIBLE
    strange = [size for size in (x, y) if not low <= size <= high]
    if strange:
        return Resolution(None, UNKNOWN.source, refused=(
            f"got {strange[0]:.3g} um per pixel ({source}); expected {low:g} to {high:g}"
        ))  # fmt: skip
    return sized(x, y, source)


def spacing_resolution(spacing: Sequence[object], source: str) -> Resolution:
    """Take pixel spacing in mm, between rows and between columns."""
    y, x = [*(written(str(size), "mm") for size in spacing[:2]), None, None][:2]
    return sized(x, y, source)


def _um_per_px(value: object, per_unit: float | None) -> float | None:
    match value:
        case (int(numerator), int(denominator)) if numerator > 0 and denominator > 0:
            return None if per_unit is None else per_unit * denominator / numerator
        case _:
            return None
