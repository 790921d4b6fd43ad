"""Owns the input of loss terms: logits, targets and weights of pixels, and their weighted means."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from wsi_seg.classes import IGNORE
from wsi_seg.models.activation import class_probabilities


@dataclass(frozen=True, slots=True)
class ClassOptions:
    """Mode and weights of the classes in the loss.

    Parameters
    ----------
    exclusive
        Whether classes and background are exclusive (softmax); otherwise each class has a sigmoid.
    weights
        Weight of each class; empty if all are equal.
    """

    exclusive: bool = False
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """A batch of pixels. Axes are batch, class, y, x; the dtype is float32 or float64.

    Parameters
    ----------
    logits
        ``(B, K, H, W)``; for exclusive classes, channel 0 is the background.
    target
        ``(B, C, H, W)``, 0 to 1. For exclusive classes, the rest up to 1 is background.
    weight
        ``(B, C, H, W)``, at least 0; pixels with weight 0 (ignored) change no term and get no
        gradient. Weights of classes are not included.
    class_logits
        Logits of the classification head, ``(B, C)``: whether the class is in the patch.
    class_options
        Mode and weights of the classes.
    """

    logits: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    class_logits: torch.Tensor | None = None
    class_options: ClassOptions = ClassOptions()

    @classmethod
    def of(
        cls,
        logits: torch.Tensor,
        label: torch.Tensor,
        *,
        weight: torch.Tensor | None = None,
        class_logits: torch.Tensor | None = None,
        class_options: ClassOptions = ClassOptions(),
    ) -> "Pixels":
        """Build from labels, of which id ``c + 1`` is class ``c`` and 255 is ignored.

        Parameters
        ----------
        logits
            ``(B, K, H, W)``, floating point; half precision is converted to float32, because sums
            over many pixels overflow. K is C, or C + 1 for exclusive classes.
        label
            uint8 ids ``(B, H, W)``, or float targets ``(B, C, H, W)`` in 0..1 with NaN to ignore.
        weight
            ``(B, H, W)``, at least 0; None weighs all pixels equally.
        class_logits, class_options
            See the class.

        Raises
        ------
        ValueError
            If logits and target differ in shape.
        """
        wide = logits if logits.dtype == torch.float64 else logits.float()
        classes = wide.shape[1] - class_options.exclusive
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
        # Non-finite logits of ignored pixels would make sums NaN (0 * NaN).
        unknown = weights[:, :1] == 0 if class_options.exclusive else weights == 0
        return cls(
            wide.masked_fill(unknown, 0.0),
            target.masked_fill(weights == 0, 0.0),
            weights.expand_as(target),
            None if class_logits is None else class_logits.to(wide.dtype),
            class_options,
        )

    @property
    def probability(self) -> torch.Tensor:
        """Sigmoid of the logits, or their softmax without the background, ``(B, C, H, W)``."""
        return class_probabilities(self.logits, exclusive=self.class_options.exclusive)

    @property
    def bce(self) -> torch.Tensor:
        """Binary cross-entropy of each pixel and class, ``(B, C, H, W)``."""
        return functional.binary_cross_entropy_with_logits(
            self.logits, self.target, reduction="none"
        )

    @property
    def target_with_background(self) -> torch.Tensor:
        """Targets of background and exclusive classes, which sum to 1, ``(B, C + 1, H, W)``."""
        rest = (1 - self.target.sum(dim=1, keepdim=True)).clamp(min=0)
        return torch.cat([rest, self.target], dim=1)

    @property
    def cross_entropy(self) -> torch.Tensor:
        """Cross-entropy of each pixel: ``(B, 1, H, W)`` for exclusive classes, otherwise `bce`."""
        if not self.class_options.exclusive:
            return self.bce
        return -(self.target_with_background * self.logits.log_softmax(dim=1)).sum(
            dim=1, keepdim=True
        )

    @property
    def class_weights(self) -> torch.Tensor:
        """Weight of each class, ``(C,)``."""
        weights = self.class_options.weights or (1.0,) * self.target.shape[1]
        return self.logits.new_tensor(weights)

    @property
    def class_weighted(self) -> torch.Tensor:
        """Weights of pixels times the weight of the channel's class, ``(B, C, H, W)``."""
        return self.weight * self.class_weights.reshape(1, -1, 1, 1)

    @property
    def cross_entropy_weight(self) -> torch.Tensor:
        """Weights of pixels times class weights, with the shape of `cross_entropy`.

        For exclusive classes it is the weight of the true class; that of the background is 1.
        """
        if not self.class_options.exclusive:
            return self.class_weighted
        weighted = (self.target * self.class_weighted).sum(dim=1, keepdim=True)
        return self.weight[:, :1] * self.target_with_background[:, :1] + weighted


def mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean over all elements; 0 if nothing has weight."""
    return ratio((values * weight).sum(), weight.sum())


def ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Divide, with 0 and no gradient where the denominator is 0."""
    empty = denominator == 0
    return (numerator / denominator.masked_fill(empty, 1.0)).masked_fill(empty, 0.0)
