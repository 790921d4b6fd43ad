"""Owns the label map that stands beside a prediction: its name, and how px are decided on.

Apart from what predicts, so that whoever only reads predictions needs no torch.
"""

import numpy as np
from numpy.typing import NDArray

LABEL = "prediction"


def label_map(probability: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class ids of uint8 probabilities: the likeliest class where it is above one half, else 0.

    Parameters
    ----------
    probability
        ``(H, W, C)`` uint8, value / 255; channel ``c`` belongs to class id ``c + 1``.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W)`` class ids. Of equal probabilities the first class wins.
    """
    if probability.shape[2] == 1:
        return (probability[:, :, 0] > 127).view(np.uint8)
    ids = np.zeros(probability.shape[:2], dtype=np.uint8)
    best = np.full(probability.shape[:2], 127, dtype=np.uint8)
    for channel in range(probability.shape[2]):  # argmax would take eight bytes for each px
        better = probability[:, :, channel] > best
        ids[better] = channel + 1
        np.maximum(best, probability[:, :, channel], out=best)
    return ids
