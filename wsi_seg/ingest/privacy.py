"""Owns the list of metadata of a slide file that a store may contain.

Label and overview images, names, dates, serial numbers and free text are never stored. File and
folder names are, because stores are named after them: rename files that are named after patients.
Comments in copied streams are removed, see `wsi_seg.codestreams.metadata`.
"""

import re
from collections.abc import Iterator, Mapping

from wsi_seg.errors import StoreError

ALLOWED = frozenset(
    {
        "kind",  # "slide"
        "codec",  # set by the user
        "mpp",
        "window",  # two numbers, set by the user
        "scene",  # a number
        "icc",  # a hash
        "inside",  # a box or a file name, set by the user
        "slice_mm",
        "mpp_source",  # a word of wsi_seg, such as "aperio"
        "reader",  # a word of wsi_seg or a library, such as "svs"
        "source.name",  # file name without its folder
        "source.bytes",
        "source.sha256_of_ends",  # a hash
        "levels.encoding",
        "levels.reason",  # a sentence of wsi_seg
        "versions.tifffile",
        "versions.imagecodecs",
    }
)
_WORD = re.compile(r"[A-Za-z0-9 ._-]{1,40}")
_WORDS = {"kind", "codec", "mpp_source", "reader"}


def require_allowed(attributes: Mapping[str, object]) -> None:
    """Raise StoreError unless every attribute of a slide's store is in `ALLOWED`."""
    for name, value in _flat(attributes):
        if name not in ALLOWED or (name in _WORDS and not _WORD.fullmatch(str(value))):
            raise StoreError(
                f"got {name} for the attributes of a store; expected a word for one of "
                f"{', '.join(sorted(ALLOWED))}; stores must not contain metadata of patients"
            )


def _flat(attributes: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield the dotted path of keys and the value of each leaf; list indices are omitted."""
    if isinstance(attributes, Mapping):
        for name, value in attributes.items():
            yield from _flat(value, f"{path}.{name}" if path else str(name))
    elif isinstance(attributes, list | tuple):
        for value in attributes:
            yield from _flat(value, path)
    else:
        yield path, attributes
