"""Owns checking the IFDs of a TIFF file before tifffile reads them: bounded, and without cycles.

tifffile follows the chain of IFDs to its end and reads all values of each tag; a malicious file of
a few bytes can make both practically endless.
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
_SEGMENTS = {273, 279, 324, 325}  # offsets and byte counts of strips and tiles
_TILE_SIDES = {322, 323}
_INTEGER_TYPES = {3: "H", 4: "I", 16: "Q"}  # SHORT, LONG, LONG8
_OFFSET_TYPES = {4: 4, 13: 4, 16: 8, 18: 8}  # bytes of LONG, IFD, LONG8, IFD8
_MAX_PLANES = 4


@dataclass(frozen=True, slots=True)
class _Layout:
    """Byte order (``<`` or ``>``), and bytes per offset: 4, or 8 in BigTIFF."""

    order: str
    offset_bytes: int

    @property
    def offset(self) -> str:
        return f"{self.order}{'Q' if self.offset_bytes == 8 else 'I'}"

    @property
    def count(self) -> str:
        """Format of the number of tags in an IFD."""
        return f"{self.order}{'Q' if self.offset_bytes == 8 else 'H'}"

    @property
    def entry(self) -> str:
        """Format of tag, type and value count; the values or their offset follow."""
        return f"{self.order}HH{'Q' if self.offset_bytes == 8 else 'I'}"

    @property
    def entry_bytes(self) -> int:
        return struct.calcsize(self.entry) + self.offset_bytes


def check_ifds(path: Path) -> None:
    """Refuse a TIFF whose IFDs are too many, layout a cycle, or hold too many values.

    Other errors are left for the reader to report.

    Raises
    ------
    SlideError
        If the file exceeds one of the `wsi_seg.limits`, or its IFDs layout a cycle.
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
    layout = _Layout(order, 8 if big else 4)
    waiting = [_number(head, 8 if big else 4, layout.offset)]
    seen: set[int] = set()
    most = limits().ifds
    while waiting:
        offset = waiting.pop()
        if offset == 0:
            continue
        if offset in seen:
            raise SlideError(f"{path}: its chain of pages has a cycle; the file is damaged")
        seen.add(offset)
        if len(seen) + len(waiting) > most:
            raise SlideError(f"{path}: got more pages than a slide has; {advice('ifds')}")
        waiting += _next_offsets(path, descriptor, offset, layout)


def _next_offsets(path: Path, descriptor: int, offset: int, layout: _Layout) -> Iterator[int]:
    """Check the tags of one IFD; yield the offsets of its SubIFDs and of the next IFD."""
    counted = _pread(descriptor, layout.offset_bytes, offset)
    many = _number(counted, 0, layout.count)
    start = offset + struct.calcsize(layout.count)
    tile: dict[int, int] = {}
    tags = _pread(descriptor, min(many, 1 << 16) * layout.entry_bytes + layout.offset_bytes, start)
    for at in range(0, len(tags) - layout.entry_bytes, layout.entry_bytes):
        tag, kind, values = struct.unpack_from(layout.entry, tags, at)
        _require_values(path, tag, values)
        if tag in _TILE_SIDES and values == 1 and kind in _INTEGER_TYPES:
            tile[tag] = _number(tags, at + layout.entry_bytes - layout.offset_bytes,
                                layout.order + _INTEGER_TYPES[kind])  # fmt: skip
        if tag == _SUBIFDS and kind in _OFFSET_TYPES:
            size = _OFFSET_TYPES[kind]
            stored = tags[at + layout.entry_bytes - layout.offset_bytes :][: layout.offset_bytes]
            if values * size > layout.offset_bytes:
                stored = _pread(descriptor, values * size, _number(stored, 0, layout.offset))
            element = f"{layout.order}{'Q' if size == 8 else 'I'}"
            for number in range(min(values, len(stored) // size)):
                yield _number(stored, number * size, element)
    if math.prod(tile.values()) > limits().tile_pixels:
        raise SlideError(
            f"{path}: got tiles of {math.prod(tile.values()):,} px; {advice('tile_pixels')}"
        )
    yield _number(tags, many * layout.entry_bytes, layout.offset)


def _require_values(path: Path, tag: int, values: int) -> None:
    bound = limits()
    if tag == _SUBIFDS and values > bound.ifds:
        raise SlideError(f"{path}: got a page with {values:,} SubIFDs; {advice('ifds')}")
    if tag in _SEGMENTS and values > _MAX_PLANES * bound.tiles:
        raise SlideError(f"{path}: got {values:,} tiles or strips; {advice('tiles')}")
    if tag == _DESCRIPTION and values > bound.metadata_bytes:
        raise SlideError(f"{path}: got a text of {values:,} bytes; {advice('metadata_bytes')}")


def _pread(descriptor: int, size: int, offset: int) -> bytes:
    return os.pread(descriptor, size, offset) if offset < 1 << 62 else b""


def _number(data: bytes, offset: int, code: str) -> int:
    """Read one number; return 0, which ends a chain, if the data end before it."""
    if offset + struct.calcsize(code) > len(data):
        return 0
    return int(struct.unpack_from(code, data, offset)[0])
