"""Owns the verbatim encoding: copies a slide's compressed tile streams to chunks.

Comments, and bytes after the end of the pixels, are removed; the rest is copied unchanged.
"""

import zlib
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from wsi_seg.codestreams.items import unwrapped
from wsi_seg.codestreams.lengths import trim_stream
from wsi_seg.codestreams.metadata import without_comments
from wsi_seg.errors import SlideError, StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import Slide, TileStreams
from wsi_seg.slides.tiles import pread
from wsi_seg.store.arrays import LevelArray
from wsi_seg.store.cache import pool_map
from wsi_seg.store.codecs import Encoding
from wsi_seg.store.layout import LevelLayout
from wsi_seg.store.shards import write_shard
from wsi_seg.store.writer import sync_shard_names

# Large slides get about a hundred shards, each of which fits in memory; small slides get few, as
# syncing a file takes as long as writing megabytes.
_SHARDS_WANTED = 128
_SHARD_LEAST_BYTES = 2 * 2**20
_SHARD_BYTES = 32 * 2**20


def encoding_of(streams: TileStreams) -> Encoding:
    """Return the encoding of chunks that hold these streams."""
    return Encoding(streams.kind, streams.predictor, streams.tables, streams.jpeg_rgb)


def verbatim_layout(extent: Extent, streams: TileStreams) -> LevelLayout:
    """Return a layout in which every tile of the slide is a chunk."""
    rows, columns = -(-extent.height // streams.tile.height), -(-extent.width // streams.tile.width)
    shards_wanted = min(_SHARDS_WANTED, 1 + int(streams.sizes.sum()) // _SHARD_LEAST_BYTES)
    side = 4
    while -(-rows // side) * -(-columns // side) > shards_wanted:
        side *= 2
    largest = int(streams.sizes.max(initial=0))
    while side > 1 and largest * side * side > _SHARD_BYTES:
        side //= 2
    shard = Extent(
        height=streams.tile.height * min(side, rows), width=streams.tile.width * min(side, columns)
    )
    return LevelLayout(extent, streams.tile, shard, encoding_of(streams), streams.fill)


def mismatch(slide: Slide, level: int, streams: TileStreams) -> str:
    """Compare the first, middle and last tile, decoded as chunks, with the slide's pixels.

    Returns
    -------
    str
        Description of the first difference; empty if there is no difference.

    Raises
    ------
    SlideError
        If the reader of the slide cannot decode any of these tiles.
    """
    extent, encoding = slide.pyramid.extents[level], encoding_of(streams)
    rows, columns = -(-extent.height // streams.tile.height), -(-extent.width // streams.tile.width)
    shape = (streams.tile.height, streams.tile.width, 3)
    places = {(0, 0), (rows // 2, columns // 2), (rows - 1, columns - 1)}
    compared, failure = 0, None
    for row, column in sorted(places):
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
            failure = error  # damaged tiles are copied unchanged; reading them fails
            continue
        (data,) = _read_streams(streams, [number])
        try:
            found = encoding.decode(data or b"", shape)[: region.height, : region.width]
        except StoreError as error:
            return f"tile {number}: {error}"
        compared += 1
        if not np.array_equal(found, expected):
            return f"tile {number} gives other pixels when decoded alone"
    if failure is not None and not compared:
        raise failure
    return ""


def copy_shard_row(streams: TileStreams, array: LevelArray, row: int) -> list[int | None]:
    """Copy the streams of one row of shards.

    Returns
    -------
    list[int or None]
        crc32c of each shard, left to right; None for a shard without tiles.
    """
    columns = -(-array.extent.width // array.shard.width)
    copied = pool_map(partial(_copy_shard, streams, array, row), range(columns))
    if any(checksum is not None for checksum in copied):
        sync_shard_names(array, row)
    return copied


def _copy_shard(streams: TileStreams, array: LevelArray, row: int, column: int) -> int | None:
    chunks = _read_streams(streams, list(_tile_numbers(array, row, column)))
    return write_shard(array.shard_path(row, column), chunks)


def _tile_numbers(array: LevelArray, row: int, column: int) -> Iterator[int | None]:
    """Yield the tile number of each chunk of a shard, row by row; None outside the level."""
    rows, columns = array.grid
    tile_rows = -(-array.extent.height // array.chunk.height)
    tile_columns = -(-array.extent.width // array.chunk.width)
    for tile_row in range(row * rows, (row + 1) * rows):
        for tile_column in range(column * columns, (column + 1) * columns):
            inside = tile_row < tile_rows and tile_column < tile_columns
            yield tile_row * tile_columns + tile_column if inside else None


def _read_streams(streams: TileStreams, numbers: Sequence[int | None]) -> list[bytes | None]:
    """Read the streams of tiles; adjacent streams of a file are read in one call."""
    chunks: list[bytes | None] = [None] * len(numbers)
    places = np.array([p for p, n in enumerate(numbers) if n is not None and streams.sizes[n]], int)
    tiles = np.array([numbers[place] for place in places], int)
    begins, ends = streams.offsets[tiles], streams.offsets[tiles] + streams.sizes[tiles]
    apart = (begins[1:] != ends[:-1]) | (np.diff(streams.file[tiles]) != 0)
    for run in np.split(np.arange(len(tiles)), np.flatnonzero(apart) + 1):
        if not run.size:
            continue
        path = streams.files[streams.file[tiles[run[0]]]]
        begin, nbytes = int(begins[run[0]]), int(ends[run[-1]] - begins[run[0]])
        try:
            data = memoryview(pread(path, begin, nbytes))
        except OSError as error:
            raise SlideError(f"{path}: cannot be read: {error.strerror or error}") from error
        for number in run.tolist():
            first, last = int(begins[number]) - begin, int(ends[number]) - begin
            if last > len(data):
                raise SlideError(
                    f"{path}: ends inside tile {tiles[number]} at byte {begins[number]}; copy it "
                    "again"
                )
            chunks[int(places[number])] = _plain(bytes(data[first:last]), streams)
    return chunks


def _plain(data: bytes, streams: TileStreams) -> bytes:
    """Remove DICOM item headers, comments and trailing bytes, so that only pixels remain."""
    nbytes = streams.tile.area * streams.samples
    try:
        stream = unwrapped(data) if streams.wrapped else data
        return trim_stream(without_comments(stream, streams.kind), streams.kind, nbytes)
    except (ValueError, RuntimeError, zlib.error):
        return data  # damaged streams are copied unchanged; reading them fails
