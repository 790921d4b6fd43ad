"""Owns the mask of lungs in a CT volume: air inside the body, chosen by volume and position."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.measure import label, regionprops

from wsi_seg.ct.config import LungRule

Mask = NDArray[np.bool_]

# A side with less than this share of the lungs is missing.
_ONE_SIDED = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Lungs:
    """Lungs of one volume.

    Parameters
    ----------
    mask
        ``(z, y, x)``.
    litres
        Volume of each piece before vessels were filled in, the largest first.
    flags
        What somebody should look at; empty if nothing is unusual.
    """

    mask: Mask
    litres: tuple[float, ...]
    flags: tuple[str, ...]


def find_lungs(
    slices: Iterable[NDArray[np.float32]], spacing: tuple[float, float, float], rule: LungRule
) -> Lungs:
    """Find the lungs by the rule of DSB 2017's first place (Liao et al. 2019, section 3.1).

    Air is what is below a threshold after smoothing. Air that is joined to the corners of the
    volume is outside the body. Of the rest those pieces are lung whose volume is likely and that
    are near the middle. Unlike there, a piece without a large slice is not dropped.

    Parameters
    ----------
    slices
        ``(y, x)`` float32 Hounsfield units, from z = 0.
    spacing
        mm along z, y and x.
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
    likely = (sizes >= least) & (sizes <= most)
    likely[corners] = False
    likely[0] = False
    kept = [n for n in np.flatnonzero(likely) if _central(numbers == n, spacing, rule)]
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
    """Whether the large slices of a piece come near the middle of the image, on average."""
    _, height, width = piece.shape
    y = (np.arange(height) - (height - 1) / 2) * spacing[1]
    x = (np.arange(width) - (width - 1) / 2) * spacing[2]
    away = np.hypot(y[:, None], x[None, :])
    areas = piece.sum(axis=(1, 2)) * spacing[1] * spacing[2]
    nearest = [float(away[plane].min()) for plane in piece[areas > rule.large_area_mm2]]
    # Without a large slice there is nothing to judge by, and a mean of nothing is NaN.
    return not nearest or float(np.mean(nearest)) < rule.off_axis_mm


def _filled(plane: Mask, spacing: tuple[float, float, float], rule: LungRule) -> Mask:
    """Close what vessels and nodules on the wall have cut out, and fill holes."""
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
        flags.append(f"{sum(litres):.1f} l in all, more than {rule.volume_l[1]:g} l")
    columns = found.sum(axis=(0, 1))
    left = float(columns[: len(columns) // 2].sum()) / float(columns.sum())
    if not _ONE_SIDED <= left <= 1 - _ONE_SIDED:
        flags.append("only one side has lung")
    if found[0].any() and found[-1].any():
        flags.append("lung reaches both ends of the volume")
    return tuple(flags)
