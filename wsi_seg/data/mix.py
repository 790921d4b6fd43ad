"""Owns CutMix and MixUp of the patches of a batch."""

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
    """Mix each patch with the previous one, or leave the batch unchanged with probability 1 - p.

    Parameters
    ----------
    images
        ``(B, C, H, W)`` uint8 or float32, 0 to 255.
    labels
        ``(B, H, W)`` uint8 class ids, or ``(B, K, H, W)`` float32 probabilities, NaN if ignored.
    weights
        ``(B, H, W)`` float32 for pixels, or ``(B,)`` float32 for patches, which is not mixed.
    config
        CutMix or MixUp, and its parameters.
    classes
        Number of classes, K.

    Returns
    -------
    images : torch.Tensor
        Unchanged dtype after CutMix, float32 after MixUp.
    labels : torch.Tensor
        Ids or probabilities as given after CutMix, probabilities after MixUp. MixUp ignores a pixel
        that either patch ignores.
    weights : torch.Tensor
        Weights of pixels are mixed like the images.
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
    """One-hot encode class ids ``(..., H, W)`` as float32 ``(..., C, H, W)``, NaN if ignored."""
    values = torch.arange(1, classes + 1, device=ids.device).reshape(-1, 1, 1)
    ids = ids.unsqueeze(-3)
    return (ids == values).float().masked_fill(ids == IGNORE, float("nan"))


def _cut(
    images: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, share: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Paste a box of the previous patch into each patch, around foreground if there is any."""
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
