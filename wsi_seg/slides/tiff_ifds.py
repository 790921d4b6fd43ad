"""Owns walking the IFDs of a TIFF file before tifffile does: bounded, and not in circles.

tifffile follows a list of pages to its end and reads each tag's values; a file of a few bytes can
make both endless.
"""

import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wsi_seg.errors import SlideError
from wsi_seg.limits import advice, limits

_DESCRIPTION, _SUBIFDS = 270, 330
_PLACES = {273, 279, 324, 325}  # offsets and lengths of strips and of tiles
_TILE_SIDES = {322, 323}
_WHOLE_TYPES = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG, LONG8
_OFFSET_TYPES = {4: 4, 13: 4, 16: 8, 18: 8}  # LONG, IFD, LONG8, IFD8: their bytes
_PLANES = 4


@dataclass(frozen=True, slots=True)
class _Form:
    """How numbers are written: ``<`` or ``>``, and 4 or 8 bytes of an offset."""

    order: str
    offset_bytes: int

    @property
    def offset(self) -> str:
        return f"{self.order}{'Q' if self.offset_bytes == 8 else 'I'}"

    @property
    def count(self) -> str:
        """Number of tags of a directory."""
        return f"{self.order}{'Q' if self.offset_bytes == 8 else 'H'}"

    @property
    def entry(self) -> str:
        """Tag, type and number of values; the values or their place follow."""
        return f"{self.order}HH{'Q' if self.offset_bytes == 8 else 'I'}"

    @property
    def entry_bytes(self) -> int:
        return struct.calcsize(self.entry) + self.offset_bytes


def require_few(path: Path) -> None:
    """Refuse a TIFF whose directories are too many, lead in a circle, or hold too many values.

    Anything else that is wrong is left for the reader to find.

    Raises
    ------
    SlideError
        If it breaks one of the `wsi_seg.limits`, or comes back to a directory.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise SlideError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        _walk(path, descriptor)
    except OSError as error:
        raise SlideError(f"{path}: cannot be read: {error.strerror or error}") from error
    finally:
        os.close(descriptor)


def _walk(path: Path, descriptor: int) -> None:
    head = os.pread(descriptor, 16, 0)
    order = ">" if head[:2] == b"MM" else "<"
    big = head[2:4] in {b"+\0", b"\0+"}
    form = _Form(order, 8 if big else 4)
    waiting = [_number(head, 8 if big else 4, form.offset)]
    seen: set[int] = set()
    most = limits().ifds
    while waiting:
        place = waiting.pop()
        if place == 0:
            continue
        if place in seen:
            raise SlideError(f"{path}: its list of pages leads in a circle; the file is damaged")
        seen.add(place)
        if len(seen) + len(waiting) > most:
            raise SlideError(f"{path}: got more pages than a slide has; {advice('ifds')}")
        waiting += _following(path, descriptor, place, form)


def _following(path: Path, descriptor: int, place: int, form: _Form) -> Iterator[int]:
    """Check the tags of one directory; give the places of its sub-images and of the next one."""
    counted = _pread(descriptor, form.offset_bytes, place)
    many = _number(counted, 0, form.count)
    start = place + struct.calcsize(form.count)
    tile: dict[int, int] = {}
    tags = _pread(descriptor, min(many, 1 << 16) * form.entry_bytes + form.offset_bytes, start)
    for at in range(0, len(tags) - form.entry_bytes, form.entry_bytes):
        tag, kind, values = struct.unpack_from(form.entry, tags, at)
        _require_values(path, tag, values)
        if tag in _TILE_SIDES and values == 1 and kind in _WHOLE_TYPES:
            tile[tag] = _number(tags, at + form.entry_bytes - form.offset_bytes,
                                form.order + _WHOLE_TYPES[kind])  # fmt: skip
        if tag == _SUBIFDS and kind in _OFFSET_TYPES:
            size = _OFFSET_TYPES[kind]
            stored = tags[at + form.entry_bytes - form.offset_bytes :][: form.offset_bytes]
            if values * size > form.offset_bytes:
                stored = _pread(descriptor, values * size, _number(stored, 0, form.offset))
            form_of_one = f"{form.order}{'Q' if size == 8 else 'I'}"
            for number in range(min(values, len(stored) // size)):
                yield _number(stored, number * size, form_of_one)
    if math.prod(tile.values()) > limits().tile_pixels:
        raise SlideError(
            f"{path}: got tiles of {math.prod(tile.values()):,} px; {advice('tile_pixels')}"
        )
    yield _number(tags, many * form.entry_bytes, form.offset)


def _require_values(path: Path, tag: int, values: int) -> None:
    bound = limits()
    if tag == _SUBIFDS and values > bound.ifds:
        raise SlideError(f"{path}: got {values:,} pages inside of one; {advice('ifds')}")
    if tag in _PLACES and values > _PLANES * bound.tiles:
        raise SlideError(f"{path}: got {values:,} tiles or strips; {advice('tiles')}")
    if tag == _DESCRIPTION and values > bound.metadata_bytes:
        raise SlideError(f"{path}: got a text of {values:,} bytes; {advice('metadata_bytes')}")


def _pread(descriptor: int, size: int, place: int) -> bytes:
    return os.pread(descriptor, size, place) if place < 1 << 62 else b""


def _number(data: bytes, place: int, form: str) -> int:
    """Read one number; 0, which ends a list, where the data end."""
    if place + struct.calcsize(form) > len(data):
        return 0
    return int(struct.unpack_from(form, data, place)[0])
