"""Owns making a chunk's JPEG stream readable by a browser, of the same pixels, without decoding.

A TIFF's stream may lack its tables, and says nothing about RGB components: both are put back in
front of it (ITU T.81, and Adobe's technical note 5116 for the APP14 segment).
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
    """Complete JPEG for a browser, or None where the chunk has to be decoded here.

    Parameters
    ----------
    data
        Stream of one chunk.
    encoding
        Of the array; of kind ``jpeg``.
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
            return None  # the stream's own marker would speak against ours
        inserted += _ADOBE_RGB
    if encoding.tables:
        inserted += encoding.tables.removeprefix(_SOI).removesuffix(_EOI)
    return _SOI + inserted + data[2:]


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment before the entropy-coded data."""
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, data[place + 4 : place + 2 + length]
        if marker == _SOS or length < 2:
            return
        place += 2 + length
