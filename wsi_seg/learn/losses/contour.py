"""Owns loss terms that judge outlines: distances to them, and their length.

Distances are in units of the patch's longer side, so a term's size does not depend on patch_px.
Ignored pixels are on neither side of an outline.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from wsi_seg.config.loss import ContourTerm, HausdorffTerm, Term
from wsi_seg.learn.losses.pixels import Pixels, mean

# Keeps the root of a squared slope off 0, where its own slope is infinite.
_FLAT = 1e-8

_Mask = NDArray[np.bool_]


def boundary(px: Pixels, _: Term) -> torch.Tensor:
    """Mean of probability times signed distance to the true outline (Kervadec et al., 2019).

    The distance is negative inside, so the term falls below 0 where the network is right; a
    patch without the class, or full of it, adds 0. Use it with an area term, as its authors do.
    """
    distance = _distances(px, px.target, _signed)
    return mean(px.probability * distance, px.by_class)


def hausdorff(px: Pixels, term: HausdorffTerm) -> torch.Tensor:
    """Mean squared error weighted by distances to both outlines (Karimi and Salcudean, 2020)."""
    p = px.probability
    truth = _distances(px, px.target, _unsigned) ** term.alpha
    found = _distances(px, p.detach(), _unsigned) ** term.alpha
    return mean((p - px.target) ** 2 * (truth + found), px.by_class)


def active_contour(px: Pixels, term: ContourTerm) -> torch.Tensor:
    """Wrong area plus length of the outline, both per pixel (Chen et al., CVPR 2019)."""
    p = px.probability
    w = px.by_class
    region = mean(p * (1 - px.target) ** 2 + (1 - p) * px.target**2, w)
    down = p[:, :, 1:, :-1] - p[:, :, :-1, :-1]
    right = p[:, :, :-1, 1:] - p[:, :, :-1, :-1]
    # A slope counts where all three pixels that it is made of do.
    shared = torch.minimum(w[:, :, :-1, :-1], torch.minimum(w[:, :, 1:, :-1], w[:, :, :-1, 1:]))
    slope = (down**2 + right**2 + _FLAT).sqrt() - _FLAT**0.5
    return region + term.length * mean(slope, shared)


def _distances(
    px: Pixels, values: torch.Tensor, measure: Callable[[_Mask, _Mask], NDArray[np.float64]]
) -> torch.Tensor:
    """Distance map of each patch and class, where values above .5 are inside."""
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
    """Distance to the nearest pixel on the other side, negative inside."""
    away: NDArray[np.float64] = distance_transform_edt(~inside)
    return np.where(inside, -distance_transform_edt(~outside), away)


def _unsigned(inside: _Mask, outside: _Mask) -> NDArray[np.float64]:
    return np.abs(_signed(inside, outside))
