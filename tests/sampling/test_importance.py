import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.geometry import Extent, Pyramid
from wsi_seg.sampling import CellTable, map_slide
from wsi_seg.sampling.importance import SlideMap

NO_BOXES = np.zeros((0, 4))
NO_IDS = np.zeros(0, np.uint8)


class Mask:
    """Tissue mask in memory, of one level."""

    def __init__(self, array):
        self.array = array
        self.pyramid = Pyramid((Extent(*array.shape),))

    def read(self, region):
        return self.array[region.slices]


def mapped(extent, tissue, cell_px) -> SlideMap:
    return map_slide(
        "a", extent, tissue, cell_px=cell_px, px_area=1.0, boxes=NO_BOXES, class_ids=NO_IDS
    )


@given(
    height=st.integers(60, 150),
    width=st.integers(60, 150),
    shrink=st.sampled_from([1, 2, 4]),
    cells=st.floats(8, 20),
    seed=st.integers(0, 99),
)
def test_cells_hold_the_tissue_that_lies_in_them(height, width, shrink, cells, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    extent = Extent(height * shrink, width * shrink)
    found = mapped(extent, Mask(mask.astype(np.uint8)), cells * shrink)
    assert found.cell_areas.sum() == pytest.approx(extent.area)
    whole = float((found.tissue / 255 * found.cell_areas).sum())
    # Cell borders move by at most half a mask px, and the mask is noise.
    assert whole == pytest.approx(mask.sum() * shrink**2, rel=0.03)


def test_a_mask_aligned_with_the_cells_is_kept_exactly():
    mask = np.kron(np.array([[0, 1, 0], [1, 0, 1]], np.uint8), np.ones((5, 5), np.uint8))
    mask[0, 0] = 1
    found = mapped(Extent(40, 60), Mask(mask), 20.0)
    assert found.tissue.tolist() == [[round(255 / 25), 255, 0], [255, 0, 255]]


def test_large_masks_are_read_in_bands_with_the_same_result(monkeypatch):
    mask = (np.random.default_rng(0).random((97, 41)) < 0.3).astype(np.uint8)
    whole = mapped(Extent(970, 410), Mask(mask), 73.0)
    monkeypatch.setattr("wsi_seg.sampling.importance._BAND_PX", 11)
    assert np.array_equal(mapped(Extent(970, 410), Mask(mask), 73.0).tissue, whole.tissue)


def test_without_a_mask_all_is_tissue():
    assert (mapped(Extent(100, 55), None, 32.0).tissue == 255).all()


@given(weights=st.lists(st.floats(0, 10), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_only_cells_with_weight_are_drawn(weights, seed):
    table = CellTable.of([np.array(weights[:1]), np.array(weights[1:])])
    assert table.empty == (max(weights) == 0)
    if not table.empty:
        drawn = table.draw(np.random.default_rng(seed).random(200))
        assert (np.array(weights)[drawn] > 0).all()


def test_frequencies_follow_the_weights():
    weights = np.array([0.7, 0, 0.2, 0.1])
    drawn = CellTable.of([weights]).draw(np.random.default_rng(1).random(100_000))
    assert np.bincount(drawn, minlength=4) / 100_000 == pytest.approx(weights, abs=0.01)
