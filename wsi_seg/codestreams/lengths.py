"""Owns cutting streams that decode to more bytes than a tile has.

Writers pad tiles; decoders of slides stop at the last pixel, those of zarr go on to the end.
"""

import zlib

import imagecodecs

from wsi_seg.codestreams.headers import StreamKind

# A stream that goes on is unpacked no further than this many tiles.
_MOST_TILES = 4


def exactly(data: bytes, kind: StreamKind, nbytes: int) -> bytes:
    """Return a stream that decodes to no more than a number of bytes; itself where it does so.

    Parameters
    ----------
    data
        One stream. Those of image formats say themselves how large they are, and are left alone.
    kind
        How it is compressed.
    nbytes
        Bytes of a whole tile.

    Raises
    ------
    ValueError, RuntimeError, zlib.error
        If it cannot be decoded.
    """
    if kind == "raw":
        return data[:nbytes]
    if kind == "lzw":
        unpacked = bytes(imagecodecs.lzw_decode(data, out=nbytes + 1))
        return data if len(unpacked) <= nbytes else bytes(imagecodecs.lzw_encode(unpacked[:nbytes]))
    if kind == "deflate":
        unpacked = zlib.decompressobj().decompress(data, nbytes + 1)
        return data if len(unpacked) <= nbytes else zlib.compress(unpacked[:nbytes])
    if kind == "zstd":
        unpacked = bytes(imagecodecs.zstd_decode(data, out=_MOST_TILES * nbytes))
        if len(unpacked) > nbytes:
            return bytes(imagecodecs.zstd_encode(unpacked[:nbytes]))
    return data
