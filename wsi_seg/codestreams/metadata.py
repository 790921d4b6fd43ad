"""Owns removing metadata from the stream of a tile: comments, EXIF, XMP, ICC profiles.

Apart from this, tiles are copied unchanged. Metadata may name the patient, the date or the scanner;
removing it changes no pixel.
"""

from collections.abc import Iterator

from wsi_seg.codestreams.headers import StreamKind

Spans = Iterator[tuple[int, int]]

_JPEG_KEPT = {0xE0, 0xEE}  # JFIF and Adobe segments define the colour space
_WEBP_CUT = {b"EXIF", b"XMP ", b"ICCP"}
_WEBP_FLAGS = 0x08 | 0x04 | 0x20  # EXIF, XMP, ICCP in the header of an extended file
_BOXES_CUT = {b"xml ", b"uuid", b"uinf", b"Exif", b"brob", b"jumb"}
_BOX_SIGNATURES = (b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ")


def without_comments(data: bytes, kind: StreamKind) -> bytes:
    """Return a stream without metadata; the same one if it has none.

    Parameters
    ----------
    data
        One stream; if it is damaged, the rest from there on is kept.
    kind
        Its compression.
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
    """Yield the spans of comment and application segments before the scan."""
    offset, size = 2, len(data)
    while offset + 4 <= size and data[offset] == 0xFF and data[offset + 1] not in (0xDA, 0xD9):
        marker = data[offset + 1]
        end = offset + 2 + (data[offset + 2] << 8 | data[offset + 3])
        if marker == 0xFE or (0xE0 <= marker <= 0xEF and marker not in _JPEG_KEPT):
            yield offset, min(end, size)
        offset = end


def _jpeg2k_comments(data: bytes) -> Spans:
    """Yield the spans of COM segments in the main header of a codestream."""
    offset, size = 2, len(data)
    while offset + 4 <= size and data[offset] == 0xFF and data[offset + 1] != 0x90:
        end = offset + 2 + (data[offset + 2] << 8 | data[offset + 3])
        if data[offset + 1] == 0x64:
            yield offset, min(end, size)
        offset = end


def _boxes(data: bytes) -> Spans:
    """Yield the spans of metadata boxes in a JP2 or JPEG XL file."""
    offset, size = 0, len(data)
    while offset + 8 <= size:
        length = int.from_bytes(data[offset : offset + 4], "big")
        if length == 1:
            length = int.from_bytes(data[offset + 8 : offset + 16], "big")
        if length < 8:
            return  # the last box extends to the end
        if data[offset + 4 : offset + 8] in _BOXES_CUT:
            yield offset, min(offset + length, size)
        offset += length


def _webp(data: bytes) -> bytes:
    if data[12:16] != b"VP8X" or len(data) < 30:
        return data
    kept = bytearray(_cut(data, _webp_chunks(data)))
    kept[20] &= ~_WEBP_FLAGS & 0xFF
    kept[4:8] = (len(kept) - 8).to_bytes(4, "little")
    return bytes(kept)


def _webp_chunks(data: bytes) -> Spans:
    offset, size = 12, len(data)
    while offset + 8 <= size:
        length = int.from_bytes(data[offset + 4 : offset + 8], "little")
        end = offset + 8 + length + length % 2
        if data[offset : offset + 4] in _WEBP_CUT:
            yield offset, min(end, size)
        offset = end
