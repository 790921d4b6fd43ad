"""Owns the size that a compressed stream claims for its pixels, read before they are allocated."""

import struct
from collections.abc import Iterator
from typing import Literal

from wsi_seg.geometry import Extent

ImageKind = Literal["jpeg", "jpeg2k", "webp", "jpegxl"]
StreamKind = ImageKind | Literal["zstd", "raw", "lzw", "deflate"]

_BOX_SIGNATURES = (b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ")
# Frame headers: 0xF7 is that of JPEG-LS; the ones left out are tables.
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def claimed_extent(data: bytes, kind: ImageKind) -> Extent | None:
    """Read the size that a stream claims; None where it claims none, so that decoding fails.

    Parameters
    ----------
    data
        One stream.
    kind
        How it is compressed.
    """
    try:
        height, width = {
            "jpeg": _jpeg, "jpeg2k": _jpeg2k, "webp": _webp, "jpegxl": _jpegxl
        }[kind](data)  # fmt: skip
    except (struct.error, ValueError):
        return None
    return Extent(height=height, width=width) if height > 0 and width > 0 else None


def require_claim(data: bytes, kind: ImageKind, tile: Extent) -> None:
    """Refuse a stream that claims more pixels than the tile it stands for.

    Some writers cut their streams smaller, others pad them a little.

    Raises
    ------
    ValueError
        If it claims more than four times as many pixels.
    """
    claimed = claimed_extent(data, kind)
    if claimed is not None and claimed.area > 4 * max(tile.area, 1 << 16):
        raise ValueError(f"its {kind} stream claims {claimed}, not {tile}")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment of a JPEG stream before the scan."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        yield data[place + 1], data[place + 4 : place + 2 + length]
        place += 2 + length


def jpeg2k_transforms(data: bytes) -> bool:
    """Whether decoding a JPEG 2000 stream undoes a colour transform (ISO/IEC 15444-1, A.6.1)."""
    stream = _jpeg2k_stream(data)
    place = 2
    while place + 9 <= len(stream) and stream[place] == 0xFF and stream[place + 1] != 0x90:
        if stream[place + 1] == 0x52:  # COD: length, style, progression, layers, transform
            return stream[place + 8] == 1
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    return False


def _jpeg2k_stream(data: bytes) -> bytes:
    if not data.startswith(_BOX_SIGNATURES):
        return data
    return next((body for name, body in _boxes(data) if name == b"jp2c"), b"")


def _jpeg(data: bytes) -> tuple[int, int]:
    """Size in the frame header."""
    for marker, body in jpeg_segments(data):
        if marker in _FRAMES:
            return _pair(">HH", body[1:])
    raise ValueError("no frame header")


def _jpeg2k(data: bytes) -> tuple[int, int]:
    """Size in the segment SIZ, the first of a code stream (ISO/IEC 15444-1, A.5.1)."""
    stream = _jpeg2k_stream(data)
    if stream[:4] != b"\xff\x4f\xff\x51":
        raise ValueError("no code stream")
    x_end, y_end, x, y = struct.unpack_from(">IIII", stream, 8)
    return y_end - y, x_end - x


def _webp(data: bytes) -> tuple[int, int]:
    """Size in the first chunk: VP8X, VP8L or VP8 (RFC 9649)."""
    name = data[12:16]
    if name == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if name == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    height, width = reversed(struct.unpack_from("<HH", data, 26))
    return height & 0x3FFF, width & 0x3FFF


def _jpegxl(data: bytes) -> tuple[int, int]:
    """Size at the beginning of a code stream (ISO/IEC 18181-1, SizeHeader)."""
    stream = data
    if data.startswith(_BOX_SIGNATURES):
        boxes = _boxes(data)
        found = ((n, b) for n, b in boxes if n in {b"jxlc", b"jxlp"})
        name, body = next(found, (b"", b""))
        stream = body[4:] if name == b"jxlp" else body
    if stream[:2] != b"\xff\x0a":
        raise ValueError("no code stream")
    bits = _Bits(int.from_bytes(stream[2:18].ljust(16, b"\0"), "little"))
    small = bits.take(1)
    height = _jpegxl_side(bits, small)
    ratio = bits.take(3)
    if ratio:
        across, down = _JXL_RATIOS[ratio - 1]
        return height, height * across // down
    return height, _jpegxl_side(bits, small)


def _jpegxl_side(bits: "_Bits", small: int) -> int:
    if small:
        return 8 * (1 + bits.take(5))
    return 1 + bits.take((9, 13, 18, 30)[bits.take(2)])


class _Bits:
    """Bits of a number, least significant first."""

    def __init__(self, value: int) -> None:
        self._value = value

    def take(self, count: int) -> int:
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        return taken


def _pair(form: str, data: bytes) -> tuple[int, int]:
    first, second = struct.unpack_from(form, data)
    return int(first), int(second)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each box of a JP2 or JPEG XL file."""
    place = 0
    while place + 8 <= len(data):
        length, head = int.from_bytes(data[place : place + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        end = len(data) if length < head else place + length
        yield data[place + 4 : place + 8], data[place + head : end]
        place = end
