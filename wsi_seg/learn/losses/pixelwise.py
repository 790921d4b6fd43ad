"""Owns pixelwise loss terms: variants of cross-entropy, and squared error."""

import math

import torch
from torch.nn import functional

from wsi_seg.config.loss import BceTerm, FocalTerm, HardTerm, Term, TopKTerm
from wsi_seg.learn.losses.pixels import Pixels, mean, ratio

# Keeps gradients of powers finite at 0.
_EPSILON = 1e-7


def ce(px: Pixels, _: Term) -> torch.Tensor:
    """Mean cross-entropy of exclusive classes over pixels that are not ignored.

    As in torch, it is the sum over pixels divided by the sum of their weights.
    """
    return mean(px.cross_entropy, px.cross_entropy_weight)


def bce(px: Pixels, term: BceTerm) -> torch.Tensor:
    """Mean binary cross-entropy over pixels that are not ignored.

    smp's loss divides by all pixels, including ignored ones, so torch's is used.
    """
    positive = px.logits.new_tensor(term.pos_weight)
    values = functional.binary_cross_entropy_with_logits(
        px.logits, px.target, reduction="none", pos_weight=positive
    )
    return mean(values, px.cross_entropy_weight)


def bce_balanced(px: Pixels, _: Term) -> torch.Tensor:
    """Half the mean over a class's pixels plus half the mean over the others, mean over classes.

    It does not depend on the number of negatives; a half without pixels adds 0.
    """
    values, axes = px.bce, (0, 2, 3)
    inside, outside = px.weight * px.target, px.weight * (1 - px.target)
    positive = ratio((values * inside).sum(axes), inside.sum(axes))
    negative = ratio((values * outside).sum(axes), outside.sum(axes))
    return ratio(((positive + negative) / 2 * px.class_weights).sum(), px.class_weights.sum())


def bce_topk(px: Pixels, term: TopKTerm) -> torch.Tensor:
    """Mean cross-entropy of the hardest fraction of pixels and classes (OHEM).

    They are selected by detached values (Shrivastava et al., CVPR 2016).
    """
    values, weight = px.bce.flatten(), px.cross_entropy_weight.flatten()
    counted = int((weight > 0).sum())
    if counted == 0:
        return values.sum() * 0
    ranked = values.detach().masked_fill(weight == 0, -math.inf)
    hardest = ranked.topk(math.ceil(term.share * counted)).indices
    return mean(values[hardest], weight[hardest])


def bce_hard(px: Pixels, term: HardTerm) -> torch.Tensor:
    """Cross-entropy with each pixel weighted by its error ``|p - t| ** gamma``.

    Unlike in the focal loss, the error is detached from the gradient, and the weights are
    normalised by their sum, so the term does not vanish as the network improves.
    """
    error = (px.probability - px.target).detach().abs() ** term.gamma
    return mean(px.bce, px.cross_entropy_weight * error)


def focal(px: Pixels, term: FocalTerm) -> torch.Tensor:
    """Mean of ``(1 - p_t) ** gamma`` times cross-entropy over pixels (Lin et al., ICCV 2017)."""
    if px.class_options.exclusive:
        wrong = 1 - (px.target_with_background * px.logits.softmax(dim=1)).sum(dim=1, keepdim=True)
        return mean(
            wrong.clamp(min=_EPSILON) ** term.gamma * px.cross_entropy, px.cross_entropy_weight
        )
    # 1 - p_t from the negated logit, which is precise if p_t is near 1.
    wrong = (px.logits * (1 - 2 * px.target)).sigmoid()
    values = wrong**term.gamma * px.bce
    if term.alpha is not None:
        values = values * (term.alpha * px.target + (1 - term.alpha) * (1 - px.target))
    return mean(values, px.cross_entropy_weight)


def mse(px: Pixels, _: Term) -> torch.Tensor:
    """Mean squared error of the probabilities (Brier score)."""
    return mean((px.probability - px.target) ** 2, px.class_weighted)


def bce_empty(px: Pixels, _: Term) -> torch.Tensor:
    """Cross-entropy of whether each class is in the patch, mean over patches and classes.

    The logit is that of the classification head, or without a head the largest in the patch.
    """
    counted = px.weight > 0
    present = (px.target * counted).amax((2, 3)).gt(0.5).to(px.logits.dtype)
    known = counted.any(dim=3).any(dim=2).to(px.logits.dtype)
    logit = px.class_logits
    if logit is None:
        lowest = torch.finfo(px.logits.dtype).min
        highest = px.logits.masked_fill(~counted, lowest).amax((2, 3))
        logit = highest.masked_fill(known == 0, 0.0)
    values = functional.binary_cross_entropy_with_logits(logit, present, reduction="none")
    return mean(values, known)
