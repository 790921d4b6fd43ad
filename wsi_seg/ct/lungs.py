"""Owns segmenting lungs in a CT volume: air inside the body, selected by volume and position."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label, regionprops

from wsi_seg.ct.config import LungRule

Mask = NDArray[np.bool_]

# A side with a smaller share of the lungs counts as missing.
_MIN_SIDE_SHARE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Lungs:
    """Lungs of one volume.

    Parameters
    ----------
    mask
        ``(z, y, x)`` bool.
    litres
        Volume of each component before closing, the largest first.
    flags
        Warnings; empty if nothing is unusual.
    """

    mask: Mask
    litres: tuple[float, ...]
    flags: tuple[str, ...]


def find_lungs(
    slices: Iterable[NDArray[np.float32]], spacing: tuple[float, float, float], rule: LungRule
) -> Lungs:
    """Segment the lungs with the method of DSB 2017's winner (Liao et al. 2019, section 3.1).

    Air is below a threshold after smoothing. Air connected to the corners of the volume is outside
    the body. Of the other components, those of plausible volume near the centre are lung. Unlike in
    the original, a component without a large slice is not dropped.

    Parameters
    ----------
    slices
        Slices in z order, ``(y, x)`` float32, in Hounsfield units.
    spacing
        Voxel spacing along z, y and x in mm.
    rule
        See `LungRule`.
    """
    area = spacing[1] * spacing[2]
    air = np.stack([_air(hounsfield, spacing, rule) for hounsfield in slices])
    for end, blank in zip((0, -1), rule.blank, strict=True):
        where = slice(0, blank) if end == 0 else slice(len(air) - blank, None)
        air[where] = False
    numbers, count = ndimage.label(air)
    corners = np.unique(numbers[:, [0, 0, -1, -1], [0, -1, 0, -1]])
    sizes = np.bincount(numbers.ravel(), minlength=count + 1) * area * spacing[0] * 1e-6
    least, most = rule.volume_l
    plausible = (sizes >= least) & (sizes <= most)
    plausible[corners] = False
    plausible[0] = False
    kept = [n for n in np.flatnonzero(plausible) if _central(numbers == n, spacing, rule)]
    kept = sorted(kept, key=lambda n: -sizes[n])[: rule.keep]
    found = np.isin(numbers, kept)
    litres = tuple(float(sizes[n]) for n in kept)
    flags = _flags(found, litres, rule)
    mask = np.stack([_filled(plane, spacing, rule) for plane in found])
    return Lungs(mask, litres, flags)


def _air(
    hounsfield: NDArray[np.float32], spacing: tuple[float, float, float], rule: LungRule
) -> Mask:
    sigma = rule.smooth_mm / np.array(spacing[1:])
    smooth = ndimage.gaussian_filter(hounsfield, sigma, truncate=2.0)
    pieces = label(smooth < rule.threshold_hu, connectivity=1)  # type: ignore[no-untyped-call]
    area = spacing[1] * spacing[2]
    dropped = [
        piece.label
        for piece in regionprops(pieces)  # type: ignore[no-untyped-call]
        if piece.area * area <= rule.least_area_mm2 or piece.eccentricity > rule.most_eccentric
    ]
    air: Mask = (pieces > 0) & ~np.isin(pieces, dropped)
    return air


def _central(piece: Mask, spacing: tuple[float, float, float], rule: LungRule) -> bool:
    """Return whether the large slices of a component are near the image centre on average."""
    _, height, width = piece.shape
    y = (np.arange(height) - (height - 1) / 2) * spacing[1]
    x = (np.arange(width) - (width - 1) / 2) * spacing[2]
    away = np.hypot(y[:, None], x[None, :])
    areas = piece.sum(axis=(1, 2)) * spacing[1] * spacing[2]
    nearest = [float(away[plane].min()) for plane in piece[areas > rule.large_area_mm2]]
    # Without a large slice there is no criterion, and the mean would be NaN.
    return not nearest or float(np.mean(nearest)) < rule.off_axis_mm


def _filled(plane: Mask, spacing: tuple[float, float, float], rule: LungRule) -> Mask:
    """Close gaps of vessels and pleural nodules, and fill holes."""
    if not plane.any():
        return plane
    margin = [int(np.ceil(rule.close_mm / step)) + 1 for step in spacing[1:]]
    wide = np.pad(plane, [(m, m) for m in margin])
    grown = ndimage.distance_transform_edt(~wide, sampling=spacing[1:]) <= rule.close_mm
    closed = ndimage.distance_transform_edt(grown, sampling=spacing[1:]) > rule.close_mm
    inside = tuple(slice(m, -m) for m in margin)
    mask: Mask = ndimage.binary_fill_holes((closed | wide)[inside])
    return mask


def _flags(found: Mask, litres: tuple[float, ...], rule: LungRule) -> tuple[str, ...]:
    if not litres:
        return ("no lung found",)
    flags = []
    if sum(litres) > rule.volume_l[1]:
        flags.append(f"{sum(litres):.1f} l in total, more than {rule.volume_l[1]:g} l")
    columns = found.sum(axis=(0, 1))
    left = float(columns[: len(columns) // 2].sum()) / float(columns.sum())
    if not _MIN_SIDE_SHARE <= left <= 1 - _MIN_SIDE_SHARE:
        flags.append("only one side has lung")
    if found[0].any() and found[-1].any():
        flags.append("lung reaches both ends of the volume")
    return tuple(flags)
