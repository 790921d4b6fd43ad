import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.config import MixConfig
from wsi_seg.errors import ConfigError
from wsi_seg.geometry import Extent
from wsi_seg.sampling import Layer, PatchSampler, SlideMap
from wsi_seg.sampling.samplers import epoch_length

MIX = MixConfig(objects=0.5, tissue=0.4, background=0.1)


def slide_map(name="a", *, height=1000, width=777, cell_px=50.0, boxes=(), tissue=None, area=1.0):
    shape = (int(np.ceil(height / cell_px)), int(np.ceil(width / cell_px)))
    if tissue is None:
        tissue = np.zeros(shape, np.uint8)
        tissue[: shape[0] // 2] = 255
    found = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    ids = np.ones(len(found), np.uint8)
    return SlideMap(name, Extent(height, width), area, cell_px, tissue, found, ids)


def sampler(maps, mix=MIX, *, patches=400, seed=7, batch=1):
    return PatchSampler(maps, mix, patches_per_epoch=patches, seed=seed, batch=batch)


def three_boxes():
    """Boxes of which two touch the slide's borders."""
    return [(0, 0, 10, 12), (300, 400, 340, 480), (990, 770, 1000, 777)]


@pytest.mark.parametrize(("share", "length"), [(0.8, 2387), (0.6, 3183), (0.4, 4775), (0.5, 3820)])
def test_epoch_shows_each_object_once_at_the_rate_asked_for(share, length):
    """Epoch lengths of the SIIM-ACR winner: 1910 positives at four rates."""
    assert epoch_length(1910, share) == length


def test_null_patches_need_objects():
    with pytest.raises(ConfigError, match="patches_per_epoch is null"):
        sampler([slide_map()], MixConfig(tissue=1.0), patches=None)
    drawn = sampler([slide_map(boxes=three_boxes())], MIX, patches=None).epoch(0)
    assert sorted(drawn.object_id[drawn.object_id >= 0]) == [0, 1, 2]


@given(
    seed=st.integers(0, 2**63 - 1),
    epoch=st.integers(0, 10**6),
    count=st.integers(1, 40),
    patches=st.integers(80, 300),
)
def test_each_object_is_seen_and_the_centre_lies_in_its_box(seed, epoch, count, patches):
    rng = np.random.default_rng(count)
    corners = rng.uniform(0, 700, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 70, (count, 2))], axis=1)
    drawn = sampler([slide_map(boxes=boxes)], patches=patches, seed=seed).epoch(epoch)
    chosen = drawn.layer == Layer.OBJECTS
    picked = drawn.object_id[chosen]
    times = np.bincount(picked, minlength=count)
    assert times.min() >= 1
    assert times.max() - times.min() <= 1
    y, x, y_end, x_end = boxes[picked].T
    assert ((y <= drawn.y[chosen]) & (drawn.y[chosen] <= y_end)).all()
    assert ((x <= drawn.x[chosen]) & (drawn.x[chosen] <= x_end)).all()
    assert (drawn.object_id[~chosen] == -1).all()


@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
def test_the_same_numbers_give_the_same_draws_and_others_give_others(seed, epoch):
    maps = [slide_map(boxes=three_boxes()), slide_map("b", height=333, boxes=three_boxes()[:1])]
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is the subject
    first, again = sampler(maps, seed=seed).epoch(epoch), sampler(maps, seed=seed).epoch(epoch)
    other = sampler(maps, seed=seed).epoch(epoch + 1)
    for field in ("slide", "y", "x", "layer", "object_id"):
        assert np.array_equal(getattr(first, field), getattr(again, field))
    assert not np.array_equal(first.y, other.y)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_layers_get_their_share_and_cells_are_drawn_by_area():
    tissue = np.zeros((4, 4), np.uint8)
    tissue[0, 0], tissue[3, 3] = 255, 51
    maps = [
        slide_map(height=200, width=200, tissue=tissue, boxes=three_boxes()[:1]),
        slide_map("b", height=50, width=100, tissue=np.full((1, 2), 255, np.uint8), area=4.0),
    ]
    drawn = sampler(maps, patches=100_000).epoch(3)
    assert np.bincount(drawn.layer).tolist() == [50_000, 40_000, 10_000]
    inside = drawn.layer == Layer.TISSUE
    # Areas of tissue: 2500 and 500 on the first slide, 2 x 2500 x 4 on the second.
    assert (drawn.slide[inside] == 1).mean() == pytest.approx(20_000 / 23_000, abs=0.01)
    first = inside & (drawn.slide == 0)
    corner = (drawn.y[first] < 50) & (drawn.x[first] < 50)
    assert corner.mean() == pytest.approx(2500 / 3000, abs=0.01)
    assert (drawn.y[first & (drawn.y > 50)] >= 150).all()
    assert (drawn.slide[drawn.layer == Layer.BACKGROUND] == 0).all()


def test_draws_stay_inside_slides_whose_last_cells_are_cut():
    tissue = np.zeros((3, 2), np.uint8)
    tissue[2, 1] = 255
    one = slide_map(height=101, width=51, tissue=tissue)
    drawn = sampler([one], MixConfig(tissue=1.0)).epoch(0)
    assert ((drawn.y >= 100) & (drawn.y < 101)).all()
    assert ((drawn.x >= 50) & (drawn.x < 51)).all()


@pytest.mark.parametrize(("value", "layer"), [(255, Layer.TISSUE), (0, Layer.BACKGROUND)])
def test_the_share_of_an_absent_layer_goes_to_the_other(value, layer):
    one = slide_map(tissue=np.full((20, 16), value, np.uint8))
    drawn = sampler([one], MixConfig(tissue=0.5, background=0.5)).epoch(0)
    assert (drawn.layer == layer).all()


def test_nothing_to_draw_from_is_an_error():
    with pytest.raises(ConfigError, match="no object is annotated"):
        sampler([slide_map()])
    with pytest.raises(ConfigError, match="no slides"):
        sampler([])


@given(patches=st.integers(1, 100), batch=st.integers(1, 17))
def test_epochs_are_whole_batches(patches, batch):
    one = sampler([slide_map(boxes=three_boxes())], patches=patches, batch=batch)
    assert len(one) % batch == 0
    assert patches <= len(one) < patches + batch
    assert len(one.epoch(0)) == len(one)
