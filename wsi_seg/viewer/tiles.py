"""Owns deep-zoom tiles: the grid of each level, and the bytes of one tile.

A level's own chunks are its tiles where they are of a handy size, so that finished JPEG and WebP
streams go to the browser as they are in the store.
"""

from dataclasses import dataclass

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import RegionError, StoreNotFoundError
from wsi_seg.geometry import Extent, Region
from wsi_seg.store import Multiscale, shared_cache
from wsi_seg.store.arrays import LevelArray
from wsi_seg.store.chunks import read_encoded
from wsi_seg.viewer.passthrough import browser_jpeg

# Chunks with sides in this range are tiles; other levels are cut into tiles of _TILE_PX.
_SIDES_PX = range(128, 1025)
_TILE_PX = 512

_JPEG_QUALITY = 85
_PNG_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Tile:
    """Finished bytes of one tile and their media type."""

    data: bytes
    media_type: str


def tile_size(array: LevelArray) -> Extent:
    """Size of the tiles a level is served in, in its pixels."""
    chunk = array.chunk
    if chunk.height in _SIDES_PX and chunk.width in _SIDES_PX:
        return chunk
    return Extent(height=_TILE_PX, width=_TILE_PX)


def tile_region(array: LevelArray, level: int, row: int, column: int) -> Region:
    """Pixels of one tile, clipped to the level.

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
            f"{-(-array.extent.height // size.height)} rows and "
            f"{-(-array.extent.width // size.width)} columns of tiles"
        )
    tile = Region(level=level, y=y, x=x, height=size.height, width=size.width)
    return tile.clip(array.extent)


def level_array(image: Multiscale, level: int) -> LevelArray:
    """Array of one level, if it still is what it was when the image was opened.

    Raises
    ------
    RegionError
        If there is no such level.
    StoreNotFoundError
        If the store was deleted or made again since.
    """
    image.pyramid.downsample(level)  # names the levels there are, if it is not one
    array = image.arrays[level]
    try:
        stat = (array.path / "zarr.json").stat()
    except OSError as error:
        raise StoreNotFoundError(
            f"{array.path} is gone; open the page again when it is back"
        ) from error
    if (stat.st_ino, stat.st_mtime_ns) != array.version:
        raise StoreNotFoundError(f"{array.path} was made again; open the page again")
    return array


def image_tile(image: Multiscale, level: int, row: int, column: int) -> Tile:
    """One tile of a colour image: its own stream where a browser can read it, else a JPEG."""
    array = level_array(image, level)
    region = tile_region(array, level, row, column)
    if tile_size(array) == array.chunk and array.encoding.kind in ("jpeg", "webp"):
        stream = read_encoded(array, row, column, shared_cache())
        if stream is not None and array.encoding.kind == "webp":
            return Tile(stream, "image/webp")
        finished = stream and browser_jpeg(stream, array.encoding)
        if finished:
            return Tile(finished, "image/jpeg")
    return encode_jpeg(image.read(region))


def encode_jpeg(pixels: NDArray[np.uint8]) -> Tile:
    """JPEG of ``(H, W, 3)`` uint8 RGB."""
    return Tile(bytes(imagecodecs.jpeg8_encode(pixels, level=_JPEG_QUALITY)), "image/jpeg")


def encode_png(pixels: NDArray[np.uint8]) -> Tile:
    """PNG of ``(H, W)`` or ``(H, W, 3)`` uint8, which a browser decodes to the same values."""
    contiguous = np.ascontiguousarray(pixels)
    filter_ = imagecodecs.PNG.FILTER.UP  # trying all filters takes thrice the time, for nothing
    stream = imagecodecs.png_encode(contiguous, level=_PNG_LEVEL, filter=filter_)
    return Tile(bytes(stream), "image/png")
