"""Owns deep-zoom tiles: the tile grid of each level, and encoding tiles.

Chunks of a suitable size are tiles, so that JPEG and WebP chunks are sent without re-encoding.
"""

from dataclasses import dataclass

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_seg.counts import counted
from wsi_seg.errors import RegionError, StoreNotFoundError
from wsi_seg.geometry import Extent, Region
from wsi_seg.store import Multiscale, shared_cache
from wsi_seg.store.arrays import LevelArray
from wsi_seg.store.chunks import read_encoded
from wsi_seg.viewer.passthrough import browser_jpeg

# Chunks with sides in this range are tiles; other levels are split into tiles of _TILE_PX.
_SIDES_PX = range(128, 1025)
_TILE_PX = 512

_JPEG_QUALITY = 85
_PNG_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Tile:
    """Encoded tile and its media type."""

    data: bytes
    media_type: str


def tile_size(array: LevelArray) -> Extent:
    """Return the tile size of a level, in its pixels."""
    chunk = array.chunk
    if chunk.height in _SIDES_PX and chunk.width in _SIDES_PX:
        return chunk
    return Extent(height=_TILE_PX, width=_TILE_PX)


def tile_region(array: LevelArray, level: int, row: int, column: int) -> Region:
    """Return the region of one tile, clipped to the level.

    Raises
    ------
    RegionError
        If the level has no such tile.
    """
    size = tile_size(array)
    y, x = row * size.height, column * size.width
    if not (0 <= y < array.extent.height and 0 <= x < array.extent.width):
        raise RegionError(
            f"got tile row={row} column={column}; level {level} of {array.extent} has "
            f"{counted(-(-array.extent.height // size.height), 'row')} and "
            f"{counted(-(-array.extent.width // size.width), 'column')} of tiles"
        )
    tile = Region(level=level, y=y, x=x, height=size.height, width=size.width)
    return tile.clip(array.extent)


def level_array(image: Multiscale, level: int) -> LevelArray:
    """Return the array of one level, if it is unchanged since the image was opened.

    Raises
    ------
    RegionError
        If there is no such level.
    StoreNotFoundError
        If the store was deleted or replaced since.
    """
    image.pyramid.downsample(level)  # raises for an invalid level
    array = image.arrays[level]
    try:
        stat = (array.path / "zarr.json").stat()
    except OSError as error:
        raise StoreNotFoundError(
            f"{array.path} is gone; reload the page when it is back"
        ) from error
    if (stat.st_ino, stat.st_mtime_ns) != array.version:
        raise StoreNotFoundError(f"{array.path} was replaced; reload the page")
    return array


def image_tile(image: Multiscale, level: int, row: int, column: int) -> Tile:
    """Encode a tile of an RGB image, or pass its chunk through if browsers can read it."""
    array = level_array(image, level)
    region = tile_region(array, level, row, column)
    if tile_size(array) == array.chunk and array.encoding.kind in ("jpeg", "webp"):
        stream = read_encoded(array, row, column, shared_cache())
        if stream is not None and array.encoding.kind == "webp":
            return Tile(stream, "image/webp")
        completed = stream and browser_jpeg(stream, array.encoding)
        if completed:
            return Tile(completed, "image/jpeg")
    return encode_jpeg(image.read(region))


def encode_jpeg(pixels: NDArray[np.uint8]) -> Tile:
    """Encode ``(H, W, 3)`` uint8 RGB as JPEG."""
    return Tile(bytes(imagecodecs.jpeg8_encode(pixels, level=_JPEG_QUALITY)), "image/jpeg")


def encode_png(pixels: NDArray[np.uint8]) -> Tile:
    """Encode ``(H, W)`` or ``(H, W, 3)`` uint8 losslessly as PNG."""
    contiguous = np.ascontiguousarray(pixels)
    filter_ = imagecodecs.PNG.FILTER.UP  # trying all filters is three times slower, with no gain
    stream = imagecodecs.png_encode(contiguous, level=_PNG_LEVEL, filter=filter_)
    return Tile(bytes(stream), "image/png")
