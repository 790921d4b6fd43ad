"""Owns TIFF files whose pixels say where they are: level, row and column are coded in the colour.

A reader that mixes up axes, levels, offsets or edge tiles cannot return the right colours.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Pyramid, Region

Codec = Literal["raw", "deflate", "lzw", "zstd", "jpeg", "jpeg2000", "webp", "jpegxl"]
Layout = Literal["pages", "subifds", "svs"]

LOSSY: frozenset[Codec] = frozenset({"jpeg"})

_STRIP_ROWS = 16

_BITS = 11  # of row and of column; two are left for the level

_COMPRESSION: dict[Codec, tuple[str | None, dict[str, object]]] = {
    "raw": (None, {}),
    "deflate": ("zlib", {}),
    "lzw": ("lzw", {}),
    "zstd": ("zstd", {}),
    "jpeg": ("jpeg", {"level": 95}),
    "jpeg2000": ("jpeg2000", {"reversible": True}),
    "webp": ("webp", {"lossless": True}),
    "jpegxl": ("jpegxl", {"lossless": True}),
}


def coordinate_pixels(region: Region, extent: Extent, *, smooth: bool = False) -> NDArray[np.uint8]:
    """Pixels that code their own place: uint8, shape ``(height, width, 3)``.

    Parameters
    ----------
    region
        What to code; it may stick out of the level.
    extent
        Size of the level.
    smooth
        False: the 24 bits are row (11), column (11) and level (2), each modulo its range, in
        that order. True, for lossy codecs: red rises with the row and green with the column,
        0 to 255 over the extent, blue is 60 per level.
    """
    y = np.arange(region.y, region.y_end)[:, None]
    x = np.arange(region.x, region.x_end)[None, :]
    y, x = np.broadcast_arrays(y, x)
    if smooth:
        red = y * 255 // max(1, extent.height - 1)
        green = x * 255 // max(1, extent.width - 1)
        planes = (red, green, np.full_like(red, 60 * region.level))
        return np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8)
    mask = (1 << _BITS) - 1
    code = ((y & mask) << (_BITS + 2)) | ((x & mask) << 2) | (region.level & 3)
    return np.stack([code >> 16, code >> 8, code], axis=-1).astype(np.uint8)


def halved(extent: Extent, levels: int, *, downsample: float = 2.0) -> tuple[Extent, ...]:
    """Extents of a pyramid of this many levels, whole or broken downsample between them."""
    return tuple(extent.scaled(downsample**level) for level in range(levels))


def write_coordinate_tiff(
    path: Path,
    *,
    extents: Sequence[Extent],
    codec: Codec = "deflate",
    tile_px: int | None = 64,
    mpp: float | None = 0.5,
    layout: Layout = "pages",
    bigtiff: bool = False,
) -> Pyramid:
    """Write a pyramidal RGB TIFF made of `coordinate_pixels`.

    Parameters
    ----------
    path
        File to write.
    extents
        Size of each level, finest first.
    codec
        Compression; for those in `LOSSY` the smooth coding is used.
    tile_px
        Side of a tile, a multiple of 16; None writes strips of 16 rows.
    mpp
        Micrometres per pixel of level 0; None writes no resolution.
    layout
        ``pages``: a chain of pages, coarser levels marked as reduced. ``subifds``: coarser
        levels hang on the first page. ``svs``: as Aperio's scanners write it, mpp in the
        description, a thumbnail as second page, label and macro image at the end.
    bigtiff
        Whether to use 64-bit offsets.

    Returns
    -------
    Pyramid
        What a reader should find.
    """
    svs = layout == "svs"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as tiff:
        for level, extent in enumerate(extents):
            resolution = None if mpp is None or svs else mpp * extents[0].width / extent.width
            compression, arguments = _COMPRESSION[codec]
            tiff.write(
                _pixels(extent, level, tile_px, smooth=codec in LOSSY),
                shape=(extent.height, extent.width, 3),
                dtype=np.uint8,
                photometric="rgb",
                compression=compression,
                compressionargs=arguments,
                tile=None if tile_px is None else (tile_px, tile_px),
                rowsperstrip=_STRIP_ROWS if tile_px is None else None,
                subifds=len(extents) - 1 if layout == "subifds" and level == 0 else None,
                subfiletype=1 if level and not svs else 0,
                description=_svs_description(extents[0], extent, mpp) if svs else None,
                resolution=None if resolution is None else (1e4 / resolution, 1e4 / resolution),
                resolutionunit=None if resolution is None else "CENTIMETER",
                metadata=None,
            )
            if svs and level == 0:
                _write_extra(
                    tiff, 0, _svs_description(extents[0], Extent(height=48, width=64), mpp)
                )
        if svs:
            _write_extra(tiff, 1, "Aperio Image Library v12.0.15\r\nlabel 64x48")
            _write_extra(tiff, 9, "Aperio Image Library v12.0.15\r\nmacro 64x48")
    return Pyramid(tuple(extents), mpp)


def _pixels(
    extent: Extent, level: int, tile_px: int | None, *, smooth: bool
) -> NDArray[np.uint8] | Iterator[NDArray[np.uint8]]:
    """Whole level for strips; its tiles in the order of the file otherwise.

    Tiles at the border go on with the code beyond it, so that no edge of the padding leaks
    through a lossy codec.
    """
    if tile_px is None:
        return coordinate_pixels(extent.region(level), extent, smooth=smooth)
    return (
        coordinate_pixels(
            Region(level=level, y=y, x=x, height=tile_px, width=tile_px), extent, smooth=smooth
        )
        for y in range(0, extent.height, tile_px)
        for x in range(0, extent.width, tile_px)
    )


def _write_extra(tiff: tifffile.TiffWriter, subfiletype: int, description: str) -> None:
    """Write a small grey picture that is not a level."""
    grey = np.full((48, 64, 3), 90, dtype=np.uint8)
    tiff.write(
        grey,
        photometric="rgb",
        rowsperstrip=16,
        subfiletype=subfiletype,
        description=description,
        metadata=None,
    )


def _svs_description(full: Extent, extent: Extent, mpp: float | None) -> str:
    size = f"{full.width}x{full.height}"
    if extent != full:
        size += f" -> {extent.width}x{extent.height}"
    fields = "|AppMag = 20" + ("" if mpp is None else f"|MPP = {mpp:.4f}")
    return f"Aperio Image Library v12.0.15\r\n{size} (240x240){fields}"
