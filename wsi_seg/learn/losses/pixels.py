"""Owns what every loss term gets: logits, target and weight of each pixel, and means over them."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from wsi_seg.classes import IGNORE


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """One batch as the loss terms see it. Axes are batch, class, y, x; dtype float32 or float64.

    Parameters
    ----------
    logits
        Before any sigmoid.
    target
        0 to 1, one channel per class.
    weight
        At least 0; what has weight 0 (ignored pixels) changes no term and gets no gradient.
    class_logits
        ``(B, C)`` logits of the class head: whether the class is in the patch at all.
    """

    logits: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    class_logits: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        logits: torch.Tensor,
        label: torch.Tensor,
        *,
        weight: torch.Tensor | None = None,
        class_logits: torch.Tensor | None = None,
    ) -> "Pixels":
        """Take class ids ``(B, H, W)`` apart: id ``c + 1`` is channel ``c``, 255 is ignored.

        Parameters
        ----------
        logits
            ``(B, C, H, W)`` of any float; half precision is widened, because sums of many pixels
            overflow it.
        label
            uint8 ids, or float targets ``(B, C, H, W)`` in 0..1 where NaN is ignored.
        weight
            ``(B, H, W)`` at least 0; None weighs all pixels the same.
        class_logits
            See the class.

        Raises
        ------
        ValueError
            If logits and target differ in shape.
        """
        wide = logits if logits.dtype == torch.float64 else logits.float()
        if label.is_floating_point():
            counts = ~label.isnan()
            target = label.nan_to_num(0.0).to(wide.dtype)
        else:
            ids = torch.arange(1, wide.shape[1] + 1, device=label.device).reshape(1, -1, 1, 1)
            counts = (label != IGNORE)[:, None]
            target = (label[:, None] == ids).to(wide.dtype)
        if target.shape != wide.shape:
            raise ValueError(
                f"got logits {tuple(wide.shape)} and a target {tuple(target.shape)}; "
                "expected the same shape"
            )
        weights = counts.to(wide.dtype)
        if weight is not None:
            weights = weights * weight[:, None].to(wide.dtype)
        # A logit that is not finite under an ignored pixel would spoil sums by 0 * NaN.
        kept = wide.masked_fill(weights == 0, 0.0)
        return cls(
            kept,
            target.masked_fill(weights == 0, 0.0),
            weights.expand_as(wide),
            None if class_logits is None else class_logits.to(wide.dtype),
        )

    @property
    def probability(self) -> torch.Tensor:
        """Sigmoid of the logits."""
        return self.logits.sigmoid()

    @property
    def bce(self) -> torch.Tensor:
        """Binary cross-entropy of each pixel and class, from logits, so it never overflows."""
        return functional.binary_cross_entropy_with_logits(
            self.logits, self.target, reduction="none"
        )


def mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean over everything; 0 where nothing has weight."""
    return ratio((values * weight).sum(), weight.sum())


def ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Quotient, with 0 and no gradient where the denominator is 0."""
    empty = denominator == 0
    return (numerator / denominator.masked_fill(empty, 1.0)).masked_fill(empty, 0.0)
