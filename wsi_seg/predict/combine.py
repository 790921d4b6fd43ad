"""Owns how the predictions of several networks become one.

What is combined are blended probabilities, not tiles: each member is predicted on its own grid,
at its own tile and mpp, and rounded to 1 / 255 as a prediction of its own would be. So an ensemble
gives the same pixels as its members' stored predictions combined afterwards, whether they were in
memory together or one after the other.

Where classes are exclusive, the background takes part with what is left of its 255, and is 0 where
rounding left less than that.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_seg.choices import Mode
from wsi_seg.postprocess.label_map import background, label_map

# Logits of 0 and 1 are infinite; these stand for them, and round back to 0 and 255.
_EDGE = 2.0**-10

_Sums = NDArray[np.float64]

# What each way of combining works on.
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
        Of each member, uint8 ``(..., C)`` of one shape, probability is value / 255.
    weights
        Of each member, above 0.
    mode
        ``mean`` and ``weighted`` take the (weighted) mean of probabilities. ``geometric`` takes
        the weighted mean of logits, which is the normalised geometric mean of probabilities.
        ``vote`` lets each member say yes to a class where its probability is above one half
        (value 128 and more); the result is the share of yes. Exactly half of the votes is a no:
        it becomes 127.
    exclusive
        Whether a pixel has one class. The geometric mean is then normalised over background and
        classes, and each member votes for the class of its label map; see `label_map`. Of classes
        with equally many votes, rounding may decide for the background or against it.

    Returns
    -------
    NDArray[np.uint8]
        Equal predictions come back as they are (but for a vote, and for up to 2 / 255 where a
        geometric mean of exclusive classes is normalised), and the order of members does not
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
    """Normalise over background and classes; of the classes, in steps of 255."""
    shares = np.exp(logs)
    found: _Sums = 255 * shares / (shares.sum(axis=-1, keepdims=True) + np.exp(rest))
    return found


def _logits_of_bytes() -> NDArray[np.float64]:
    probability = np.clip(np.arange(256) / 255, _EDGE, 1 - _EDGE)
    logits: NDArray[np.float64] = np.log(probability / (1 - probability))
    return logits


_LOGITS = _logits_of_bytes()
_LOGS = np.log(np.clip(np.arange(256) / 255, _EDGE, 1.0))
