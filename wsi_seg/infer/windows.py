"""Owns the blend windows: how much each px of a window counts where windows overlap.

Weights are small whole numbers, and a window's weight at (row, column) is the product of a row
weight and a column weight. Probabilities are whole numbers too (`PROBABILITY_STEPS`). Sums of
such products are exact in int32, so the blended result does not depend on the order in which
windows arrive, on the batch, or on the device: serial, distributed and resumed runs agree byte
for byte, and equal predictions blend to exactly themselves.

The largest sum occurs with ``linear`` at overlap 0.9, where the last window, moved inwards, lies
over ten others: PROBABILITY_STEPS x (6 x PEAK)^2 < 2^31.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import ConfigError

Blend = Literal["gaussian", "linear", "constant", "crop"]

# Weight in the middle of a window. The floor of 1 / PEAK per axis keeps every px above zero.
PEAK = 120

# Probability 1 during blending: 16 steps for each step of the uint8 result.
PROBABILITY_STEPS = 16 * 255

MAX_OVERLAP = 0.9


def axis_weights(
    starts: tuple[int, ...], tile_px: int, *, length: int, blend: Blend
) -> NDArray[np.int32]:
    """Weights along one axis of every window on that axis.

    Parameters
    ----------
    starts
        First px of each window, ascending.
    tile_px
        Side of a window.
    length
        Number of px on the axis.
    blend
        ``gaussian`` has a standard deviation of an eighth of the window, the value common in the
        field (nnU-Net, MONAI). ``linear`` falls off evenly from the middle. ``constant`` weighs
        all px alike. ``crop`` lets each px belong to one window alone, the one whose middle is
        nearest, so that context is read but not averaged.

    Returns
    -------
    NDArray[np.int32]
        Shape ``(len(starts), tile_px)``, 1 to `PEAK`; 0 only where ``crop`` cuts.
    """
    if blend == "crop":
        return _owned(starts, tile_px, length)
    offsets = np.arange(tile_px) - (tile_px - 1) / 2
    if blend == "gaussian":
        profile = np.exp(-0.5 * (offsets / (tile_px / 8)) ** 2)
    elif blend == "linear":
        profile = 1 - np.abs(offsets) / (tile_px / 2)
    elif blend == "constant":
        profile = np.zeros(tile_px)  # the floor below makes every weight 1
    else:
        raise ConfigError(f"got blend {blend!r}; expected one of gaussian, linear, constant, crop")
    weights = np.maximum(1, np.rint(PEAK * profile)).astype(np.int32)
    return np.tile(weights, (len(starts), 1))


def _owned(starts: tuple[int, ...], tile_px: int, length: int) -> NDArray[np.int32]:
    """Ones where the window's middle is nearer than any other's, zeros elsewhere."""
    tops = np.asarray(starts)
    borders = (tops[1:] + tops[:-1] + tile_px + 1) // 2
    first = np.concatenate([[0], borders])[:, None]
    after = np.concatenate([borders, [max(length, tile_px)]])[:, None]
    px = tops[:, None] + np.arange(tile_px)[None, :]
    return ((px >= first) & (px < after)).astype(np.int32)
