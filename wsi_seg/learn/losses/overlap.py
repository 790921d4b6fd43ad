"""Owns loss terms that judge areas: Dice and its kin, from weighted counts of pixels.

All are pooled over the batch per class, then averaged over classes, as these are weighted. A class
without a pixel in the batch adds 0, because its overlap is undefined (the rule of smp's
``DiceLoss``). The background of exclusive classes does not count.
"""

from dataclasses import dataclass

import torch

from wsi_seg.config.loss import Term, TverskyTerm
from wsi_seg.learn.losses.pixels import Pixels, ratio

# Keeps roots and logarithms off 0, where their slope is infinite.
_TINY = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class _Areas:
    """Soft areas of each class (last axis), in weights of pixels.

    A pixel is a hit as far as probability and target agree. A product, which for certain targets is
    the same, would be largest for certain answers, also where a soft target is to be learned (Wang
    et al., *Dice Semimetric Losses*, MICCAI 2023).
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
    """1 - Dice of each patch and class that has pixels, mean over those alone."""
    areas = _Areas.of(px, axes=(2, 3))
    present = areas.present * px.class_weights
    return ratio(((1 - areas.dice) * present).sum(), present.sum())


def log_dice(px: Pixels, _: Term) -> torch.Tensor:
    """-log of the Dice coefficient: steep where there is hardly any overlap."""
    areas = _Areas.of(px)
    return _mean_of_present(-(areas.dice + _TINY).log().clamp(max=0), areas, px)


def jaccard(px: Pixels, _: Term) -> torch.Tensor:
    """1 - intersection over union of the probabilities."""
    areas = _Areas.of(px)
    union = areas.hit + areas.false + areas.missed
    return _mean_of_present(1 - ratio(areas.hit, union), areas, px)


def tversky(px: Pixels, term: TverskyTerm) -> torch.Tensor:
    """1 - Tversky index: Dice with own weights of false pixels and misses (Salehi et al., 2017)."""
    areas = _Areas.of(px)
    wrong = term.fp * areas.false + term.fn * areas.missed
    return _mean_of_present(1 - ratio(areas.hit, areas.hit + wrong), areas, px)


def mcc(px: Pixels, _: Term) -> torch.Tensor:
    """1 - Matthews correlation of the probabilities (Abhishek and Hamarneh, ISBI 2021)."""
    areas = _Areas.of(px)
    total = px.weight.sum((0, 2, 3)).clamp(min=_TINY)
    # As shares of all pixels: products of four areas in pixels would leave float32's digits.
    tp, fp, fn = areas.hit / total, areas.false / total, areas.missed / total
    tn = 1 - tp - fp - fn
    spread = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return _mean_of_present(
        1 - (tp * tn - fp * fn) / (spread.clamp(min=0) + _TINY**2).sqrt(), areas, px
    )


def lovasz(px: Pixels, _: Term) -> torch.Tensor:
    """Convex surrogate of 1 - Jaccard (Berman et al., CVPR 2018).

    The Lovász hinge on logits; of exclusive classes Lovász-softmax on probabilities. Mean over the
    classes that have pixels in the batch; areas are weighted like in the other terms.
    """
    classes = px.target.shape[1]
    values = px.probability if px.rating.exclusive else px.logits
    values, target, weight = (
        t.transpose(0, 1).reshape(classes, -1) for t in (values, px.target, px.weight)
    )
    target = (target > 0.5).to(values.dtype)
    present = ((target * weight).sum(1) > 0) * px.class_weights
    errors = (target - values).abs() if px.rating.exclusive else 1 - values * (2 * target - 1)
    errors, order = errors.masked_fill(weight == 0, 0.0).sort(dim=1, descending=True)
    inside = (target * weight).gather(1, order)
    outside = ((1 - target) * weight).gather(1, order)
    total = inside.sum(1, keepdim=True)
    missed = 1 - ratio(total - inside.cumsum(1), total + outside.cumsum(1))
    slope = torch.diff(missed, dim=1, prepend=torch.zeros_like(total))
    found = (errors.relu() * slope).sum(1)
    return ratio((found * present).sum(), present.sum())
