"""Owns losses: weighted sums of terms that all take logits and leave ignored px out.

Labels are class ids, classes are independent: the target of channel ``c`` is 1 where the id is
``c + 1`` and 0 elsewhere, and px of id 255 (ignore) count in no term.
"""

from typing import cast

import torch
from segmentation_models_pytorch.losses import MULTILABEL_MODE, DiceLoss
from torch import nn
from torch.nn import functional

from wsi_seg.classes import IGNORE
from wsi_seg.config import LossConfig


class SegmentationLoss(nn.Module):
    """Weighted sum of loss terms.

    ``bce``
        Mean of the binary cross-entropy over px that count and classes; 0 if no px counts.
    ``dice``
        1 - Dice of the probabilities, pooled over the batch per class, mean over classes
        (smp). A class without a px in the batch adds 0, because its Dice is undefined.

    Parameters
    ----------
    weights
        Weight of each term; terms of weight 0 are not computed.
    """

    def __init__(self, weights: LossConfig) -> None:
        super().__init__()
        self._weights = {name: w for name, w in weights.model_dump().items() if w > 0}
        self._dice = DiceLoss(MULTILABEL_MODE, from_logits=True, ignore_index=IGNORE)

    def terms(self, logits: torch.Tensor, label: torch.Tensor) -> dict[str, torch.Tensor]:
        """Each term by its name, not weighted yet.

        Parameters
        ----------
        logits
            ``(B, C, H, W)`` float, before any sigmoid.
        label
            ``(B, H, W)`` uint8 class ids.
        """
        logits = logits.float()
        ids = torch.arange(1, logits.shape[1] + 1, device=label.device).reshape(1, -1, 1, 1)
        target = (label[:, None] == ids).float()
        counts = (label != IGNORE)[:, None]
        terms = {}
        if "bce" in self._weights:
            terms["bce"] = _bce(logits, target, counts)
        if "dice" in self._weights:
            marked = target.masked_fill(~counts, IGNORE)
            terms["dice"] = cast(torch.Tensor, self._dice(logits, marked))
        return terms

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Weighted sum of the terms, a scalar; see `terms`."""
        return self.total(self.terms(logits, label))

    def total(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """Weighted sum of terms already computed."""
        return torch.stack([self._weights[name] * term for name, term in terms.items()]).sum()


def _bce(logits: torch.Tensor, target: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    # smp's own term divides by all px, ignored ones included, so it is not used.
    per_px = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    counted = counts.expand_as(per_px)
    return (per_px * counted).sum() / counted.sum().clamp(min=1)
