"""Owns test-time augmentation: flips and 90-degree rotations of tiles, and their inverses."""

from collections.abc import Callable

import torch

from wsi_seg.choices import Tta
from wsi_seg.errors import ConfigError

# Each view: whether to flip the columns, then the number of 90-degree rotations. The first view is
# the identity.
_VIEWS: dict[Tta, tuple[tuple[bool, int], ...]] = {
    "none": ((False, 0),),
    "hflip": ((False, 0), (True, 0)),
    "flips": ((False, 0), (True, 0), (True, 2), (False, 2)),
    "d4": tuple((flip, turns) for flip in (False, True) for turns in range(4)),
}


def predict_views(
    predict: Callable[[torch.Tensor], torch.Tensor], tiles: torch.Tensor, tta: Tta
) -> torch.Tensor:
    """Average the predictions of several views of tiles, each transformed back.

    Parameters
    ----------
    predict
        Maps contiguous ``(B, H, W, C)`` uint8 to ``(B, K, H, W)`` int32; a call may overwrite the
        result of the previous one.
    tiles
        ``(B, H, W, C)`` uint8; H and W may differ.
    tta
        ``none``; ``hflip``; ``flips``: identity, both flips and their combination; ``d4``: all
        eight combinations of flips and 90-degree rotations.

    Returns
    -------
    torch.Tensor
        ``(B, K, H, W)`` int32. Integer sums make the result independent of the order of views.

    Raises
    ------
    ConfigError
        If ``tta`` is not one of these names.
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
