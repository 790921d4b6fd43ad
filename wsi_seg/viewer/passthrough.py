"""Owns making a chunk's JPEG stream readable by browsers without decoding it.

JPEG streams in TIFF may lack their tables and a marker of RGB components; both are inserted (ITU
T.81, and Adobe's technical note 5116 for the APP14 segment).
"""

from collections.abc import Iterator

from wsi_seg.store.codecs import Encoding

_SOI = b"\xff\xd8"
_EOI = b"\xff\xd9"
_APP0, _APP14, _SOS = 0xE0, 0xEE, 0xDA

# Start-of-frame markers of Huffman-coded 8-bit streams: baseline, extended, progressive.
_FRAMES = {0xC0, 0xC1, 0xC2}

# APP14 with transform 0: the components are red, green and blue.
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def browser_jpeg(data: bytes, encoding: Encoding) -> bytes | None:
    """Complete a JPEG stream for a browser; return None if the chunk has to be decoded instead.

    Parameters
    ----------
    data
        JPEG stream of one chunk.
    encoding
        Encoding of the array, of kind ``jpeg``.
    """
    if not data.startswith(_SOI):
        return None
    segments = dict(_segments(data))
    frame = next((segments[marker] for marker in _FRAMES if marker in segments), b"")
    # precision, height, width, number of components
    if len(frame) < 6 or frame[0] != 8 or frame[5] != 3:
        return None
    inserted = b""
    if encoding.jpeg_rgb:
        if _APP0 in segments or _APP14 in segments:
            return None  # the stream's own marker would contradict ours
        inserted += _ADOBE_RGB
    if encoding.tables:
        inserted += encoding.tables.removeprefix(_SOI).removesuffix(_EOI)
    return _SOI + inserted + data[2:]


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and content of each segment before the entropy-coded data."""
    offset = 2
    while offset + 4 <= len(data) and data[offset] == 0xFF:
        marker = data[offset + 1]
        if marker == 0xFF:  # fill byte
            offset += 1
            continue
        length = int.from_bytes(data[offset + 2 : offset + 4], "big")
        yield marker, data[offset + 4 : offset + 2 + length]
        if marker == _SOS or length < 2:
            return
        offset += 2 + length
