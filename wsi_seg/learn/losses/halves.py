"""Owns the loss term for rounds of hard mining: balanced BCE weighted by the error."""

import torch

from wsi_seg.config.loss import HardHalvesTerm
from wsi_seg.learn.losses.pixels import Pixels, ratio


def bce_hard_halves(px: Pixels, term: HardHalvesTerm) -> torch.Tensor:
    """Half the mean of ``w L`` over a class's pixels, half over the others, averaged over classes.

    ``L`` is cross-entropy and ``w`` the error ``|p - t| ** gamma``, detached from the gradient.
    Mistakes have the largest weight within each half, and the halves are balanced. With
    ``negatives``, only this many pixels outside the class count per patch: those with the largest
    error. A half without pixels adds 0.
    """
    error = (px.probability - px.target).detach().abs()
    inside, outside = px.weight * px.target, px.weight * (1 - px.target)
    if term.negatives is not None:
        outside = _hardest(outside, error, term.negatives)
    values, axes = px.bce * error**term.gamma, (0, 2, 3)
    positive = ratio((values * inside).sum(axes), inside.sum(axes))
    negative = ratio((values * outside).sum(axes), outside.sum(axes))
    return ratio(((positive + negative) / 2 * px.class_weights).sum(), px.class_weights.sum())


def _hardest(weight: torch.Tensor, error: torch.Tensor, count: int) -> torch.Tensor:
    """Keep the weights of the ``count`` pixels with the largest error per patch and class."""
    flat = weight.flatten(2)
    ranked = error.flatten(2).masked_fill(flat == 0, -1)
    hardest = ranked.topk(min(count, ranked.shape[-1]), dim=-1).indices
    kept = torch.zeros_like(flat).scatter(-1, hardest, 1)
    return (flat * kept).reshape(weight.shape)
