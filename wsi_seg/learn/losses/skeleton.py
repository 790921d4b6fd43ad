"""Owns loss terms on centre lines, for thin structures such as vessels and membranes."""

import torch
from torch.nn import functional

from wsi_seg.config.loss import SkeletonTerm
from wsi_seg.learn.losses.pixels import Pixels, ratio


def cl_dice(px: Pixels, term: SkeletonTerm) -> torch.Tensor:
    """1 - soft clDice (Shit et al., CVPR 2021).

    clDice is the harmonic mean of the fraction of the predicted centre lines inside the structure
    and the fraction of the true centre lines inside the prediction. It is pooled over the batch per
    class, then averaged over classes; a class without pixels in the batch adds 0. Combine it with
    an area term, as its authors do.
    """
    counted = (px.weight > 0).to(px.logits.dtype)
    found, true = px.probability * counted, px.target * counted
    precision = _covered(_skeleton(found, term.steps) * px.weight, true)
    lines = _skeleton(true, term.steps) * px.weight
    recall = _covered(lines, found)
    dice = ratio(2 * precision * recall, precision + recall)
    present = lines.sum((0, 2, 3)) > 0
    weights = px.class_weights
    return ((1 - dice) * present * weights).sum() / weights.sum()


def _covered(lines: torch.Tensor, area: torch.Tensor) -> torch.Tensor:
    """Return the fraction of each class's lines inside an area, ``(C,)``."""
    return ratio((lines * area).sum((0, 2, 3)), lines.sum((0, 2, 3)))


def _skeleton(image: torch.Tensor, steps: int) -> torch.Tensor:
    """Compute centre lines of soft masks ``(B, C, H, W)``: what opening removes at each erosion."""
    lines = functional.relu(image - _opened(image))
    for _ in range(steps):
        image = _eroded(image)
        rest = functional.relu(image - _opened(image))
        lines = lines + functional.relu(rest - lines * rest)
    return lines


def _eroded(image: torch.Tensor) -> torch.Tensor:
    """Erode with a cross: the minimum of each pixel and its four neighbours."""
    tall = -functional.max_pool2d(-image, (3, 1), 1, (1, 0))
    wide = -functional.max_pool2d(-image, (1, 3), 1, (0, 1))
    return torch.minimum(tall, wide)


def _opened(image: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(_eroded(image), 3, 1, 1)
