"""Owns small stores on disk for tests of inference, and comparing folders byte for byte."""

import hashlib
from pathlib import Path

import numpy as np

from wsi_seg.geometry import Extent
from wsi_seg.progress import Silent
from wsi_seg.store import (
    completed,
    create_collection,
    create_multiscale,
    fill_pyramid,
    write_strip,
)

_SHARD_PX = 128


def make_store(
    collection: Path, name: str, height: int, width: int, mpp: float | None = 0.5
) -> Path:
    """Write a store of random px, the same for names of one length.

    Parameters
    ----------
    collection
        Made where absent.
    name, height, width, mpp
        Of the slide, in px of level 0.

    Returns
    -------
    Path
        The slide's group.
    """
    create_collection(collection)
    path = collection / name
    create_multiscale(
        path,
        extents=completed([Extent(height, width)]),
        channels=3,
        mpp=mpp,
        attributes={"kind": "slide"},
        name=name,
        chunk_px=_SHARD_PX // 2,
        shard_px=_SHARD_PX,
    )
    rng = np.random.default_rng(len(name))
    for y in range(0, height, _SHARD_PX):
        size = (min(_SHARD_PX, height - y), width, 3)
        write_strip(path, 0, y, rng.integers(0, 256, size, dtype=np.uint8))
    fill_pyramid(path, nearest=False, progress=Silent())
    return path


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder but journals, by its path inside."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "journal.jsonl"
    }
