"""Owns TIFF and SVS files that are broken in one named way each, for tests of hostile input."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np

from tests.makers.coordinates import Codec, Layout, write_coordinate_tiff
from wsi_seg.geometry import Extent

Damage = Callable[[bytearray], bytearray]

_EXTENTS = (Extent(height=210, width=150), Extent(height=105, width=75))
_TILE_PX = 32

_SHORT, _LONG, _RATIONAL, _BYTE, _ASCII, _UNDEFINED, _SLONG, _DOUBLE = 3, 4, 5, 1, 2, 7, 9, 12
_WIDTH, _HEIGHT, _COMPRESSION, _DESCRIPTION, _SAMPLES = 256, 257, 259, 270, 277
_X_RESOLUTION, _Y_RESOLUTION, _SUBIFDS, _JPEG_TABLES = 282, 283, 330, 347
_SOFTWARE = 305
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325

# A bomb unpacks to this many bytes.
BOMB_BYTES = 3 << 30


def write_hostile_tiffs(folder: Path) -> dict[str, Path]:
    """Write every broken file.

    Returns
    -------
    dict[str, Path]
        Files by what is wrong with them.
    """
    written = {}
    for name, (codec, layout, damage) in _DEFECTS.items():
        path = folder / f"{name}.{'svs' if layout == 'svs' else 'tif'}"
        write_coordinate_tiff(
            path, extents=_EXTENTS, codec=codec, tile_px=_TILE_PX, layout=layout, mpp=0.5
        )
        path.write_bytes(damage(bytearray(path.read_bytes())))
        written[name] = path
    return written


def deflate_bomb(nbytes: int, *, raw: bool = False) -> bytes:
    """Make a zlib stream of this many zeros, in whole MiB, about a thousandth as long.

    Parameters
    ----------
    nbytes
        What it unpacks to.
    raw
        Whether to leave out the head and the checksum of zlib.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = block * (nbytes >> 20) + packer.flush()
    # Adler-32 of zeros: the first sum stays 1, the second counts them.
    checksum = (nbytes % 65521) << 16 | 1
    return packed if raw else b"\x78\xda" + packed + checksum.to_bytes(4, "big")


