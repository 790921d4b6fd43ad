"""Owns loss terms on areas: Dice and related overlap measures, from weighted pixel counts.

All are pooled over the batch per class, then averaged over classes by their weights. A class
without pixels in the batch adds 0, because its overlap is undefined (as in smp's ``DiceLoss``).
The background of exclusive classes is not a class.
"""

from dataclasses import dataclass

import torch

from wsi_seg.config.loss import Term, TverskyTerm
from wsi_seg.learn.losses.pixels import Pixels, ratio

# Keeps gradients of roots and logarithms finite at 0.
_EPSILON = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class _Areas:
    """Soft true-positive, false-positive and false-negative areas of each class (last axis).

    The true-positive area is the minimum of probability and target. Their product, which is equal
    for hard targets, favours certain predictions even if the target is soft (Wang et al., *Dice
    Semimetric Losses*, MICCAI 2023).
    """

    hit: torch.Tensor
    false: torch.Tensor
    missed: torch.Tensor

    @classmethod
    def of(cls, px: Pixels, axes: tuple[int, ...] = (0, 2, 3)) -> "_Areas":
        p, t, w = px.probability, px.target, px.weight
        hit = (w * torch.minimum(p, t)).sum(axes)
        return cls(hit, (w * (p - t).relu()).sum(axes), (w * (t - p).relu()).sum(axes))

    @property
    def present(self) -> torch.Tensor:
        return (self.hit + self.missed).detach() > 0

    @property
    def dice(self) -> torch.Tensor:
        return ratio(2 * self.hit, 2 * self.hit + self.false + self.missed)


def _mean_of_present(loss: torch.Tensor, areas: _Areas, px: Pixels) -> torch.Tensor:
    weights = px.class_weights
    return (loss * areas.present * weights).sum() / weights.sum()


def dice(px: Pixels, _: Term) -> torch.Tensor:
    """1 - Dice of the probabilities."""
    areas = _Areas.of(px)
    return _mean_of_present(1 - areas.dice, areas, px)


def dice_positive(px: Pixels, _: Term) -> torch.Tensor:
    """1 - Dice per patch and class, averaged over the patches and classes that have pixels."""
    areas = _Areas.of(px, axes=(2, 3))
    present = areas.present * px.class_weights
    return ratio(((1 - areas.dice) * present).sum(), present.sum())


def log_dice(px: Pixels, _: Term) -> torch.Tensor:
    """-log of the Dice coefficient: steep where there is little overlap."""
    areas = _Areas.of(px)
    return _mean_of_present(-(areas.dice + _EPSILON).log().clamp(max=0), areas, px)


def jaccard(px: Pixels, _: Term) -> torch.Tensor:
    """1 - intersection over union of the probabilities."""
    areas = _Areas.of(px)
    union = areas.hit + areas.false + areas.missed
    return _mean_of_present(1 - ratio(areas.hit, union), areas, px)


def tversky(px: Pixels, term: TverskyTerm) -> torch.Tensor:
    """1 - Tversky index: Dice with weighted false positives and negatives (Salehi et al., 2017)."""
    areas = _Areas.of(px)
    wrong = term.fp * areas.false + term.fn * areas.missed
    return _mean_of_present(1 - ratio(areas.hit, areas.hit + wrong), areas, px)


def mcc(px: Pixels, _: Term) -> torch.Tensor:
    """1 - Matthews correlation of the probabilities (Abhishek and Hamarneh, ISBI 2021)."""
    areas = _Areas.of(px)
    total = px.weight.sum((0, 2, 3)).clamp(min=_EPSILON)
    # As fractions of all pixels: products of four areas in pixels exceed float32's precision.
    tp, fp, fn = areas.hit / total, areas.false / total, areas.missed / total
    tn = 1 - tp - fp - fn
    spread = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return _mean_of_present(
        1 - (tp * tn - fp * fn) / (spread.clamp(min=0) + _EPSILON**2).sqrt(), areas, px
    )


def lovasz(px: Pixels, _: Term) -> torch.Tensor:
    """Convex surrogate of 1 - Jaccard (Berman et al., CVPR 2018).

    Lovász hinge on logits, or Lovász-softmax on probabilities for exclusive classes. Mean over the
    classes that have pixels in the batch; areas are weighted as in the other terms.
    """
    classes = px.target.shape[1]
    values = px.probability if px.class_options.exclusive else px.logits
    values, target, weight = (
        t.transpose(0, 1).reshape(classes, -1) for t in (values, px.target, px.weight)
    )
    target = (target > 0.5).to(values.dtype)
    present = ((target * weight).sum(1) > 0) * px.class_weights
    errors = (
        (target - values).abs() if px.class_options.exclusive else 1 - values * (2 * target - 1)
    )
    errors, order = errors.masked_fill(weight == 0, 0.0).sort(dim=1, descending=True)
    inside = (target * weight).gather(1, order)
    outside = ((1 - target) * weight).gather(1, order)
    total = inside.sum(1, keepdim=True)
    missed = 1 - ratio(total - inside.cumsum(1), total + outside.cumsum(1))
    slope = torch.diff(missed, dim=1, prepend=torch.zeros_like(total))
    found = (errors.relu() * slope).sum(1)
    return ratio((found * present).sum(), present.sum())
