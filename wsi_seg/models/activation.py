"""Owns converting logits to class probabilities, by sigmoid or softmax."""

import torch


def class_probabilities(logits: torch.Tensor, *, exclusive: bool) -> torch.Tensor:
    """Convert logits to probabilities of the classes.

    Parameters
    ----------
    logits
        ``(B, K, H, W)``, floating point.
    exclusive
        Whether classes are exclusive: channel 0 is then background and the others are the classes;
        see `ClassTable`.

    Returns
    -------
    torch.Tensor
        ``(B, C, H, W)`` of the same dtype, 0 to 1, without the background.

    Examples
    --------
    >>> class_probabilities(torch.zeros(1, 4, 1, 1), exclusive=True).flatten().tolist()
    [0.25, 0.25, 0.25]
    """
    return logits.softmax(dim=1)[:, 1:] if exclusive else logits.sigmoid()
