"""Owns small stores on disk for tests of inference, and comparing folders byte for byte."""

import hashlib
from pathlib import Path

import imagecodecs
import numpy as np

from wsi_seg.geometry import Extent
from wsi_seg.progress import Silent
from wsi_seg.store import (
    LabelInfo,
    StoreInfo,
    create_collection,
    create_multiscale,
    extend_pyramid,
    fill_pyramid,
    write_strip,
)
from wsi_seg.store.arrays import read_level_array
from wsi_seg.store.codecs import Encoding
from wsi_seg.store.layout import LevelLayout, create_levels
from wsi_seg.store.names import JOURNAL, LABELS, TISSUE
from wsi_seg.store.shards import write_shard

_SHARD_PX = 128


def make_store(
    collection: Path, name: str, height: int, width: int, mpp: float | None = 0.5
) -> Path:
    """Write a store of random pixels, the same for names of one length.

    Parameters
    ----------
    collection
        Made where absent.
    name, height, width, mpp
        Of the slide, in pixels of level 0.

    Returns
    -------
    Path
        The slide's group.
    """
    create_collection(collection)
    path = collection / name
    create_multiscale(
        path,
        extents=extend_pyramid([Extent(height=height, width=width)]),
        channels=3,
        mpp=mpp,
        attributes=StoreInfo().to_json(),
        name=name,
        chunk_px=_SHARD_PX // 2,
        shard_px=_SHARD_PX,
    )
    rng = np.random.default_rng(len(name))
    for strip in Extent(height=height, width=width).strips(_SHARD_PX):
        size = (strip.height, width, 3)
        write_strip(path, 0, strip.y, rng.integers(0, 256, size, dtype=np.uint8))
    fill_pyramid(path, nearest=False, progress=Silent())
    return path


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder but journals, by its path inside."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != JOURNAL
    }


def make_huge_store(collection: Path, name: str, extent: Extent, *, tissue_cells: int = 2) -> Path:
    """Write a verbatim store of JPEG streams, nearly all of them missing.

    A stripe of tissue runs from top to bottom, in cells of 256 px; under it chunks exist.

    Parameters
    ----------
    collection, name
        Where to.
    extent
        Size of its only level.
    tissue_cells
        Width of the stripe.

    Returns
    -------
    Path
        The slide's group.
    """
    create_collection(collection)
    path = collection / name
    chunk, grid = 512, 16
    pixels = np.random.default_rng(0).integers(0, 256, (chunk // 16, chunk // 16, 3), np.uint8)
    stream = bytes(imagecodecs.jpeg8_encode(pixels.repeat(16, 0).repeat(16, 1), level=80))
    layout = LevelLayout(
        extent,
        Extent(height=chunk, width=chunk),
        Extent(height=chunk * grid, width=chunk * grid),
        Encoding("jpeg"),
    )
    create_levels(path, [layout], channels=3, mpp=0.5, attributes=StoreInfo().to_json(), name=name)
    rows, columns = -(-extent.height // 256), -(-extent.width // 256)
    tissue = path / LABELS / TISSUE
    create_multiscale(
        tissue,
        extents=[Extent(height=rows, width=columns)],
        channels=None,
        mpp=0.5,
        downsample=256,
        attributes=LabelInfo().to_json(),
        name=TISSUE,
    )
    mask = np.zeros((rows, columns), dtype=np.uint8)
    first = columns // 2
    mask[:, first : first + tissue_cells] = 1
    for y in range(0, rows, 1024):
        write_strip(tissue, 0, y, mask[y : y + 1024])
    array = read_level_array(path / "0")
    column = first // 2 // grid
    for row in range(-(-rows // 2 // grid)):
        chunks = [stream if abs(n % grid - first // 2 % grid) < 3 else None for n in range(grid**2)]
        write_shard(array.shard_path(row, column), chunks)
    return path
