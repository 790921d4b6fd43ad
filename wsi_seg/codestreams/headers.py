"""Owns reading the image size that a compressed stream declares, before it is decoded."""

import struct
from collections.abc import Iterator
from typing import Literal

from wsi_seg.geometry import Extent

ImageKind = Literal["jpeg", "jpeg2k", "webp", "jpegxl"]
StreamKind = ImageKind | Literal["zstd", "raw", "lzw", "deflate"]

_BOX_SIGNATURES = (b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ")
# SOF markers, and 0xF7 of JPEG-LS; the excluded ones are not frame headers.
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def declared_extent(data: bytes, kind: ImageKind) -> Extent | None:
    """Return the size that a stream declares; None if there is none, so that decoding fails.

    Parameters
    ----------
    data
        One stream.
    kind
        Its compression.
    """
    try:
        height, width = {
            "jpeg": _jpeg, "jpeg2k": _jpeg2k, "webp": _webp, "jpegxl": _jpegxl
        }[kind](data)  # fmt: skip
    except (struct.error, ValueError):
        return None
    return Extent(height=height, width=width) if height > 0 and width > 0 else None


def require_size(data: bytes, kind: ImageKind, tile: Extent) -> None:
    """Refuse a stream that declares more pixels than its tile has.

    Some writers' streams are smaller than the tile, others are slightly padded.

    Raises
    ------
    ValueError
        If it declares more than four times as many pixels.
    """
    declared = declared_extent(data, kind)
    if declared is not None and declared.area > 4 * max(tile.area, 1 << 16):
        raise ValueError(f"its {kind} stream declares {declared}, not {tile}")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment of a JPEG stream before the scan."""
    offset = 2
    while offset + 4 <= len(data) and data[offset] == 0xFF and data[offset + 1] != 0xDA:
        length = int.from_bytes(data[offset + 2 : offset + 4], "big")
        yield data[offset + 1], data[offset + 4 : offset + 2 + length]
        offset += 2 + length


def jpeg2k_transforms(data: bytes) -> bool:
    """Return whether a JPEG 2000 stream uses a component transform (ISO/IEC 15444-1, A.6.1)."""
    stream = _jpeg2k_stream(data)
    offset = 2
    while offset + 9 <= len(stream) and stream[offset] == 0xFF and stream[offset + 1] != 0x90:
        if stream[offset + 1] == 0x52:  # COD: length, style, progression, layers, transform
            return stream[offset + 8] == 1
        offset += 2 + int.from_bytes(stream[offset + 2 : offset + 4], "big")
    return False


def _jpeg2k_stream(data: bytes) -> bytes:
    if not data.startswith(_BOX_SIGNATURES):
        return data
    return next((body for name, body in _boxes(data) if name == b"jp2c"), b"")


def _jpeg(data: bytes) -> tuple[int, int]:
    """Return height and width in the frame header."""
    for marker, body in jpeg_segments(data):
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", body[1:])
            return int(height), int(width)
    raise ValueError("no frame header")


def _jpeg2k(data: bytes) -> tuple[int, int]:
    """Return height and width in the SIZ segment of a codestream (ISO/IEC 15444-1, A.5.1)."""
    stream = _jpeg2k_stream(data)
    if stream[:4] != b"\xff\x4f\xff\x51":
        raise ValueError("no code stream")
    x_end, y_end, x, y = struct.unpack_from(">IIII", stream, 8)
    return y_end - y, x_end - x


def _webp(data: bytes) -> tuple[int, int]:
    """Return height and width in the first chunk: VP8X, VP8L or VP8 (RFC 9649)."""
    name = data[12:16]
    if name == b"VP8X":
        return 1 + int.from_bytes(data[27:30], "little"), 1 + int.from_bytes(data[24:27], "little")
    if name == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    height, width = reversed(struct.unpack_from("<HH", data, 26))
    return height & 0x3FFF, width & 0x3FFF


def _jpegxl(data: bytes) -> tuple[int, int]:
    """Return height and width in the SizeHeader of a codestream (ISO/IEC 18181-1)."""
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


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and content of each box of a JP2 or JPEG XL file."""
    offset = 0
    while offset + 8 <= len(data):
        length, head = int.from_bytes(data[offset : offset + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(data[offset + 8 : offset + 16], "big"), 16
        end = len(data) if length < head else offset + length
        yield data[offset + 4 : offset + 8], data[offset + head : end]
        offset = end
