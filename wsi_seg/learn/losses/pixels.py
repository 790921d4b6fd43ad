"""Owns what every loss term gets: logits, target and weight of each pixel, and means over them."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from wsi_seg.classes import IGNORE
from wsi_seg.models.activation import class_probabilities


@dataclass(frozen=True, slots=True)
class Rating:
    """What classes mean to the loss.

    Parameters
    ----------
    exclusive
        Whether a pixel has one class or is background, by a softmax; else each class has a sigmoid.
    weights
        How much each class counts; empty where all count the same.
    """

    exclusive: bool = False
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """One batch as the loss terms see it. Axes are batch, class, y, x; dtype float32 or float64.

    Parameters
    ----------
    logits
        Before any sigmoid or softmax; of exclusive classes with the background before them.
    target
        0 to 1, one channel per class. What exclusive classes leave is background.
    weight
        At least 0, one channel per class; what has weight 0 (ignored pixels) changes no term and
        gets no gradient. Weights of classes are not in it.
    class_logits
        ``(B, C)`` logits of the class head: whether the class is in the patch at all.
    rating
        Whether classes are exclusive, and how much each counts.
    """

    logits: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    class_logits: torch.Tensor | None = None
    rating: Rating = Rating()

    @classmethod
    def of(
        cls,
        logits: torch.Tensor,
        label: torch.Tensor,
        *,
        weight: torch.Tensor | None = None,
        class_logits: torch.Tensor | None = None,
        rating: Rating = Rating(),
    ) -> "Pixels":
        """Take class ids ``(B, H, W)`` apart: id ``c + 1`` is class ``c``, 255 is ignored.

        Parameters
        ----------
        logits
            ``(B, K, H, W)`` of any float; half precision is widened, because sums of many pixels
            overflow it. K is C, or C + 1 of exclusive classes.
        label
            uint8 ids, or float targets ``(B, C, H, W)`` in 0..1 where NaN is ignored.
        weight
            ``(B, H, W)`` at least 0; None weighs all pixels the same.
        class_logits, rating
            See the class.

        Raises
        ------
        ValueError
            If logits and target differ in shape.
        """
        wide = logits if logits.dtype == torch.float64 else logits.float()
        classes = wide.shape[1] - rating.exclusive
        if label.is_floating_point():
            counts = ~label.isnan()
            target = label.nan_to_num(0.0).to(wide.dtype)
        else:
            ids = torch.arange(1, classes + 1, device=label.device).reshape(1, -1, 1, 1)
            counts = (label != IGNORE)[:, None]
            target = (label[:, None] == ids).to(wide.dtype)
        expected = (len(wide), classes, *wide.shape[2:])
        if target.shape != expected:
            raise ValueError(
                f"got logits {tuple(wide.shape)} and a target {tuple(target.shape)}; "
                f"expected a target {expected}"
            )
        weights = counts.to(wide.dtype)
        if weight is not None:
            weights = weights * weight[:, None].to(wide.dtype)
        # A logit that is not finite under an ignored pixel would spoil sums by 0 * NaN.
        unknown = weights[:, :1] == 0 if rating.exclusive else weights == 0
        return cls(
            wide.masked_fill(unknown, 0.0),
            target.masked_fill(weights == 0, 0.0),
            weights.expand_as(target),
            None if class_logits is None else class_logits.to(wide.dtype),
            rating,
        )

    @property
    def probability(self) -> torch.Tensor:
        """Sigmoid of the logits, or their softmax without the background."""
        return class_probabilities(self.logits, exclusive=self.rating.exclusive)

    @property
    def bce(self) -> torch.Tensor:
        """Binary cross-entropy of each pixel and class, from logits, so it never overflows."""
        return functional.binary_cross_entropy_with_logits(
            self.logits, self.target, reduction="none"
        )

    @property
    def shares(self) -> torch.Tensor:
        """Targets of background and exclusive classes, which add up to 1, ``(B, C + 1, H, W)``."""
        rest = (1 - self.target.sum(dim=1, keepdim=True)).clamp(min=0)
        return torch.cat([rest, self.target], dim=1)

    @property
    def cross_entropy(self) -> torch.Tensor:
        """Cross-entropy of each pixel: ``(B, 1, H, W)`` of exclusive classes, else `bce`."""
        if not self.rating.exclusive:
            return self.bce
        return -(self.shares * self.logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)

    @property
    def class_weights(self) -> torch.Tensor:
        """How much each class counts, ``(C,)``."""
        weights = self.rating.weights or (1.0,) * self.target.shape[1]
        return self.logits.new_tensor(weights)

    @property
    def by_class(self) -> torch.Tensor:
        """Weights of pixels times those of their channel's class, ``(B, C, H, W)``."""
        return self.weight * self.class_weights.reshape(1, -1, 1, 1)

    @property
    def rated(self) -> torch.Tensor:
        """Weights of pixels times those of their classes, shaped like `cross_entropy`.

        Of exclusive classes it is the true one's that counts, and the background's is 1.
        """
        if not self.rating.exclusive:
            return self.by_class
        weighed = (self.target * self.by_class).sum(dim=1, keepdim=True)
        return self.weight[:, :1] * self.shares[:, :1] + weighed


def mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted mean over everything; 0 where nothing has weight."""
    return ratio((values * weight).sum(), weight.sum())


def ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Quotient, with 0 and no gradient where the denominator is 0."""
    empty = denominator == 0
    return (numerator / denominator.masked_fill(empty, 1.0)).masked_fill(empty, 0.0)
