"""Owns numbers and names of things in messages: ``1 slide``, ``2 slides``, ``a, b and 40 more``."""

import re
from collections.abc import Iterable

# Maximum number of names that a message lists; the others are counted.
_MAX_LISTED = 10

_HISSING = re.compile(r"(s|x|z|sh|[nt]ch)$")
_Y = re.compile(r"(?<![aeiou])y$")


def counted(number: int, noun: str) -> str:
    """Return a number and its noun in the singular or plural.

    Parameters
    ----------
    number
        The number, 0 or more.
    noun
        Noun in the singular, with any words before it.

    Examples
    --------
    >>> counted(1, "slide"), counted(0, "training slide"), counted(12_000, "patch")
    ('1 slide', '0 training slides', '12,000 patches')
    """
    return f"{number:,} {noun if number == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    if _Y.search(noun):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if _HISSING.search(noun) else f"{noun}s"


def list_names(names: Iterable[str]) -> str:
    """Join the first names, with the number of the others; ``none`` if there are no names.

    Examples
    --------
    >>> list_names(["a", "b"])
    'a, b'
    """
    listed = list(names)
    more = len(listed) - _MAX_LISTED
    return (", ".join(listed[:_MAX_LISTED]) or "none") + (f" and {more:,} more" if more > 0 else "")
