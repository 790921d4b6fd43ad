"""Owns loss terms on contours: distances to them, and their length.

Distances are in units of the patch's longer side, so that terms do not scale with patch_px.
Ignored pixels are neither inside nor outside.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from wsi_seg.config.loss import ContourTerm, HausdorffTerm, Term
from wsi_seg.learn.losses.pixels import Pixels, mean

# Keeps the gradient of the square root finite at 0.
_EPSILON = 1e-8

_Mask = NDArray[np.bool_]


def boundary(px: Pixels, _: Term) -> torch.Tensor:
    """Mean of probability times signed distance to the true outline (Kervadec et al., 2019).

    The distance is negative inside, so the term is negative for a correct prediction; a patch
    without the class, or full of it, adds 0. Combine it with an area term, as its authors do.
    """
    distance = _distances(px, px.target, _signed)
    return mean(px.probability * distance, px.class_weighted)


def hausdorff(px: Pixels, term: HausdorffTerm) -> torch.Tensor:
    """Mean squared error weighted by distances to both outlines (Karimi and Salcudean, 2020)."""
    p = px.probability
    truth = _distances(px, px.target, _unsigned) ** term.alpha
    found = _distances(px, p.detach(), _unsigned) ** term.alpha
    return mean((p - px.target) ** 2 * (truth + found), px.class_weighted)


def active_contour(px: Pixels, term: ContourTerm) -> torch.Tensor:
    """Misclassified area plus length of the contour, both per pixel (Chen et al., CVPR 2019)."""
    p = px.probability
    w = px.class_weighted
    region = mean(p * (1 - px.target) ** 2 + (1 - p) * px.target**2, w)
    down = p[:, :, 1:, :-1] - p[:, :, :-1, :-1]
    right = p[:, :, :-1, 1:] - p[:, :, :-1, :-1]
    # A gradient counts only if all three of its pixels do.
    shared = torch.minimum(w[:, :, :-1, :-1], torch.minimum(w[:, :, 1:, :-1], w[:, :, :-1, 1:]))
    slope = (down**2 + right**2 + _EPSILON).sqrt() - _EPSILON**0.5
    return region + term.length * mean(slope, shared)


def _distances(
    px: Pixels, values: torch.Tensor, measure: Callable[[_Mask, _Mask], NDArray[np.float64]]
) -> torch.Tensor:
    """Compute the distance map of each patch and class; values above 0.5 are inside."""
    counted = (px.weight > 0).cpu().numpy()
    inside = (values.detach() > 0.5).cpu().numpy() & counted
    outside = ~inside & counted
    maps = np.zeros(inside.shape)
    for place in np.ndindex(inside.shape[:2]):
        if inside[place].any() and outside[place].any():
            maps[place] = measure(inside[place], outside[place])
    maps /= max(inside.shape[2:])
    return torch.from_numpy(maps).to(px.logits)


def _signed(inside: _Mask, outside: _Mask) -> NDArray[np.float64]:
    """Return the distance in pixels to the nearest pixel on the other side, negative inside."""
    away: NDArray[np.float64] = distance_transform_edt(~inside)
    return np.where(inside, -distance_transform_edt(~outside), away)


def _unsigned(inside: _Mask, outside: _Mask) -> NDArray[np.float64]:
    return np.abs(_signed(inside, outside))
