"""Owns test-time augmentation: flips and quarter turns of tiles, and their exact inverses."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.errors import ConfigError

Tta = Literal["none", "hflip", "flips", "d4"]

# Each view: whether the columns are reversed first, then the number of quarter turns.
_VIEWS: dict[Tta, tuple[tuple[bool, int], ...]] = {
    "none": ((False, 0),),
    "hflip": ((False, 0), (True, 0)),
    "flips": ((False, 0), (True, 0), (True, 2), (False, 2)),
    "d4": tuple((flip, turns) for flip in (False, True) for turns in range(4)),
}


def predict_views(
    predict: Callable[[NDArray[np.uint8]], torch.Tensor], tiles: NDArray[np.uint8], tta: Tta
) -> torch.Tensor:
    """Mean prediction over the views of tiles, each turned back before.

    Parameters
    ----------
    predict
        Maps ``(B, H, W, C)`` uint8 to ``(B, C, H, W)`` int32.
    tiles
        ``(B, H, W, C)`` uint8; sides may differ.
    tta
        ``none``; ``hflip``; ``flips``: identity, both flips and both at once; ``d4``: all eight
        flips and quarter turns.

    Returns
    -------
    torch.Tensor
        ``(B, C, H, W)`` int32. Sums are of whole numbers, so the order of views does not matter.
    """
    if tta not in _VIEWS:
        raise ConfigError(f"got tta {tta!r}; expected one of {', '.join(_VIEWS)}")
    views = _VIEWS[tta]
    total: torch.Tensor | None = None
    for flip, turns in views:
        seen = np.rot90(tiles[:, :, ::-1] if flip else tiles, turns, axes=(1, 2))
        found = predict(np.ascontiguousarray(seen)).rot90(-turns, (2, 3))
        found = found.flip(3) if flip else found
        total = found if total is None else total + found
    assert total is not None
    return (total + len(views) // 2) // len(views)
