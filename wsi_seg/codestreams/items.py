"""Owns extracting an encapsulated DICOM frame from its items."""

_ITEM = b"\xfe\xff\x00\xe0"


def unwrapped(data: bytes) -> bytes:
    """Concatenate the contents of the items of one frame.

    Parameters
    ----------
    data
        Consecutive items, each with tag, length and content; bytes after the last item are ignored.

    Raises
    ------
    ValueError
        If there is no item, or the last one is truncated.
    """
    pieces, at = [], 0
    while data[at : at + 4] == _ITEM:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        pieces.append(data[at + 8 : at + 8 + length])
        if len(pieces[-1]) < length:
            raise ValueError("its stream is truncated")
        at += 8 + length
    if not pieces:
        raise ValueError("it is not wrapped in items")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