def jpeg_claiming(height: int, width: int) -> bytes:
    """Make a JPEG stream of 32 x 32 px whose header claims another size."""
    data = bytearray(imagecodecs.jpeg8_encode(np.full((32, 32, 3), 90, np.uint8)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpeg2k_claiming(height: int, width: int) -> bytes:
    """Make a JPEG 2000 code stream of 32 x 32 px whose header claims another size, in one tile."""
    pixels = np.full((32, 32, 3), 90, np.uint8)
    data = bytearray(imagecodecs.jpeg2k_encode(pixels, codecformat="j2k"))
    size = data.index(b"\xff\x51") + 6
    for place, (x, y) in ((size, (width, height)), (size + 16, (width, height))):
        data[place : place + 8] = struct.pack(">II", x, y)
    return bytes(data)


def _pages(data: bytearray) -> list[int]:
    """Places of the IFDs of the main chain."""
    places, place = [], _long(data, 4)
    while place:
        places.append(place)
        place = _long(data, place + 2 + 12 * _short(data, place))
    return places


def _short(data: bytearray, place: int) -> int:
    return int(struct.unpack_from("<H", data, place)[0])


def _long(data: bytearray, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


def _entries(data: bytearray, page: int = 0) -> dict[int, int]:
    """Places of the 12 bytes of each tag of a page."""
    first = _pages(data)[page]
    places = range(first + 2, first + 2 + 12 * _short(data, first), 12)
    return {_short(data, place): place for place in places}


def _write(data: bytearray, tag: int, kind: int, count: int, value: int) -> None:
    """Replace a tag of the first page; one that it lacks takes the place of a tag nobody needs."""
    places = _entries(data)
    place = places.get(tag, places[_SOFTWARE])
    struct.pack_into("<HHII", data, place, tag, kind, count, value & 0xFFFFFFFF)
    first, end = min(places.values()), max(places.values()) + 12
    entries = [bytes(data[at : at + 12]) for at in range(first, end, 12)]
    entries.sort(key=lambda entry: int(struct.unpack_from("<H", entry)[0]))
    data[first:end] = b"".join(entries)


def _set(tag: int, kind: int, value: int) -> Damage:
    """Give a tag of the first page one whole number."""

    def damage(data: bytearray) -> bytearray:
        _write(data, tag, kind, 1, value)
        return data

    return damage


def _put(tag: int, kind: int, value: bytes, *, count: int | None = None) -> Damage:
    """Give a tag of the first page a long value, appended to the file."""

    def damage(data: bytearray) -> bytearray:
        size = {_RATIONAL: 8, _DOUBLE: 8, _LONG: 4}.get(kind, 1)
        _write(data, tag, kind, len(value) // size if count is None else count, len(data))
        return data + value

    return damage


def _both(first: Damage, second: Damage) -> Damage:
    return lambda data: second(first(data))


def _element(tag: int, number: int, value: int | None) -> Damage:
    """Change one of the many numbers of a tag; None halves it."""

    def damage(data: bytearray) -> bytearray:
        place = _entries(data)[tag]
        size = {_SHORT: 2, _LONG: 4}[_short(data, place + 2)]
        start = _long(data, place + 8) + number * size
        old = int.from_bytes(data[start : start + size], "little")
        data[start : start + size] = (old // 2 if value is None else value).to_bytes(size, "little")
        return data

    return damage


def _every_tile(stream: bytes) -> Damage:
    """Let every tile of the first page be this stream, appended once."""

    def damage(data: bytearray) -> bytearray:
        place = _entries(data)[_TILE_OFFSETS]
        many, start = _long(data, place + 4), len(data)
        offsets = _put(_TILE_OFFSETS, _LONG, struct.pack("<I", start) * many)
        sizes = _put(_TILE_BYTES, _LONG, struct.pack("<I", len(stream)) * many)
        return sizes(offsets(data + stream))

    return damage


def _loop(data: bytearray) -> bytearray:
    pages = _pages(data)
    end = pages[-1] + 2 + 12 * _short(data, pages[-1])
    struct.pack_into("<I", data, end, pages[0])
    return data


def _million_pages(data: bytearray) -> bytearray:
    """Chain a million pages of 1 px behind the two of the slide."""
    pages = _pages(data)
    end = pages[-1] + 2 + 12 * _short(data, pages[-1])
    start, many = len(data) + len(data) % 2, 10**6
    data = data.ljust(start, b"\0")
    struct.pack_into("<I", data, end, start)
    entries = [(_WIDTH, 1), (_HEIGHT, 1), (_COMPRESSION, 1)]
    body = b"".join(struct.pack("<HHII", tag, _LONG, 1, value) for tag, value in entries)
    size = 2 + len(body) + 4
    chain = np.empty((many, size), np.uint8)
    chain[:, : size - 4] = np.frombuffer(struct.pack("<H", len(entries)) + body, np.uint8)
    following = (start + size * np.arange(1, many + 1)).astype("<u4")
    following[-1] = 0
    chain[:, size - 4 :] = following.view(np.uint8).reshape(many, 4)
    return data + chain.tobytes()


def _cut(share: float) -> Damage:
    return lambda data: data[: int(len(data) * share)]


def _words(text: str, *, encoding: str = "utf-8") -> Damage:
    return _put(_DESCRIPTION, _ASCII, text.encode(encoding) + b"\0")


_OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels {}>{}</Pixels></Image></OME>'
_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha" * 50}">' for n in range(10))
_LYING_OME = _OME.format(
    'BigEndian="false" DimensionOrder="XYCZT" Type="uint8" SizeX="2000000000" '
    'SizeY="2000000000" SizeC="3" SizeZ="99999" SizeT="99999" PhysicalSizeX="nan"',
    '<TiffData IFD="0" PlaneCount="999999999"/>',
)

# Codec and layout of the good file, and what is done to it.
_DEFECTS: dict[str, tuple[Codec, Layout, Damage]] = {
    "bad-compression": ("deflate", "pages", _set(_COMPRESSION, _SHORT, 9999)),
    "wrong-compression": ("deflate", "pages", _set(_COMPRESSION, _SHORT, 5)),
    "zero-length-tile": ("jpeg", "svs", _element(_TILE_BYTES, 3, 0)),
    "offset-past-end": ("jpeg", "svs", _element(_TILE_OFFSETS, 2, 0xFFFFFFF0)),
    "offset-of-header": ("deflate", "pages", _element(_TILE_OFFSETS, 2, 0)),
    "loop-of-pages": ("deflate", "pages", _loop),
    "first-page-nowhere": ("deflate", "pages", lambda data: data[:4] + b"\xf0\xff\xff\xff" + data[8:]),
    "million-pages": ("deflate", "pages", _million_pages),
    "million-subpages": ("deflate", "subifds", _put(_SUBIFDS, _LONG, struct.pack("<I", 8) * 10**6)),
    "tile-of-2-31-px": ("deflate", "pages", _both(_set(_TILE_WIDTH, _LONG, 1 << 31), _set(_TILE_HEIGHT, _LONG, 16))),
    "tile-of-46341-px": ("jpeg", "svs", _both(_set(_TILE_WIDTH, _LONG, 46352), _set(_TILE_HEIGHT, _LONG, 46352))),
    "tile-of-0-px": ("deflate", "pages", _set(_TILE_WIDTH, _LONG, 0)),
    "level-of-2-32-px": ("deflate", "pages", _both(_set(_WIDTH, _LONG, 0xFFFFFFFF), _set(_HEIGHT, _LONG, 0xFFFFFFFF))),
    "level-of-0-px": ("deflate", "pages", _set(_HEIGHT, _LONG, 0)),
    "65535-samples": ("deflate", "pages", _set(_SAMPLES, _SHORT, 65535)),
    "negative-width": ("deflate", "pages", _set(_WIDTH, _SLONG, -150)),
    "negative-tile": ("deflate", "pages", _set(_TILE_HEIGHT, _SLONG, -32)),
    "negative-samples": ("deflate", "pages", _set(_SAMPLES, _SLONG, -3)),
    "text-as-width": ("deflate", "pages", _put(_WIDTH, _ASCII, b"one hundred and fifty\0")),
    "two-billion-offsets": ("deflate", "pages", _put(_TILE_OFFSETS, _LONG, b"", count=2**31)),
    "fewer-offsets": ("deflate", "pages", _put(_TILE_OFFSETS, _LONG, b"\x08\0\0\0" * 3)),
    "truncated": ("jpeg", "svs", _cut(0.6)),
    "truncated-in-header": ("jpeg", "svs", _cut(0.01)),
    "truncated-jpeg": ("jpeg", "svs", _element(_TILE_BYTES, 0, None)),
    "truncated-deflate": ("deflate", "pages", _element(_TILE_BYTES, 0, None)),
    "no-jpeg": ("jpeg", "pages", _every_tile(bytes(range(256)) * 4)),
    "jpeg-claims-more": ("jpeg", "svs", _every_tile(jpeg_claiming(65500, 65500))),
    "jpeg2000-claims-more": ("jpeg2000", "pages", _every_tile(jpeg2k_claiming(60000, 60000))),
    "jpeg-tables-of-noise": ("jpeg", "svs", _put(_JPEG_TABLES, _UNDEFINED, bytes(range(256)))),
    "jpeg-tables-empty": ("jpeg", "svs", _put(_JPEG_TABLES, _UNDEFINED, b"\xff\xd8\xff\xd9")),
    "deflate-bomb": ("deflate", "pages", _every_tile(deflate_bomb(BOMB_BYTES))),
    "tiles-share-a-stream": ("deflate", "pages", lambda data: _shared(data)),
    "nan-resolution": ("deflate", "pages", _put(_X_RESOLUTION, _DOUBLE, struct.pack("<d", float("nan")))),
    "zero-resolution": ("deflate", "pages", _put(_X_RESOLUTION, _RATIONAL, struct.pack("<II", 0, 0))),
    "endless-resolution": ("deflate", "pages", _put(_Y_RESOLUTION, _RATIONAL, struct.pack("<II", 1, 0))),
    "lying-svs": ("jpeg", "svs", _words("Aperio Image Library v12\r\n999999999x999999999 [0,0 1x1] (240x240)|AppMag = -4|MPP = nan|MPP = 1e999")),
    "lying-ome": ("deflate", "pages", _words(_LYING_OME)),
    "lying-imagej": ("deflate", "pages", _words("ImageJ=1.53\nimages=1000000000\nslices=1000000000\nhyperstack=true\nunit=micron\n")),
    "lying-shape": ("deflate", "pages", _words('{"shape": [100000, 100000, 100000], "axes": "../../x"}')),
    "laughing-ome": ("deflate", "pages", _words(f"<?xml version='1.0'?><!DOCTYPE OME [{_LAUGHS}]>" + _OME.format("", "&l9;"))),
    "deep-ome": ("deflate", "pages", _words(_OME.format("", "<a>" * 200_000 + "</a>" * 200_000))),
    "description-not-utf-8": ("deflate", "pages", _words("Größe\nÄ", encoding="utf-16")),
}  # fmt: skip


def _shared(data: bytearray) -> bytearray:
    """Let every tile be the same long run of bytes, so that copying multiplies the file."""
    packed = zlib.compress(np.random.default_rng(0).bytes(_TILE_PX * _TILE_PX * 3))
    return _every_tile(packed + bytes(30 << 20))(data)
