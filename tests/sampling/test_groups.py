"""Groups stay in one fold, and slides with any foreground are positive."""

import numpy as np
import pytest

from wsi_seg.config import MixConfig, SamplingConfig
from wsi_seg.config.data import DataConfig
from wsi_seg.geometry import Extent
from wsi_seg.progress import Silent
from wsi_seg.sampling import Layer, PatchSampler, SlideMap
from wsi_seg.sampling.dedup import find_duplicates, write_duplicates
from wsi_seg.sampling.folds import hold_out, make_folds
from wsi_seg.sampling.groups import group_slides
from wsi_seg.store import StoreInfo, create_collection, open_collection
from wsi_seg.testing.stores import write_image


@pytest.fixture
def collection(tmp_path):
    """Twelve slides: two are copies of another, one of them with slight noise."""
    create_collection(tmp_path / "s.zarr")
    rng = np.random.default_rng(0)
    small = {f"p{n:02}": rng.integers(0, 256, (8, 8, 3)) for n in range(10)}
    small |= {"copy": small["p03"], "noisy": small["p07"]}
    for name, cells in small.items():
        pixels = cells.repeat(16, 0).repeat(16, 1)
        if name == "noisy":
            pixels = pixels + rng.integers(-3, 4, pixels.shape)
        shown = pixels.clip(0, 255).astype(np.uint8)
        write_image(tmp_path / "s.zarr" / name, shown, StoreInfo().to_json())
    return tmp_path / "s.zarr"


def test_duplicates_are_never_in_two_folds(collection):
    write_duplicates(collection, find_duplicates(open_collection(collection), progress=Silent()))
    names = open_collection(collection).names()
    groups = group_slides(DataConfig(stores=(collection,)), names)
    areas = {name: float(number % 4) for number, name in enumerate(names)}
    for seed in range(8):
        folds = make_folds(areas, groups, 3, seed=seed)
        folds += (hold_out(areas, groups, 3, np.random.default_rng(seed)),)
        for fold in folds:
            assert ("copy" in fold) == ("p03" in fold)
            assert ("noisy" in fold) == ("p07" in fold)


def test_a_slide_with_one_pixel_of_foreground_is_positive():
    """In a winning solution, less than 2.5 % of a patch counted as negative."""

    def slide(name, boxes):
        found = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        count = len(found)
        return SlideMap(
            name=name, extent=Extent(height=64, width=64), px_area=1.0, cell_px=8.0,
            tissue=np.full((8, 8), 255, np.uint8), boxes=found,
            class_ids=np.ones(count, np.uint8), areas=np.ones(count),
            sources=np.full(count, "expert"),
        )  # fmt: skip

    maps = [slide("speck", [(30, 30, 31, 31)]), slide("empty", [])]
    sampling = SamplingConfig(
        unit="slide", mix=MixConfig(objects=0.5, empty=0.5), patches_per_epoch=40
    )
    drawn = PatchSampler(maps, sampling, sides=np.full((2, 2), 64.0), seed=0).epoch(0)
    assert set(drawn.slide[drawn.layer == Layer.OBJECTS].tolist()) == {0}
    assert set(drawn.slide[drawn.layer == Layer.EMPTY].tolist()) == {1}
