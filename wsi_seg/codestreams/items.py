"""Owns taking a frame of DICOM out of the items that it is wrapped in."""

_ITEM = b"\xfe\xff\x00\xe0"


def unwrapped(data: bytes) -> bytes:
    """Join what is in the items of one frame.

    Parameters
    ----------
    data
        Items one after another, each of its tag, its length and its content; what comes after the
        last one is left out.

    Raises
    ------
    ValueError
        If there is no item, or the last one is cut off.
    """
    pieces, at = [], 0
    while data[at : at + 4] == _ITEM:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        pieces.append(data[at + 8 : at + 8 + length])
        if len(pieces[-1]) < length:
            raise ValueError("its stream is cut off")
        at += 8 + length
    if not pieces:
        raise ValueError("it is not wrapped in items")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
