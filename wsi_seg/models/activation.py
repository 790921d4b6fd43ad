"""Owns what makes probabilities of a network's output: a sigmoid for each class, or one softmax."""

import torch


def class_probabilities(logits: torch.Tensor, *, exclusive: bool) -> torch.Tensor:
    """Probabilities of the classes.

    Parameters
    ----------
    logits
        ``(B, K, H, W)``, floating point.
    exclusive
        Whether channel 0 is background, and the others the classes, of which each pixel has one;
        see `ClassTable`.

    Returns
    -------
    torch.Tensor
        ``(B, C, H, W)`` of the same dtype, 0 to 1. That of the background is what is left.

    Examples
    --------
    >>> class_probabilities(torch.zeros(1, 4, 1, 1), exclusive=True).flatten().tolist()
    [0.25, 0.25, 0.25]
    """
    return logits.softmax(dim=1)[:, 1:] if exclusive else logits.sigmoid()
