"""Owns what may enter a store from a slide's file, besides pixels: this list and nothing else.

Never: label and overview pictures, names, dates, serial numbers, free text. The names of files
and folders do enter, because stores are called by them; who names files after patients renames
them first. Comments inside of copied streams are cut out, see `wsi_seg.codestreams.metadata`.
"""

import re
from collections.abc import Iterator, Mapping

from wsi_seg.errors import StoreError

ALLOWED = frozenset(
    {
        "kind",  # of group: "slide"
        "codec",  # as asked for
        "mpp",
        "window",  # two numbers, as asked for
        "scene",  # a number
        "icc",  # cannot be turned back
        "inside",  # a box or the name of a file, as asked for
        "slice_mm",
        "mpp_source",  # a word of ours, such as "aperio"
        "reader",  # a word of ours or of a library, such as "svs"
        "source.name",  # of the file, without its folder
        "source.bytes",
        "source.sha256_of_ends",  # cannot be turned back
        "levels.encoding",
        "levels.reason",  # a sentence of ours
        "versions.tifffile",
        "versions.imagecodecs",
    }
)
_WORD = re.compile(r"[A-Za-z0-9 ._-]{1,40}")
_WORDS = {"kind", "codec", "mpp_source", "reader"}


def require_allowed(attributes: Mapping[str, object]) -> None:
    """Raise StoreError unless every attribute of a slide's store is on the list."""
    for name, value in _flat(attributes):
        if name not in ALLOWED or (name in _WORDS and not _WORD.fullmatch(str(value))):
            raise StoreError(
                f"got {name} for the attributes of a store; expected a word for one of "
                f"{', '.join(sorted(ALLOWED))}; what a file says of patients must not enter stores"
            )


def _flat(attributes: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Values with the dotted path of their keys; lists count as their elements."""
    if isinstance(attributes, Mapping):
        for name, value in attributes.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    elif isinstance(attributes, list | tuple):
        for value in attributes:
            yield from _flat(value, path)
    else:
        yield path, attributes
