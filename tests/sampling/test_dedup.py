import shutil
import tracemalloc

import imagecodecs
import numpy as np
import pytest
import tifffile

from wsi_seg.errors import StoreError
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.sampling.dedup import (
    FILE,
    _alike,
    connected,
    find_duplicates,
    read_duplicates,
    write_duplicates,
)
from wsi_seg.store import open_collection


def paint(seed, height=300, width=420):
    """Draw blurred blobs, different for each seed."""
    draws = np.random.default_rng(seed)
    coarse = draws.integers(60, 255, (10, 14, 3), dtype=np.uint8)
    return coarse.repeat(30, 0).repeat(30, 1)[:height, :width]


def test_copies_and_reencoded_slides_are_found(tmp_path):
    """A byte-identical copy, and one re-encoded with loss; other slides have no duplicates."""
    slides = tmp_path / "slides"
    slides.mkdir()
    for name, seed in (("one", 1), ("two", 2)):
        tifffile.imwrite(slides / f"{name}.tif", paint(seed), metadata=None)
    shutil.copyfile(slides / "one.tif", slides / "copy.tif")
    lossy = imagecodecs.jpeg8_decode(imagecodecs.jpeg8_encode(paint(2), level=50))
    tifffile.imwrite(slides / "encoded.tif", lossy, metadata=None)
    for value in (200, 201):
        plain = np.full((300, 420, 3), value, np.uint8)
        tifffile.imwrite(slides / f"plain{value}.tif", plain, metadata=None)
    tile_slides([slides], tmp_path / "s.zarr", progress=Silent()).require_whole()
    found = find_duplicates(open_collection(tmp_path / "s.zarr"), progress=Silent())
    assert found.groups == (("copy", "one"), ("encoded", "two"))
    assert read_duplicates(tmp_path / "s.zarr") == ()
    write_duplicates(tmp_path / "s.zarr", found)
    assert read_duplicates(tmp_path / "s.zarr") == found.groups
    assert open_collection(tmp_path / "s.zarr").names()[0] == "copy"
    (tmp_path / "s.zarr" / FILE).write_text("{}")
    with pytest.raises(StoreError, match="wsi-seg dedup"):
        read_duplicates(tmp_path / "s.zarr")


def test_links_are_transitive():
    assert connected([["a", "b"], ["c", "d"], ["x"], ["b", "c"]]) == (("a", "b", "c", "d"),)
    assert connected([]) == ()


def test_pairs_equal_a_full_matrix_with_the_memory_of_a_few_rows():
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(5000, 16)).astype(np.float32)
    pictures[[7, 4000, 4999]] = pictures[[3, 3, 700]]
    pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)
    shapes = np.ones(5000)
    shapes[4000] = 1.2
    tracemalloc.start()
    found = list(_alike(pictures, shapes))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    small = pictures[:800] @ pictures[:800].T
    expected = np.argwhere(np.triu(small >= 0.99, 1)).tolist()
    assert [pair for pair in found if max(pair) < 800] == expected
    assert [3, 7] in found
    assert [700, 4999] in found
    assert [3, 4000] not in found
    assert peak < 40e6  # a matrix of all pairs takes 200 MB
