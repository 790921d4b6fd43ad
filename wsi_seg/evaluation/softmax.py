"""Owns the softmax temperature, which calibrates exclusive classes together.

A temperature T maps p to ``p ** (1 / T)``, normalised over background and classes. Cross-entropies
of several temperatures are summed over strips, so memory does not grow with the slide.
"""

import numpy as np
from numpy.typing import NDArray

from wsi_seg.classes import IGNORE
from wsi_seg.evaluation.pairing import require_same_classes, require_same_slide
from wsi_seg.postprocess.label_map import background
from wsi_seg.reading.resample import read_label
from wsi_seg.store import SlideStore

# Tested temperatures, over a range far beyond those of networks.
TEMPERATURES = np.geomspace(0.05, 20, 121)

_STRIP_PX = 512
_ROWS = 64  # rows counted at a time


def softmax_losses(prediction: SlideStore, truth: SlideStore, *, label: str) -> NDArray[np.float64]:
    """Sum the cross-entropy at each of `TEMPERATURES` over the pixels of a slide.

    Parameters
    ----------
    prediction
        Prediction with exclusive classes.
    truth, label
        Store of the slide, and the name of its ground-truth label.

    Returns
    -------
    NDArray[np.float64]
        ``(121,)`` one loss per temperature.

    Raises
    ------
    StoreError
        If prediction and truth cannot be compared, or there are no probabilities.
    """
    found, true = prediction.probabilities, truth.label(label)
    require_same_slide(prediction, truth)
    require_same_classes(truth.name, found.classes, true.classes, label)
    recode, extent = found.classes.recoding(true.classes), found.pyramid.extent
    losses = np.zeros(len(TEMPERATURES))
    for region in extent.strips(_STRIP_PX):
        values = found.read(region, cached=False)
        ids = read_label(true, extent, region.y, 0, height=region.height, width=region.width)
        for row in range(0, region.height, _ROWS):
            rows = slice(row, row + _ROWS)
            losses += _losses(values[rows], recode[ids[rows]])
    return losses


def _losses(values: NDArray[np.uint8], ids: NDArray[np.uint8]) -> NDArray[np.float64]:
    counted = ids != IGNORE
    table = np.concatenate([ids[counted][:, None], _every(values[counted])], axis=1)
    rows, px = np.unique(table, axis=0, return_counts=True)
    logs, own = _logs(rows[:, 1:]), rows[:, 0].astype(np.int64)
    true = np.take_along_axis(logs, own[:, None], axis=1)[:, 0]
    losses = [
        (px * (np.logaddexp.reduce(logs / t, axis=1) - true / t)).sum() if len(rows) else 0.0
        for t in TEMPERATURES
    ]
    return np.array(losses)


def _every(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Prepend the background to the classes, ``(..., C + 1)`` uint8."""
    return np.concatenate([background(values)[..., None], values], axis=-1)


def _logs(values: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the logarithm of each probability; 0 counts as half a step."""
    logs: NDArray[np.float64] = np.log(np.maximum(values, 0.5) / 255)
    return logs


def best_temperature(losses: NDArray[np.float64]) -> float:
    """Interpolate the temperature of the smallest loss; 1 without pixels.

    Examples
    --------
    >>> best_temperature((np.log(TEMPERATURES) - np.log(3)) ** 2)
    3.0
    """
    best = int(losses.argmin())
    if not losses.any():
        return 1.0
    logs = np.log(TEMPERATURES)
    if 0 < best < len(losses) - 1:
        before, here, after = losses[best - 1 : best + 2]
        bend = before - 2 * here + after
        step = (before - after) / (2 * bend) if bend > 0 else 0.0
        return round(float(np.exp(logs[best] + step * (logs[1] - logs[0]))), 6)
    return float(TEMPERATURES[best])


def softened(values: NDArray[np.uint8], temperature: float) -> NDArray[np.uint8]:
    """Apply a temperature to exclusive probabilities ``(H, W, C)`` uint8, value / 255."""
    powers = np.exp(_logs(_every(values)) / temperature)
    shares = powers / powers.sum(axis=-1, keepdims=True)
    return np.floor(255 * shares[..., 1:] + 0.5).astype(np.uint8)
