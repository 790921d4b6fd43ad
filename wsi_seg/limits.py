"""Owns limits on sizes that files declare, checked before memory is allocated.

Headers of untrusted files can declare any size. The defaults keep a command below 1 GB and allow
all slides and annotation files that we know of. Each limit can be changed with an environment
variable, such as ``WSI_SEG_MAX_VERTICES=20000000``, which workers inherit.
"""

import functools
import os
from dataclasses import dataclass, fields

from wsi_seg.errors import ConfigError

_PREFIX = "WSI_SEG_MAX_"


@dataclass(frozen=True, slots=True)
class Limits:
    """Maximum of each quantity in a file.

    Parameters
    ----------
    level_pixels
        Pixels of one level; the default is a square with a side of 524,288 px.
    tile_pixels
        Pixels that are decoded at once: a tile, a strip, a plain image.
    chunk_bytes
        Decompressed bytes of one tile, strip or chunk of a store.
    tiles
        Tiles, strips or frames of one level; the default suits tiles of 256 px.
    ifds
        IFDs of a TIFF file, including SubIFDs; also levels of a store.
    metadata_bytes
        Bytes of metadata: a TIFF description, a ``zarr.json``.
    text_bytes
        Decompressed bytes of an annotation file.
    text_values
        Values in an annotation file: numbers, strings, lists, elements, attributes.
    json_depth
        Nesting of lists and objects in JSON, and of elements in XML.
    vertices
        Vertices of the outlines in one annotation file; numbers in the RLE of a mask.
    crossings
        Self-intersections of an outline that is to be repaired; ten times as many in a file.
    """

    level_pixels: int = 2**38
    tile_pixels: int = 100_000_000
    chunk_bytes: int = 2**29
    tiles: int = 2**22
    ifds: int = 10_000
    metadata_bytes: int = 2**24
    text_bytes: int = 2**28
    text_values: int = 6_000_000
    json_depth: int = 100
    vertices: int = 2_000_000
    crossings: int = 5_000


_FIELDS = {f"{_PREFIX}{field.name.upper()}": field.name for field in fields(Limits)}


def limits() -> Limits:
    """Return the current limits.

    Raises
    ------
    ConfigError
        If an environment variable ``WSI_SEG_MAX_...`` is not a limit, or not a number above 0.
    """
    return _parse(tuple(map(os.environ.get, _FIELDS)))


@functools.cache
def _parse(texts: tuple[str | None, ...]) -> Limits:
    """Parse the values of the variables; cached, because limits are checked for each chunk."""
    for variable in os.environ:
        if variable.startswith(_PREFIX) and variable not in _FIELDS:
            raise ConfigError(f"got {variable}; expected one of {', '.join(_FIELDS)}")
    chosen = {}
    for variable, text in zip(_FIELDS, texts, strict=True):
        if text is None:
            continue
        if not text.isdecimal() or not int(text):
            raise ConfigError(f"got {variable}={text!r}; expected a whole number above 0")
        chosen[_FIELDS[variable]] = int(text)
    return Limits(**chosen)


def advice(name: str) -> str:
    """Return the end of a message that states a limit and how to raise it.

    Parameters
    ----------
    name
        Name of a field of `Limits`.
    """
    limit = getattr(limits(), name)
    return f"expected at most {limit:,}; if you trust the file, set {_PREFIX}{name.upper()} higher"
