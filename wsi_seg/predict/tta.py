"""Owns test-time augmentation: flips and quarter turns of tiles, and their exact inverses."""

from collections.abc import Callable

import torch

from wsi_seg.choices import Tta
from wsi_seg.errors import ConfigError

# Each view: whether the columns are reversed first, then the number of quarter turns. The first
# view is the tile as it is.
_VIEWS: dict[Tta, tuple[tuple[bool, int], ...]] = {
    "none": ((False, 0),),
    "hflip": ((False, 0), (True, 0)),
    "flips": ((False, 0), (True, 0), (True, 2), (False, 2)),
    "d4": tuple((flip, turns) for flip in (False, True) for turns in range(4)),
}


def predict_views(
    predict: Callable[[torch.Tensor], torch.Tensor], tiles: torch.Tensor, tta: Tta
) -> torch.Tensor:
    """Mean prediction over the views of tiles, each turned back before.

    Parameters
    ----------
    predict
        Maps ``(B, H, W, C)`` uint8, contiguous, to ``(B, K, H, W)`` int32; a call may overwrite
        what the one before gave.
    tiles
        ``(B, H, W, C)`` uint8; sides may differ.
    tta
        ``none``; ``hflip``; ``flips``: identity, both flips and both at once; ``d4``: all eight
        flips and quarter turns.

    Returns
    -------
    torch.Tensor
        ``(B, K, H, W)`` int32. Sums are of whole numbers, so the order of views does not matter.

    Raises
    ------
    ConfigError
        If ``tta`` is not one of these words.
    """
    if tta not in _VIEWS:
        raise ConfigError(f"got tta {tta!r}; expected one of {', '.join(_VIEWS)}")
    (_, *others), first = _VIEWS[tta], predict(tiles.contiguous())
    if not others:
        return first
    total = first.clone()  # the next call may overwrite it
    for flip, turns in others:
        view = torch.rot90(tiles.flip(2) if flip else tiles, turns, (1, 2))
        found = predict(view.contiguous()).rot90(-turns, (2, 3))
        total += found.flip(3) if flip else found
    count = len(others) + 1
    return (total + count // 2) // count
