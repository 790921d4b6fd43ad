"""Owns loss terms that judge centre lines, for thin structures such as vessels and membranes."""

import torch
from torch.nn import functional

from wsi_seg.config.loss import SkeletonTerm
from wsi_seg.learn.losses.pixels import Pixels, ratio


def cl_dice(px: Pixels, term: SkeletonTerm) -> torch.Tensor:
    """1 - soft clDice, the harmonic mean of two shares (Shit et al., CVPR 2021).

    One is the share of the predicted centre lines that is in the structure, the other the share of
    the true ones that is predicted. Pooled over the batch per class, then averaged over classes;
    one without a pixel in the batch adds 0. Use it with an area term, as its authors do.
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
    """Share of the lines of each class that is in an area, ``(C,)``."""
    return ratio((lines * area).sum((0, 2, 3)), lines.sum((0, 2, 3)))


def _skeleton(image: torch.Tensor, steps: int) -> torch.Tensor:
    """Centre lines of soft masks ``(B, C, H, W)``: what opening removes after each erosion."""
    lines = functional.relu(image - _opened(image))
    for _ in range(steps):
        image = _eroded(image)
        rest = functional.relu(image - _opened(image))
        lines = lines + functional.relu(rest - lines * rest)
    return lines


def _eroded(image: torch.Tensor) -> torch.Tensor:
    """Lowest of each pixel and its neighbours along a side."""
    tall = -functional.max_pool2d(-image, (3, 1), 1, (1, 0))
    wide = -functional.max_pool2d(-image, (1, 3), 1, (0, 1))
    return torch.minimum(tall, wide)


def _opened(image: torch.Tensor) -> torch.Tensor:
    return functional.max_pool2d(_eroded(image), 3, 1, 1)
