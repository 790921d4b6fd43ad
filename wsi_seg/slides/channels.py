"""Owns distinguishing red, green and blue from other channels, by names and number."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from wsi_seg.errors import UnsupportedSlideError

logger = logging.getLogger(__name__)

_COLOURS = (
    {"r", "red"},
    {"g", "green"},
    {"b", "blue"},
)
# Default names that programs give to channels.
_NUMBERED = re.compile(r"|(channel|ch|c)?[ :_-]*[0-9:]+", re.IGNORECASE)
_HEX = ("FF0000", "00FF00", "0000FF")


def require_colours(path: Path, count: int, names: Sequence[str], *, bits: int) -> None:
    """Refuse channels that are not red, green and blue.

    Three 8-bit channels without names are treated as colours, with a warning: cameras of
    fluorescence microscopes store more bits.

    Parameters
    ----------
    path
        The file, for messages.
    count
        Number of channels.
    names
        Their names; empty strings, or an empty sequence, if they have no names.
    bits
        Bits per sample.

    Raises
    ------
    UnsupportedSlideError
        If the channels are not colours; the message names them.
    """
    if count == 3 and are_colours(names):
        return
    if count == 3 and bits == 8 and not any(map(is_named, names)):
        logger.warning("%s: its 3 unnamed channels are read as red, green and blue", path)
        return
    listed = f" ({', '.join(names)})" if any(names) else ""
    raise UnsupportedSlideError(
        f"{path}: got {count} channels{listed} of {bits} bits; expected grey or RGB; save one of "
        "them, or an RGB image"
    )


def are_colours(names: Sequence[str]) -> bool:
    """Return whether the first three names are red, green and blue, in this order."""
    found = [name.strip().lower() for name in names[:3]]
    return len(found) == 3 and all(
        name in known for name, known in zip(found, _COLOURS, strict=True)
    )


def is_named(name: str) -> bool:
    """Return whether a name is more than a number."""
    return _NUMBERED.fullmatch(name.strip()) is None


def require_named_colours(path: Path, names: Sequence[str], colours: Sequence[str]) -> None:
    """Refuse three or four channels whose names or colours are not red, green and blue.

    Parameters
    ----------
    path
        The file, for messages.
    names
        Names of the channels in the file; the fourth may be alpha.
    colours
        Their colours as hex digits, used if there are no names.

    Raises
    ------
    UnsupportedSlideError
        If the channels are not colours; the message names them.
    """
    named = any(map(is_named, names))
    shown = [colour.upper().lstrip("#")[:6] for colour in colours[:3]]
    odd = (
        not named
        and len(shown) == 3
        and all(shown)
        and tuple(shown) != _HEX
        and len(set(shown)) > 1
    )
    alpha = len(names) < 4 or not is_named(names[3]) or names[3].strip().lower() in {"a", "alpha"}
    if odd or (named and not (are_colours(names) and alpha)):
        listed = ", ".join(shown if odd else names)
        raise UnsupportedSlideError(
            f"{path}: got the channels {listed}; expected red, green and blue; save one of them, "
            "or an RGB image"
        )
