"""Owns mixing the patches of a batch with each other: CutMix (boxes) and MixUp (averages)."""

import torch

from wsi_seg.classes import IGNORE
from wsi_seg.config.augment import MixBatchesConfig


def mix_batch(
    images: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor,
    config: MixBatchesConfig,
    *,
    classes: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mix each patch with the one before it, or none of the batch; torch's generator decides.

    Parameters
    ----------
    images
        ``(B, 3, H, W)`` uint8.
    labels
        ``(B, H, W)`` uint8 class ids, or ``(B, C, H, W)`` float32 probabilities, NaN if ignored.
    weights
        ``(B, H, W)`` float32, or ``(B,)``, which stays with the patch.
    config
        What is mixed, how often and how much.
    classes
        Number of classes, C.

    Returns
    -------
    images : torch.Tensor
        uint8 after CutMix, float32 after MixUp.
    labels : torch.Tensor
        Ids or probabilities as they were after CutMix, probabilities after MixUp. What one of two
        patches ignores, their mean ignores.
    weights : torch.Tensor
        Those of pixels move with their pixels.
    """
    if len(images) < 2 or float(torch.rand(())) >= config.p:
        return images, labels, weights
    share = float(torch.distributions.Beta(config.alpha, config.alpha).sample())
    by_px = weights.ndim == 3
    if config.kind == "cutmix":
        return _cut(images, labels, weights, share)
    certain = labels if labels.is_floating_point() else probabilities(labels, classes)
    pixels = images.float()
    return (
        share * pixels + (1 - share) * pixels.roll(1, 0),
        share * certain + (1 - share) * certain.roll(1, 0),
        share * weights + (1 - share) * weights.roll(1, 0) if by_px else weights,
    )


def probabilities(ids: torch.Tensor, classes: int) -> torch.Tensor:
    """Class ids ``(..., H, W)`` as probabilities ``(..., C, H, W)`` of 0 and 1, NaN if ignored."""
    wanted = torch.arange(1, classes + 1, device=ids.device).reshape(-1, 1, 1)
    ids = ids.unsqueeze(-3)
    return (ids == wanted).float().masked_fill(ids == IGNORE, float("nan"))


def _cut(
    images: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, share: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put a box of the patch before into each patch, around foreground if it has any."""
    height, width = images.shape[-2:]
    tall, wide = (max(1, round(side * (1 - share) ** 0.5)) for side in (height, width))
    mixed, truth, mixed_weights = images.clone(), labels.clone(), weights.clone()
    found = (labels > 0) & (labels != IGNORE)
    if labels.is_floating_point():
        found = (labels.nan_to_num() > 0.5).any(dim=1)
    for index in range(len(images)):
        positions = found[index - 1].nonzero()
        if len(positions):
            y, x = positions[int(torch.randint(len(positions), ()))].tolist()
        else:
            y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
        top = min(max(0, y - tall // 2), height - tall)
        left = min(max(0, x - wide // 2), width - wide)
        box = (..., slice(top, top + tall), slice(left, left + wide))
        mixed[index][box] = images[index - 1][box]
        truth[index][box] = labels[index - 1][box]
        if weights.ndim == 3:
            mixed_weights[index][box] = weights[index - 1][box]
    return mixed, truth, mixed_weights
