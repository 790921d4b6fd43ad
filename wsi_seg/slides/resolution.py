"""Owns micrometres per px: where they were found, and which of them are believed."""

from collections.abc import Sequence
from dataclasses import dataclass

# Outside of it a resolution tag is a mistake of the writer, or dots per inch of a printer
# (72 dpi is 353 um, 300 dpi is 85 um); no slide's finest level is that coarse.
_PLAUSIBLE = (0.01, 20.0)

_OME_ZARR_UNITS = {
    "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3,
    "centimeter": 1e4, "meter": 1e6, "inch": 25_400.0,
}  # fmt: skip
_PER_UNIT = {2: 25_400.0, 3: 10_000.0}


@dataclass(frozen=True, slots=True)
class Resolution:
    """Micrometres per px of level 0, or None, and the place they come from."""

    mpp: float | None
    source: str


UNKNOWN = Resolution(None, "none")


def chosen(mpp: float | None, found: Resolution) -> Resolution:
    """Prefer what the user says to what the file says."""
    return found if mpp is None else Resolution(mpp, "option")


def tag_resolution(x: object, y: object, unit: int) -> Resolution:
    """Read the TIFF tags XResolution, YResolution (numerator, denominator) and ResolutionUnit."""
    per_unit = _PER_UNIT.get(unit)
    sizes = [_um_per_px(value, per_unit) for value in (x, y)]
    if per_unit is None or any(size is None for size in sizes):
        return UNKNOWN
    mean = sum(size for size in sizes if size is not None) / 2
    low, high = _PLAUSIBLE
    return Resolution(mean, "resolution tags") if low <= mean <= high else UNKNOWN


def spacing_resolution(spacing: Sequence[float], source: str) -> Resolution:
    """Take px spacing in mm, along rows and along columns."""
    return stated(str(sum(float(size) for size in spacing[:2]) / 2 * 1000), source)


def unit_resolution(sizes: Sequence[tuple[float, str]], source: str) -> Resolution:
    """Take sizes of a px along each axis in units that OME-Zarr names, such as micrometer."""
    if any(unit not in _OME_ZARR_UNITS for _, unit in sizes):
        return UNKNOWN
    mean = sum(size * _OME_ZARR_UNITS[unit] for size, unit in sizes) / len(sizes)
    return stated(str(mean), source)


def _um_per_px(value: object, per_unit: float | None) -> float | None:
    match value:
        case (int(numerator), int(denominator)) if numerator > 0 and denominator > 0:
            return None if per_unit is None else per_unit * denominator / numerator
        case _:
            return None


def stated(text: str, source: str) -> Resolution:
    """Believe a number of micrometres that is written out, unless it is none or absurd."""
    number = _number(text)
    return UNKNOWN if number is None or not 0 < number < 1e4 else Resolution(number, source)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
