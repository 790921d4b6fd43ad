"""Owns the loss: a weighted sum of terms on logits, without ignored pixels.

The target of class ``c`` is 1 where the class id is ``c + 1`` and 0 elsewhere. Every term takes
`Pixels`, so all treat ignored pixels, weights and exclusive classes in the same way.
"""

from collections.abc import Callable
from typing import Any

import torch

from wsi_seg.config import LossConfig
from wsi_seg.learn.losses import contour, halves, overlap, pixelwise, skeleton
from wsi_seg.learn.losses.pixels import Pixels

# Each takes the pixels and its own section of the recipe, hence Any.
_TERMS: dict[str, Callable[[Pixels, Any], torch.Tensor]] = {
    "ce": pixelwise.ce,
    "bce": pixelwise.bce,
    "bce_balanced": pixelwise.bce_balanced,
    "bce_topk": pixelwise.bce_topk,
    "bce_hard": pixelwise.bce_hard,
    "bce_hard_halves": halves.bce_hard_halves,
    "bce_empty": pixelwise.bce_empty,
    "focal": pixelwise.focal,
    "mse": pixelwise.mse,
    "dice": overlap.dice,
    "dice_positive": overlap.dice_positive,
    "log_dice": overlap.log_dice,
    "jaccard": overlap.jaccard,
    "tversky": overlap.tversky,
    "mcc": overlap.mcc,
    "lovasz": overlap.lovasz,
    "cl_dice": skeleton.cl_dice,
    "boundary": contour.boundary,
    "hausdorff": contour.hausdorff,
    "active_contour": contour.active_contour,
}


class SegmentationLoss:
    """Weighted sum of loss terms.

    Parameters
    ----------
    config
        Weight and options of each term; terms with weight 0 are not computed.
    """

    def __init__(self, config: LossConfig) -> None:
        self._terms = config.terms

    def terms(self, px: Pixels) -> dict[str, torch.Tensor]:
        """Compute each term, unweighted, by name."""
        return {name: _TERMS[name](px, term) for name, term in self._terms.items()}

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the weighted sum of computed terms, a scalar."""
        weighted = [term.weight * terms[name] for name, term in self._terms.items()]
        return torch.stack(weighted).sum()

    def __call__(self, px: Pixels) -> torch.Tensor:
        """Compute the weighted sum of the terms, a scalar; see `terms`."""
        return self.total(self.terms(px))
