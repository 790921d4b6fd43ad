"""Owns combining the predictions of several networks.

Blended probabilities are combined, not tiles: each member is predicted on its own grid, with its
own tile size and mpp, and rounded to 1 / 255 like a prediction on its own. An ensemble therefore
gives the same pixels as combining the members' stored predictions, whether the members were in
memory together or one after the other.

For exclusive classes, the probability of the background is 255 minus the sum of the classes, at
least 0.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_seg.choices import Mode
from wsi_seg.postprocess.label_map import background, label_map

# Probabilities are clipped to [eps, 1 - eps] for finite logits; they round back to 0 and 255.
_EPSILON = 2.0**-10

_Sums = NDArray[np.float64]

# Quantity that each mode averages.
COMBINED: dict[Mode, Literal["probabilities", "logits", "votes"]] = {
    "mean": "probabilities",
    "weighted": "probabilities",
    "geometric": "logits",
    "vote": "votes",
}


def combine(
    predictions: Sequence[NDArray[np.uint8]],
    weights: Sequence[float],
    mode: Mode,
    *,
    exclusive: bool = False,
) -> NDArray[np.uint8]:
    """Combine predictions of the same pixels.

    Parameters
    ----------
    predictions
        Prediction of each member, uint8 ``(..., C)`` of equal shapes; probability is value / 255.
    weights
        Weight of each member, above 0.
    mode
        ``mean`` and ``weighted`` take the (weighted) mean of probabilities. ``geometric`` takes
        the weighted mean of logits, which is the normalised geometric mean of probabilities. With
        ``vote``, each member votes for a class if its probability is above one half (value 128 or
        more), and the result is the fraction of votes. Exactly half of the votes is no majority:
        it becomes 127.
    exclusive
        Whether classes are exclusive. The geometric mean is then normalised over background and
        classes, and each member votes for the class of its label map; see `label_map`. If classes
        have equally many votes, rounding may decide for or against the background.

    Returns
    -------
    NDArray[np.uint8]
        Prediction ``(..., C)``. Equal predictions are returned unchanged (except by a vote, and up
        to 2 / 255 by a geometric mean of exclusive classes), and the order of members does not
        matter except for the last bit of a weighted sum.
    """
    total = float(np.sum(weights))
    sums = np.zeros(predictions[0].shape)
    rest = np.zeros((*predictions[0].shape[:-1], 1))
    for prediction, weight in zip(predictions, weights, strict=True):
        if mode == "vote":
            sums += _votes(prediction, exclusive) * weight
        elif mode == "geometric" and exclusive:
            sums += _LOGS[prediction] * weight
            rest += _LOGS[background(prediction)][..., None] * weight
        elif mode == "geometric":
            sums += _LOGITS[prediction] * weight
        else:
            sums += prediction * np.float64(weight)
    means = sums / total
    if mode == "vote":
        return np.ceil(255 * means - 0.5 - 1e-9).astype(np.uint8)
    if mode == "geometric":
        means = _softmax(means, rest / total) if exclusive else 255 / (1 + np.exp(-means))
    return np.floor(means + (0.5 + 1e-9)).astype(np.uint8)


def _votes(prediction: NDArray[np.uint8], exclusive: bool) -> NDArray[np.bool_]:
    if not exclusive:
        return prediction > 127
    chosen = label_map(prediction, "exclusive")[..., None]
    votes: NDArray[np.bool_] = chosen == np.arange(1, prediction.shape[-1] + 1)
    return votes


def _softmax(logs: _Sums, rest: _Sums) -> _Sums:
    """Normalise over background and classes; return the classes, 0 to 255."""
    shares = np.exp(logs)
    found: _Sums = 255 * shares / (shares.sum(axis=-1, keepdims=True) + np.exp(rest))
    return found


def _logits_of_bytes() -> NDArray[np.float64]:
    probability = np.clip(np.arange(256) / 255, _EPSILON, 1 - _EPSILON)
    logits: NDArray[np.float64] = np.log(probability / (1 - probability))
    return logits


_LOGITS = _logits_of_bytes()
_LOGS = np.log(np.clip(np.arange(256) / 255, _EPSILON, 1.0))
