import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.geometry import Extent, Pyramid
from wsi_seg.sampling import CellTable, map_cells
from wsi_seg.sampling.importance import BLOCK, SlideMap

NO_BOXES = np.zeros((0, 4))
NOTHING = np.zeros(0)


class Mask:
    """Tissue mask in memory with a single level."""

    def __init__(self, array):
        self.array = array
        self.pyramid = Pyramid((Extent.of(array.shape),))

    def read(self, region):
        return self.array[region.slices]


def mapped(extent, tissue, cell_px) -> SlideMap:
    share = map_cells(tissue, extent, cell_px)
    ids, sources = NOTHING.astype(np.uint8), NOTHING.astype(str)
    return SlideMap("a", extent, 1.0, cell_px, share, NO_BOXES, ids, NOTHING, sources)


@given(
    height=st.integers(60, 150),
    width=st.integers(60, 150),
    shrink=st.sampled_from([1, 2, 4]),
    cells=st.floats(8, 20),
    seed=st.integers(0, 99),
)
def test_cells_have_the_fraction_of_tissue_inside_them(height, width, shrink, cells, seed):
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    extent = Extent(height=height * shrink, width=width * shrink)
    found = mapped(extent, Mask(mask.astype(np.uint8)), cells * shrink)
    sides = [
        np.diff(np.minimum(np.arange(count + 1) * found.cell_px, length))
        for count, length in zip(found.tissue.shape, (extent.height, extent.width), strict=True)
    ]
    areas = np.outer(*sides)
    assert areas.sum() == pytest.approx(extent.area)
    whole = float((found.tissue / 255 * areas).sum())
    # Cell borders are rounded to pixels of the mask, which is noise.
    assert whole == pytest.approx(mask.sum() * shrink**2, rel=0.03)


def test_a_mask_aligned_with_the_cells_is_kept_exactly():
    mask = np.kron(np.array([[0, 1, 0], [1, 0, 1]], np.uint8), np.ones((5, 5), np.uint8))
    mask[0, 0] = 1
    found = mapped(Extent(height=40, width=60), Mask(mask), 20.0)
    assert found.tissue.tolist() == [[round(255 / 25), 255, 0], [255, 0, 255]]


def test_reading_large_masks_in_bands_gives_the_same_result(monkeypatch):
    mask = (np.random.default_rng(0).random((97, 41)) < 0.3).astype(np.uint8)
    whole = mapped(Extent(height=970, width=410), Mask(mask), 73.0)
    monkeypatch.setattr("wsi_seg.sampling.importance._BAND_PX", 11)
    assert np.array_equal(
        mapped(Extent(height=970, width=410), Mask(mask), 73.0).tissue, whole.tissue
    )


def test_without_a_mask_all_is_tissue():
    assert (mapped(Extent(height=100, width=55), None, 32.0).tissue == 255).all()


@given(
    first=st.lists(st.integers(0, 255), min_size=1, max_size=200),
    second=st.lists(st.integers(0, 255), min_size=1, max_size=200),
    factor=st.floats(0.1, 1000),
    seed=st.integers(0, 99),
)
def test_only_cells_with_weight_are_drawn(first, second, factor, seed):
    table = CellTable.of([(np.array(w, np.uint8)[None], f) for w, f in
                          ((first, 1.0), (second, factor))])  # fmt: skip
    assert table.total == pytest.approx(sum(first) + sum(second) * factor)
    if table.total:
        draws = np.random.default_rng(seed).random(200)
        drawn = table.draw(np.concatenate([draws, [0, 1 - 2**-53]]))
        assert (table.weights.ravel()[drawn] > 0).all()
        cells = np.arange(table.weights.size)
        assert table.share(cells).sum() == pytest.approx(1)


def test_frequencies_follow_the_weights():
    weights = np.random.default_rng(2).integers(0, 256, (3, 50), dtype=np.uint8)
    table = CellTable.of([(weights, 2.0), (weights, 6.0)])
    drawn = table.draw(np.random.default_rng(1).random(1_000_000))
    found = np.bincount(drawn, minlength=6 * BLOCK) / 1_000_000
    expected = np.zeros(6 * BLOCK)
    flat = weights.ravel() / weights.sum()
    expected[:150], expected[3 * BLOCK : 3 * BLOCK + 150] = flat / 4, flat * 3 / 4
    assert np.abs(found - expected).max() < 3e-4
    assert found[: 3 * BLOCK].sum() == pytest.approx(0.25, abs=0.002)
