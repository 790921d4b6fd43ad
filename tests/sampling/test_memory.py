"""The memory of importance maps is estimated correctly before they are built."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from wsi_seg.config import MixConfig, SamplingConfig, load_recipe
from wsi_seg.geometry import Extent
from wsi_seg.sampling import PatchSampler, SlideMap
from wsi_seg.sampling.importance import cells_along
from wsi_seg.sampling.memory import maps_nbytes

LUNG = Path(__file__).parents[2] / "pipelines/lung_nodule/recipe.yaml"
GB = 1e9


def maps_of(slides, side):
    """Build square maps with two objects each."""
    box = np.array([[8.0, 8.0, 24.0, 24.0], [32.0, 8.0, 40.0, 24.0]])
    extent = Extent(height=8 * side, width=8 * side)
    return [
        SlideMap(
            name=str(n), extent=extent, px_area=1.0, cell_px=8.0,
            tissue=np.full((side, side), 200, np.uint8), boxes=box,
            class_ids=np.ones(2, np.uint8), areas=np.full(2, 64.0),
            sources=np.full(2, "expert"), covered=np.full((side, side), 9, np.uint8),
        )
        for n in range(slides)
    ]  # fmt: skip


@pytest.mark.parametrize(("slides", "side"), [(3, 800), (60, 100)])
def test_the_estimate_matches_the_memory_used(slides, side):
    sampling = SamplingConfig(mix=MixConfig(objects=0.5, tissue=0.4, background=0.1))
    tracemalloc.start()
    maps = maps_of(slides, side)
    sides = np.full((slides, 2), 32.0)
    sampler = PatchSampler(maps, sampling, sides=sides, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    wanted = maps_nbytes(slides * side**2, slides, sampling, processes=1)
    assert len(sampler)
    assert 0.6 * wanted < peak < 1.1 * wanted


def needed(recipe, scans=600, slices=250, side_px=512, mpp=700.0):
    """Estimate the bytes of the maps for scans of a typical clinical size."""
    cell_px = max(1.0, recipe.sampling.cell_um / mpp)
    cells = cells_along(side_px, cell_px) ** 2 * scans * slices
    return maps_nbytes(cells, scans * slices, recipe.sampling, processes=1 + recipe.train.workers)


def test_the_full_lung_recipe_fits_the_competitions_scans_into_memory():
    """600 scans of 250 slices fit into 24 GB in every phase, but not with cells of 32 um."""
    recipe = load_recipe(LUNG)
    for stage in recipe.stages:
        assert needed(stage) < 24 * GB
    small = load_recipe(LUNG, ["sampling.cell_um=32"])
    assert needed(small) > 100 * GB
