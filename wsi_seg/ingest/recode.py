"""Owns recoding: decodes the pixels of a slide and encodes them, strip by strip."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import Slide
from wsi_seg.store.arrays import LevelArray
from wsi_seg.store.cache import pool_map
from wsi_seg.store.codecs import Encoding
from wsi_seg.store.layout import LevelLayout, strip_layout
from wsi_seg.store.writer import write_rows

_CHUNK_PX = 512
# Wider levels are written in strips of one row of chunks, which keeps a strip below 200 MB.
_WIDE_PX = 32_768


def recode_layout(extent: Extent, piece: Extent, encoding: Encoding) -> LevelLayout:
    """Choose a layout in which borders of strips do not cut tiles of the slide.

    Parameters
    ----------
    extent
        Size of the level.
    piece
        Size of the tiles or strips that the slide decodes at a time.
    encoding
        Encoding of the chunks.
    """
    chunk_px = _CHUNK_PX
    if piece.height <= 2 * _CHUNK_PX and piece.height < extent.height:
        chunk_px = piece.height * max(1, round(_CHUNK_PX / piece.height))
    shard_px = chunk_px if extent.width > _WIDE_PX else 2 * chunk_px
    return strip_layout(extent, chunk_px=chunk_px, shard_px=shard_px, encoding=encoding)


def recode_strip(
    slide: Slide,
    level: int,
    array: LevelArray,
    y: int,
    wanted: NDArray[np.bool_] | None = None,
) -> list[int | None]:
    """Decode and write one strip.

    Parameters
    ----------
    slide, level
        Slide and level to read.
    array, y
        Array to write, and the first row of the strip.
    wanted
        Chunks of the level to keep, ``(rows, columns)`` bool; others are filled. None for all.

    Returns
    -------
    list[int or None]
        crc32c of each shard, left to right; None for a shard that is all 0.
    """
    height, width = min(array.shard.height, array.extent.height - y), array.extent.width
    rows = np.full((height, width, 3), array.fill, dtype=np.uint8)
    piece = slide.native_block(level)
    # Threads get columns of tiles, or rows of strips, so that no piece is decoded twice.
    block_height = height if piece.width < width else _multiple(piece.height, 128)
    block_width = _multiple(piece.width, _CHUNK_PX) if piece.width < width else width
    blocks = [
        Region(
            level=level,
            y=y + top,
            x=left,
            height=min(block_height, height - top),
            width=min(block_width, width - left),
        )
        for top in range(0, height, block_height)
        for left in range(0, width, block_width)
    ]
    if wanted is not None:
        blocks = [block for block in blocks if wanted[_chunks(block, array.chunk)].any()]
    pool_map(partial(_read_into, slide, rows, y), blocks)
    if wanted is not None:
        strip = Region(level=level, y=y, x=0, height=height, width=width)
        for row, column in np.argwhere(~wanted[_chunks(strip, array.chunk)]):
            top, left = row * array.chunk.height, column * array.chunk.width
            rows[top : top + array.chunk.height, left : left + array.chunk.width] = array.fill
    return write_rows(array, y, rows)


def _chunks(region: Region, chunk: Extent) -> tuple[slice, slice]:
    """Return the rows and columns of the chunks that overlap a region."""
    return (
        slice(region.y // chunk.height, -(-region.y_end // chunk.height)),
        slice(region.x // chunk.width, -(-region.x_end // chunk.width)),
    )


def _multiple(piece: int, least: int) -> int:
    return piece * -(-least // piece)


def _read_into(slide: Slide, rows: NDArray[np.uint8], y: int, block: Region) -> None:
    rows[block.y - y : block.y_end - y, block.x : block.x_end] = slide.read(block)
