"""Owns how large what a file claims may be, before anything is allocated for it.

Files of strangers may claim anything. The defaults keep a command below 1 GB and let pass every
slide and annotation file we know of. Each limit is raised by an environment variable, such as
``WSI_SEG_MAX_VERTICES=20000000``, which workers inherit.
"""

import functools
import os
from dataclasses import dataclass, fields

from wsi_seg.errors import ConfigError

_PREFIX = "WSI_SEG_MAX_"


@dataclass(frozen=True, slots=True)
class Limits:
    """Most of each thing that is taken from a file.

    Parameters
    ----------
    level_pixels
        Pixels of one level; the default is that of a square of 524,288 px a side.
    tile_pixels
        Pixels that are decoded at one go: a tile, a strip, a plain picture.
    chunk_bytes
        Bytes that one tile, strip or chunk of a store may unpack to.
    tiles
        Tiles, strips or frames of one level; the default is that of 256 px a side.
    ifds
        Directories of a TIFF file, those of sub-images included; also levels of a store.
    metadata_bytes
        Bytes of metadata: a TIFF's description, a ``zarr.json``.
    text_bytes
        Bytes of an annotation file, unpacked.
    text_values
        Values in an annotation file: numbers, texts, lists, elements, attributes.
    json_depth
        Lists and objects of JSON inside of each other; elements of XML too.
    vertices
        Vertices of the outlines in one annotation file; numbers of a mask's runs.
    crossings
        Sides of one outline that may cross each other, so that it can be repaired; ten times as
        many in a file.
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
    """Give the limits that hold now.

    Raises
    ------
    ConfigError
        If an environment variable ``WSI_SEG_MAX_...`` names no limit or is no number above 0.
    """
    return _chosen(tuple(map(os.environ.get, _FIELDS)))


@functools.cache
def _chosen(texts: tuple[str | None, ...]) -> Limits:
    """Limits by the texts of their variables; asked for each chunk, so what is known is kept."""
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
    """Say what a limit is and how to raise it, as the end of a message.

    Parameters
    ----------
    name
        Field of `Limits`.
    """
    most = getattr(limits(), name)
    return f"expected at most {most:,}; if you trust the file, set {_PREFIX}{name.upper()} higher"
