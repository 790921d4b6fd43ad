"""Owns checking that a compressed tile is complete, and whether JPEG states its colour space."""

from wsi_seg.codestreams.headers import ImageKind, declared_extent, jpeg_segments, require_size
from wsi_seg.geometry import Extent

_JFIF, _ADOBE = 0xE0, 0xEE


def jpeg_colours_unmarked(data: bytes) -> bool:
    """Return whether a JPEG stream has no marker that states YCbCr or RGB."""
    return not any(marker in {_JFIF, _ADOBE} for marker, _ in jpeg_segments(data))


def require_sound(data: bytes, kind: ImageKind, tile: Extent) -> None:
    """Refuse a stream that declares too many pixels, or truncated JPEG, before it is decoded.

    Raises
    ------
    ValueError
        If either is the case.
    """
    require_size(data, kind, tile)
    if kind == "jpeg" and not jpeg_is_complete(data):
        raise ValueError("its JPEG stream is truncated")


def jpeg_is_complete(data: bytes) -> bool:
    """Return whether a JPEG stream has an end marker and enough bytes for its pixels.

    Decoders fill missing pixels silently. In a sequential stream, each block of 64 px takes at
    least two bits: a Huffman code for the mean and one for the end of the block.
    """
    scan = data.find(b"\xff\xda", sum(2 + 2 + len(body) for _, body in jpeg_segments(data)))
    extent = declared_extent(data, "jpeg")
    if scan < 0 or extent is None or data.rfind(b"\xff\xd9") < scan:
        return False
    sequential = any(marker in {0xC0, 0xC1} for marker, _ in jpeg_segments(data))
    return not sequential or 8 * len(data) >= extent.area // 64 * 2
