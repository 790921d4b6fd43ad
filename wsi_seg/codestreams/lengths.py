"""Owns trimming streams that decode to more bytes than a tile has.

Some writers pad tiles. TIFF decoders stop at the last pixel, but zarr codecs decode to the end.
"""

import zlib

import imagecodecs

from wsi_seg.codestreams.headers import StreamKind

# A zstd stream is decompressed to at most this many tiles.
_MAX_TILES = 4


def trim_stream(data: bytes, kind: StreamKind, nbytes: int) -> bytes:
    """Return a stream that decodes to at most a number of bytes; the same one if it already does.

    Parameters
    ----------
    data
        One stream. Image formats declare their size, and are returned unchanged.
    kind
        Its compression.
    nbytes
        Uncompressed bytes of a full tile.

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
        unpacked = bytes(imagecodecs.zstd_decode(data, out=_MAX_TILES * nbytes))
        if len(unpacked) > nbytes:
            return bytes(imagecodecs.zstd_encode(unpacked[:nbytes]))
    return data
