"""Owns whether a compressed tile is whole, and what its JPEG stream says of colours."""

from wsi_seg.codestreams.headers import ImageKind, claimed_extent, jpeg_segments, require_claim
from wsi_seg.geometry import Extent

_JFIF, _ADOBE = 0xE0, 0xEE


def jpeg_colours_unmarked(data: bytes) -> bool:
    """Whether a JPEG stream leaves open if its three components are YCbCr or RGB."""
    return not any(marker in {_JFIF, _ADOBE} for marker, _ in jpeg_segments(data))


def require_sound(data: bytes, kind: ImageKind, tile: Extent) -> None:
    """Refuse a stream that claims too many pixels, or JPEG that is cut off, before it is decoded.

    Raises
    ------
    ValueError
        If it is so.
    """
    require_claim(data, kind, tile)
    if kind == "jpeg" and not jpeg_is_whole(data):
        raise ValueError("its JPEG stream is cut off")


def jpeg_is_whole(data: bytes) -> bool:
    """Whether a JPEG stream has its end, and bytes for its pixels.

    Decoders fill what is missing without a word. Where it is not progressive, every 64 px take at
    least two bits: one Huffman code for the mean, one for the end of the block.
    """
    scan = data.find(b"\xff\xda", sum(2 + 2 + len(body) for _, body in jpeg_segments(data)))
    extent = claimed_extent(data, "jpeg")
    if scan < 0 or extent is None or data.rfind(b"\xff\xd9") < scan:
        return False
    sequential = any(marker in {0xC0, 0xC1} for marker, _ in jpeg_segments(data))
    return not sequential or 8 * len(data) >= extent.area // 64 * 2
