"""Owns leaving out what a tile's stream says besides its pixels: comments, EXIF, XMP, profiles.

Tiles are copied unchanged but for this: such a segment may name the patient, the day or the
scanner. Cutting it out changes no pixel.
"""

from collections.abc import Iterator

from wsi_seg.codestreams.headers import StreamKind

Spans = Iterator[tuple[int, int]]

_JPEG_KEPT = {0xE0, 0xEE}  # JFIF and Adobe say how components become colours
_WEBP_CUT = {b"EXIF", b"XMP ", b"ICCP"}
_WEBP_FLAGS = 0x08 | 0x04 | 0x20  # EXIF, XMP, ICCP in the header of an extended file
_BOXES_CUT = {b"xml ", b"uuid", b"uinf", b"Exif", b"brob", b"jumb"}
_BOX_SIGNATURES = (b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ")


def without_comments(data: bytes, kind: StreamKind) -> bytes:
    """Return a stream without comments; itself where it has none.

    Parameters
    ----------
    data
        One stream; where it is damaged, it is left as it is from there on.
    kind
        How it is compressed.
    """
    if kind == "jpeg":
        return _cut(data, _jpeg_comments(data))
    if kind == "webp":
        return _webp(data)
    if kind in {"jpeg2k", "jpegxl"} and data.startswith(_BOX_SIGNATURES):
        return _cut(data, _boxes(data))
    return _cut(data, _jpeg2k_comments(data)) if kind == "jpeg2k" else data


def _cut(data: bytes, spans: Spans) -> bytes:
    kept, at = [], 0
    for start, end in spans:
        kept.append(data[at:start])
        at = end
    return b"".join([*kept, data[at:]]) if kept else data


def _jpeg_comments(data: bytes) -> Spans:
    """Comment and application segments before the scan."""
    place, size = 2, len(data)
    while place + 4 <= size and data[place] == 0xFF and data[place + 1] not in (0xDA, 0xD9):
        marker = data[place + 1]
        end = place + 2 + (data[place + 2] << 8 | data[place + 3])
        if marker == 0xFE or (0xE0 <= marker <= 0xEF and marker not in _JPEG_KEPT):
            yield place, min(end, size)
        place = end


def _jpeg2k_comments(data: bytes) -> Spans:
    """COM segments of the main header of a code stream."""
    place, size = 2, len(data)
    while place + 4 <= size and data[place] == 0xFF and data[place + 1] != 0x90:
        end = place + 2 + (data[place + 2] << 8 | data[place + 3])
        if data[place + 1] == 0x64:
            yield place, min(end, size)
        place = end


def _boxes(data: bytes) -> Spans:
    """Boxes of metadata in a JP2 or JPEG XL file."""
    place, size = 0, len(data)
    while place + 8 <= size:
        length = int.from_bytes(data[place : place + 4], "big")
        if length == 1:
            length = int.from_bytes(data[place + 8 : place + 16], "big")
        if length < 8:
            return  # the last box, up to the end
        if data[place + 4 : place + 8] in _BOXES_CUT:
            yield place, min(place + length, size)
        place += length


def _webp(data: bytes) -> bytes:
    if data[12:16] != b"VP8X" or len(data) < 30:
        return data
    kept = bytearray(_cut(data, _webp_chunks(data)))
    kept[20] &= ~_WEBP_FLAGS & 0xFF
    kept[4:8] = (len(kept) - 8).to_bytes(4, "little")
    return bytes(kept)


def _webp_chunks(data: bytes) -> Spans:
    place, size = 12, len(data)
    while place + 8 <= size:
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + length + length % 2
        if data[place : place + 4] in _WEBP_CUT:
            yield place, min(end, size)
        place = end
