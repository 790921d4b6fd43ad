"""Owns the loss of rounds of hard mining: balanced halves, in each of which errors weigh more."""

import torch

from wsi_seg.config.loss import HardHalvesTerm
from wsi_seg.learn.losses.pixels import Pixels, ratio


def bce_hard_halves(px: Pixels, term: HardHalvesTerm) -> torch.Tensor:
    """Half the mean of ``w L`` over a class's pixels, half over the others, averaged over classes.

    ``L`` is cross-entropy and ``w`` the error ``|p - t| ** gamma``, a constant to the gradient. So
    a mistake weighs most inside its half, and neither half outweighs the other. With
    ``negatives`` only so many of each patch's pixels outside a class count, those of the largest
    error. A side without pixels adds 0.
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
    """Weights of each patch's and class's ``count`` pixels of largest error, 0 elsewhere."""
    flat = weight.flatten(2)
    ranked = error.flatten(2).masked_fill(flat == 0, -1)
    hardest = ranked.topk(min(count, ranked.shape[-1]), dim=-1).indices
    kept = torch.zeros_like(flat).scatter(-1, hardest, 1)
    return (flat * kept).reshape(weight.shape)
