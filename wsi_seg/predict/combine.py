"""Owns how the predictions of several networks become one.

What is combined are blended probabilities, not tiles: each member is predicted on its own grid,
at its own tile and mpp, and rounded to 1 / 255 as a prediction of its own would be. So an ensemble
gives the same pixels as its members' stored predictions combined afterwards, whether they were in
memory together or one after the other.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_seg.choices import Mode

# Logits of 0 and 1 are infinite; these stand for them, and round back to 0 and 255.
_EDGE = 2.0**-10

# What each way of combining works on.
COMBINED: dict[Mode, Literal["probabilities", "logits", "votes"]] = {
    "mean": "probabilities",
    "weighted": "probabilities",
    "geometric": "logits",
    "vote": "votes",
}


def combine(
    predictions: Sequence[NDArray[np.uint8]], weights: Sequence[float], mode: Mode
) -> NDArray[np.uint8]:
    """Combine predictions of the same pixels.

    Parameters
    ----------
    predictions
        Of each member, uint8 of one shape, probability is value / 255.
    weights
        Of each member, above 0.
    mode
        ``mean`` and ``weighted`` take the (weighted) mean of probabilities. ``geometric`` takes
        the weighted mean of logits, which is the normalised geometric mean of probabilities.
        ``vote`` lets each member say yes to a class where its probability is above one half
        (value 128 and more); the result is the share of yes. Exactly half of the votes is a no:
        it becomes 127.

    Returns
    -------
    NDArray[np.uint8]
        Equal predictions come back as they are, and the order of members does not matter except
        for the last bit of a weighted sum.
    """
    total = float(np.sum(weights))
    sums = np.zeros(predictions[0].shape)
    for prediction, weight in zip(predictions, weights, strict=True):
        if mode == "vote":
            sums += (prediction > 127) * weight
        elif mode == "geometric":
            sums += _LOGITS[prediction] * weight
        else:
            sums += prediction * np.float64(weight)
    means = sums / total
    if mode == "vote":
        return np.ceil(255 * means - 0.5 - 1e-9).astype(np.uint8)
    if mode == "geometric":
        means = 255 / (1 + np.exp(-means))
    return np.floor(means + (0.5 + 1e-9)).astype(np.uint8)


def _logits_of_bytes() -> NDArray[np.float64]:
    probability = np.clip(np.arange(256) / 255, _EDGE, 1 - _EDGE)
    logits: NDArray[np.float64] = np.log(probability / (1 - probability))
    return logits


_LOGITS = _logits_of_bytes()
