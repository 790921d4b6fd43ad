"""Owns the verbatim encoding: a slide's finished tile streams become chunks, unchanged."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from wsi_seg.errors import SlideError, StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import Slide, TileStreams
from wsi_seg.store.arrays import LevelArray
from wsi_seg.store.cache import shared_pool
from wsi_seg.store.codecs import Encoding
from wsi_seg.store.layout import LevelLayout
from wsi_seg.store.shards import write_shard

# A slide becomes some hundred files, each of which fits in memory.
_SHARDS_WANTED = 128
_SHARD_BYTES = 32 * 2**20


def encoding_of(streams: TileStreams) -> Encoding:
    """Name the encoding under which these streams are chunks."""
    return Encoding(streams.kind, streams.predictor, streams.tables, streams.jpeg_rgb)


def verbatim_layout(extent: Extent, streams: TileStreams) -> LevelLayout:
    """Lay out a level so that every tile of the slide is a chunk."""
    rows, columns = -(-extent.height // streams.tile.height), -(-extent.width // streams.tile.width)
    side = 4
    while -(-rows // side) * -(-columns // side) > _SHARDS_WANTED:
        side *= 2
    largest = int(streams.sizes.max(initial=0))
    while side > 1 and largest * side * side > _SHARD_BYTES:
        side //= 2
    shard = Extent(streams.tile.height * min(side, rows), streams.tile.width * min(side, columns))
    return LevelLayout(extent, streams.tile, shard, encoding_of(streams))


def mismatch(slide: Slide, level: int, streams: TileStreams) -> str:
    """Compare the four corner tiles and the middle one, decoded as chunks, with the slide's px.

    Returns
    -------
    str
        What differs; empty if nothing does.

    Raises
    ------
    SlideError
        If the slide itself can decode none of these tiles.
    """
    extent, encoding = slide.pyramid.extents[level], encoding_of(streams)
    rows, columns = -(-extent.height // streams.tile.height), -(-extent.width // streams.tile.width)
    shape = (streams.tile.height, streams.tile.width, 3)
    places = {(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)}
    compared, failure = 0, None
    for row, column in sorted(places | {(rows // 2, columns // 2)}):
        number = row * columns + column
        region = Region(
            level=level,
            y=row * shape[0],
            x=column * shape[1],
            height=shape[0],
            width=shape[1],
        ).clip(extent)
        if not streams.sizes[number]:
            continue
        try:
            expected = slide.read(region)
        except SlideError as error:
            failure = error  # a damaged tile is copied as it is; reading it will say so
            continue
        data = _read_stream(slide.path, streams, number)
        try:
            found = encoding.decode(data, shape)[: region.height, : region.width]
        except StoreError as error:
            return f"tile {number}: {error}"
        compared += 1
        if not np.array_equal(found, expected):
            return f"tile {number} gives other px when decoded alone"
    if failure is not None and not compared:
        raise failure
    return ""


def copy_shard_row(
    path: Path, streams: TileStreams, array: LevelArray, row: int
) -> list[int | None]:
    """Copy the streams of one row of shards.

    Returns
    -------
    list[int or None]
        crc32c of each shard, left to right; None for one without any tile.
    """
    columns = -(-array.extent.width // array.shard.width)
    copy = partial(_copy_shard, path, streams, array, row)
    return list(shared_pool().map(copy, range(columns)))


def _copy_shard(
    path: Path, streams: TileStreams, array: LevelArray, row: int, column: int
) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise SlideError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        chunks = [
            None if number is None else _pread(descriptor, path, streams, number)
            for number in _tile_numbers(array, row, column)
        ]
    finally:
        os.close(descriptor)
    return write_shard(array.shard_path(row, column), chunks)


def _tile_numbers(array: LevelArray, row: int, column: int) -> Iterator[int | None]:
    """Numbers of the slide's tiles in the order of a shard's chunks; None outside the level."""
    rows, columns = array.grid
    tile_rows = -(-array.extent.height // array.chunk.height)
    tile_columns = -(-array.extent.width // array.chunk.width)
    for tile_row in range(row * rows, (row + 1) * rows):
        for tile_column in range(column * columns, (column + 1) * columns):
            inside = tile_row < tile_rows and tile_column < tile_columns
            yield tile_row * tile_columns + tile_column if inside else None


def _read_stream(path: Path, streams: TileStreams, number: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _pread(descriptor, path, streams, number) or b""
    finally:
        os.close(descriptor)


def _pread(descriptor: int, path: Path, streams: TileStreams, number: int) -> bytes | None:
    size, offset = int(streams.sizes[number]), int(streams.offsets[number])
    if not size:
        return None
    data = os.pread(descriptor, size, offset)
    if len(data) != size:
        raise SlideError(f"{path}: ends inside tile {number} at byte {offset}; copy it again")
    return data
