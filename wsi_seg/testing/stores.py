"""Owns writing small test stores, and comparing folders byte by byte."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from wsi_seg.geometry import Extent, extend_pyramid
from wsi_seg.store import (
    LabelInfo,
    Layout,
    StoreInfo,
    create_collection,
    create_multiscale,
    writing,
)
from wsi_seg.store.arrays import read_level_array
from wsi_seg.store.codecs import Encoding
from wsi_seg.store.layout import LevelLayout
from wsi_seg.store.names import JOURNAL, LABELS, TISSUE
from wsi_seg.store.shards import write_shard

_SHARD_PX = 128


def make_store(
    collection: Path, name: str, height: int, width: int, mpp: float | None = 0.5
) -> Path:
    """Write a store of random pixels, seeded by the length of the name.

    Parameters
    ----------
    collection
        Folder of the collection; created if it does not exist.
    name, height, width, mpp
        Name, size in level-0 pixels and mpp of the slide.

    Returns
    -------
    Path
        The slide's group.
    """
    create_collection(collection)
    extents = extend_pyramid([Extent(height=height, width=width)])
    chunk_px = _SHARD_PX // 2
    layout = Layout.of(extents, channels=3, mpp=mpp, chunk_px=chunk_px, shard_px=_SHARD_PX)
    rng = np.random.default_rng(len(name))
    path = collection / name
    with writing(path, layout, StoreInfo().to_json()) as draft:
        for strip in draft.strips():
            draft.write(strip, rng.integers(0, 256, (strip.height, width, 3), dtype=np.uint8))
    return path


def write_image(
    path: Path,
    pixels: NDArray[np.uint8],
    attributes: Mapping[str, object],
    *,
    mpp: float | None = 0.5,
    downsample: float = 1.0,
    shard_px: int = 1024,
    extents: Sequence[Extent] | None = None,
) -> None:
    """Write an array as an image or label.

    Parameters
    ----------
    path
        Folder of the group; its collection must exist.
    pixels
        ``(H, W, C)``, or ``(H, W)`` for a label, uint8.
    attributes
        Attributes of the group, JSON values.
    mpp
        Micrometres per pixel of the slide's level 0.
    downsample
        Level-0 pixels of the slide per pixel of this image's level 0.
    shard_px
        Side of a shard in pixels; chunks are half as large.
    extents
        Sizes of the levels; None halves repeatedly.
    """
    layout = Layout.of(
        extents or extend_pyramid([Extent.of(pixels.shape)]),
        channels=None if pixels.ndim == 2 else pixels.shape[2],
        mpp=mpp,
        downsample=downsample,
        chunk_px=shard_px // 2,
        shard_px=shard_px,
    )
    with writing(path, layout, attributes) as draft:
        for strip in draft.strips():
            draft.write(strip, pixels[strip.slices])


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file in a folder, by relative path, except journals."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != Path(JOURNAL).name
    }


def make_huge_store(collection: Path, name: str, extent: Extent, *, tissue_cells: int = 2) -> Path:
    """Write a store of verbatim JPEG streams, of which nearly all are missing.

    A stripe of tissue runs from top to bottom, in cells of 256 px; chunks exist only there.

    Parameters
    ----------
    collection, name
        Collection and name of the slide.
    extent
        Size of the only level.
    tissue_cells
        Width of the stripe in cells.

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
    create_multiscale(
        path,
        Layout(levels=(layout,), channels=3, mpp=0.5),
        StoreInfo().to_json(),
    )
    rows, columns = -(-extent.height // 256), -(-extent.width // 256)
    tissue = path / LABELS / TISSUE
    mask = np.zeros((rows, columns), dtype=np.uint8)
    first = columns // 2
    mask[:, first : first + tissue_cells] = 1
    write_image(
        tissue, mask, LabelInfo().to_json(), downsample=256, extents=[Extent.of(mask.shape)]
    )
    array = read_level_array(path / "0")
    column = first // 2 // grid
    for row in range(-(-rows // 2 // grid)):
        chunks = [stream if abs(n % grid - first // 2 % grid) < 3 else None for n in range(grid**2)]
        write_shard(array.shard_path(row, column), chunks)
    return path
