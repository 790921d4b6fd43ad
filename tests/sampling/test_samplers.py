import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.config import MixConfig, SamplingConfig
from wsi_seg.config.sampling import GridConfig, SizesConfig, StrataConfig
from wsi_seg.errors import ConfigError
from wsi_seg.geometry import Extent
from wsi_seg.sampling import GridSampler, Layer, PatchSampler, SlideMap
from wsi_seg.sampling.objects import repeats_of, stratum_of
from wsi_seg.sampling.samplers import epoch_length

MIX = MixConfig(objects=0.5, tissue=0.4, background=0.1)


def slide_map(name="a", *, height=1000, width=777, cell_px=50.0, boxes=(), tissue=None, area=1.0,
              **more):  # fmt: skip
    shape = (int(np.ceil(height / cell_px)), int(np.ceil(width / cell_px)))
    if tissue is None:
        tissue = np.zeros(shape, np.uint8)
        tissue[: shape[0] // 2] = 255
    found = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    ids = np.ones(len(found), np.uint8)
    sides = found[:, 2:] - found[:, :2]
    return SlideMap(
        name=name,
        extent=Extent(height=height, width=width),
        px_area=area,
        cell_px=cell_px,
        tissue=tissue,
        boxes=found,
        class_ids=ids,
        areas=sides[:, 0] * sides[:, 1],
        sources=np.full(len(found), "expert"),
        **more,
    )


def square(side, count=1):
    """Return height and width of patches for this many slides."""
    return np.full((count, 2), float(side))


def sampler(maps, mix=MIX, *, patches=400, seed=7, batch=1, side=0.0, **more):
    """Build a sampler for patches of this side; with side 0, centres are inside their targets."""
    sampling = SamplingConfig(mix=mix, patches_per_epoch=patches, **more)
    return PatchSampler(maps, sampling, sides=square(side, len(maps)), seed=seed, batch=batch)


def three_boxes():
    """Return three boxes, two of which touch the borders of the slide."""
    return [(0, 0, 10, 12), (300, 400, 340, 480), (990, 770, 1000, 777)]


@pytest.mark.parametrize(("share", "length"), [(0.8, 2387), (0.6, 3183), (0.4, 4775), (0.5, 3820)])
def test_an_epoch_has_each_object_once_at_the_given_rate(share, length):
    """Epoch lengths of the SIIM-ACR winner: 1910 positives at four positive rates."""
    assert epoch_length(1910, share) == length


def test_negatives_come_from_slides_without_objects_and_change_every_epoch():
    """Small images: each positive once, with negatives drawn from empty images."""
    maps = [slide_map(str(n), height=50, width=50, boxes=[(5, 5, 9, 9)] * (n < 12))
            for n in range(60)]  # fmt: skip
    draws = sampler(maps, MixConfig(objects=0.4, empty=0.6), patches=None)
    assert len(draws) == epoch_length(12, 0.4) == 30
    seen = [draws.epoch(epoch) for epoch in (0, 1)]
    for drawn in seen:
        positive = drawn.layer == Layer.OBJECTS
        assert sorted(drawn.slide[positive]) == list(range(12))
        assert drawn.slide[~positive].min() >= 12
        assert set(drawn.layer[~positive]) == {Layer.EMPTY}
    negatives = [set(drawn.slide[drawn.layer == Layer.EMPTY].tolist()) for drawn in seen]
    assert negatives[0] != negatives[1]


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
    side=st.floats(0, 300),
)
def test_objects_are_drawn_equally_often_and_patches_touch_their_boxes(
    seed, epoch, count, patches, side
):
    rng = np.random.default_rng(count)
    corners = rng.uniform(0, 700, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 70, (count, 2))], axis=1)
    one = slide_map(boxes=boxes)
    drawn = sampler([one], patches=patches, seed=seed, side=side).epoch(epoch)
    chosen = drawn.layer == Layer.OBJECTS
    picked = drawn.object_id[chosen]
    times = np.bincount(picked, minlength=count)
    assert times.min() >= 1
    assert times.max() - times.min() <= 1
    y, x, y_end, x_end = (boxes[picked] + np.array([-1, -1, 1, 1]) * side / 2).T
    assert ((y <= drawn.y[chosen]) & (drawn.y[chosen] <= y_end)).all()
    assert ((x <= drawn.x[chosen]) & (drawn.x[chosen] <= x_end)).all()
    assert (drawn.object_id[~chosen] == -1).all()


@given(seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
def test_draws_depend_only_on_seed_and_epoch(seed, epoch):
    maps = [slide_map(boxes=three_boxes()), slide_map("b", height=333, boxes=three_boxes()[:1])]
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - the global state is the subject
    first, again = sampler(maps, seed=seed).epoch(epoch), sampler(maps, seed=seed).epoch(epoch)
    other = sampler(maps, seed=seed).epoch(epoch + 1)
    for field in ("slide", "y", "x", "layer", "object_id"):
        assert np.array_equal(getattr(first, field), getattr(again, field))
    assert not np.array_equal(first.y, other.y)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_layers_get_their_shares_and_cells_are_drawn_by_area():
    tissue = np.zeros((4, 4), np.uint8)
    tissue[0, 0], tissue[3, 3] = 255, 51
    maps = [
        slide_map(height=200, width=200, tissue=tissue, boxes=three_boxes()[:1]),
        slide_map("b", height=50, width=100, tissue=np.full((1, 2), 255, np.uint8), area=4.0),
    ]
    drawn = sampler(maps, patches=100_000).epoch(3)
    assert np.bincount(drawn.layer).tolist() == [50_000, 40_000, 10_000]
    inside = drawn.layer == Layer.TISSUE
    # Tissue areas: 2500 and 500 on the first slide, 2 x 2500 x 4 on the second.
    assert (drawn.slide[inside] == 1).mean() == pytest.approx(20_000 / 23_000, abs=0.01)
    first = inside & (drawn.slide == 0)
    corner = (drawn.y[first] < 50) & (drawn.x[first] < 50)
    assert corner.mean() == pytest.approx(2500 / 3000, abs=0.01)
    assert (drawn.y[first & (drawn.y > 50)] >= 150).all()
    assert (drawn.slide[drawn.layer == Layer.BACKGROUND] == 0).all()


def test_draws_stay_inside_slides_with_partial_cells():
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


def test_having_nothing_to_draw_from_is_an_error():
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


def region(share, cells=16, value=255):
    """Return a map of 16 x 16 cells with a region in the first rows."""
    found = np.zeros((cells, cells), np.uint8)
    found[: round(cells * share)] = value
    return found


def test_regions_get_their_shares_without_objects():
    """Cortex .7, medulla .2, background .1: 100,000 draws, all of the regions' inside them."""
    cortex, medulla = region(0.5), region(1.0) - region(0.75)
    covered = np.zeros((16, 16), np.uint8)
    covered[2] = 255
    regions = {"cortex": cortex, "medulla": medulla}
    mix = MixConfig(regions={"cortex": 0.7, "medulla": 0.2}, background=0.1)
    one = slide_map(height=800, width=800, regions=regions, covered=covered,
                    tissue=region(0.75), boxes=three_boxes()[:1])  # fmt: skip
    drawn = sampler([one], mix, patches=100_000).epoch(0)
    inside = drawn.layer == Layer.REGIONS
    assert inside.mean() == pytest.approx(0.9, abs=0.01)
    in_cortex = inside & (drawn.y < 400)
    assert in_cortex.mean() == pytest.approx(0.7, abs=0.01)
    assert (in_cortex | (drawn.y >= 600))[inside].all()
    # With separate draws for objects, region draws avoid them.
    with_objects = MixConfig(objects=0.5, regions={"cortex": 0.5})
    drawn = sampler([one], with_objects, patches=10_000).epoch(0)
    cells = drawn.y[drawn.layer == Layer.REGIONS] // 50
    assert set(cells) == {0, 1, 3, 4, 5, 6, 7}
    with pytest.raises(ConfigError, match=r"names 'pelvis'.*they have cortex, medulla"):
        sampler([one], MixConfig(regions={"pelvis": 1.0}))


def test_boundary_and_hard_negative_cells_are_drawn_by_weight():
    covered = np.zeros((16, 16), np.uint8)
    covered[4:7, 4:7] = 90
    covered[5, 5] = 255
    hard = np.zeros((16, 16), np.uint8)
    hard[9, 1], hard[9, 2] = 200, 50
    one = slide_map(height=800, width=800, covered=covered, hard_negatives=hard, tissue=region(1))
    drawn = sampler([one], MixConfig(boundary=0.5, hard_negatives=0.5), patches=20_000).epoch(0)
    cells = np.stack([drawn.y // 50, drawn.x // 50])
    ring = cells[:, drawn.layer == Layer.BOUNDARY]
    assert {tuple(cell) for cell in ring.T} == {
        (y, x) for y in (4, 5, 6) for x in (4, 5, 6) if (y, x) != (5, 5)
    }
    worst = cells[1, drawn.layer == Layer.HARD_NEGATIVES]
    assert (worst == 1).mean() == pytest.approx(0.8, abs=0.02)


def test_the_share_of_a_missing_layer_goes_to_the_others():
    one = slide_map(boxes=three_boxes())
    drawn = sampler(
        [one], MixConfig(objects=0.5, tissue=0.25, hard_negatives=0.25), patches=100
    ).epoch(0)
    assert np.bincount(drawn.layer).tolist() == [50, 50]


def test_small_objects_are_drawn_more_often():
    """Edges 10, 30, 100 mm with 4, 3, 1 repeats; larger ones are kept once."""
    sizes = SizesConfig(edges_mm=(10, 30, 100), repeats=(4, 3, 1))
    diameters = np.array([5, 9.99, 10, 29.9, 30, 99, 120])
    assert repeats_of(diameters, sizes).tolist() == [4, 4, 3, 3, 1, 1, 1]
    dropped = SizesConfig(edges_mm=(10, 30, 100), repeats=(4, 3, 1), above="drop")
    assert repeats_of(diameters, dropped).tolist() == [4, 4, 3, 3, 1, 1, 0]
    assert epoch_length(3280, 0.7) == 4685  # a background fraction of .3
    # Two squares of 10 and 50 um at 1 um per pixel, edges at 20 um.
    one = slide_map(boxes=[(0, 0, 10, 10), (100, 100, 150, 150)])
    sizes = SizesConfig(edges_mm=(0.02,), repeats=(3,))
    drawn = sampler([one], MixConfig(objects=1), patches=400, sizes=sizes).epoch(0)
    assert np.bincount(drawn.object_id).tolist() == [300, 100]
    assert len(sampler([one], MixConfig(objects=1), patches=None, sizes=sizes)) == 4


def test_bins_of_area_are_drawn_equally_often():
    """Ratios .02, .03, .12, .5 are in bins 0, 1, 2, 4, with scale 20 and a maximum of 4."""
    strata = StrataConfig(scale=20, bins=4)
    assert stratum_of(np.array([0.02, 0.03, 0.12, 0.5]), strata).tolist() == [0, 1, 2, 4]
    many_small = [(10 * n, 0, 10 * n + 10, 10) for n in range(9)]
    one = slide_map(boxes=[*many_small, (500, 500, 600, 600)])
    drawn = sampler([one], MixConfig(objects=1), strata=strata, side=np.sqrt(20_000.0)).epoch(0)
    times = np.bincount(drawn.object_id)
    assert times[9] == 200
    assert times[:9].sum() == 200
    assert times[:9].max() - times[:9].min() <= 1


def test_classes_and_sources_are_balanced():
    one = slide_map(boxes=[(10 * n, 0, 10 * n + 10, 10) for n in range(5)])
    one.class_ids[:] = [1, 1, 1, 1, 2]
    one.sources[:] = ["hand", "hand", "expert", "expert", "expert"]
    drawn = sampler([one], MixConfig(objects=1), balance="class").epoch(0)
    assert np.bincount(drawn.object_id).tolist() == [50, 50, 50, 50, 200]
    drawn = sampler([one], MixConfig(objects=1), balance="source", patches=300).epoch(0)
    assert np.bincount(drawn.object_id).tolist() == [75, 75, 50, 50, 50]


def test_weights_correct_for_the_importance_map():
    """The weighted mean over draws is the mean over the slide, whatever the map."""
    one = slide_map(height=800, width=800, tissue=region(0.25), boxes=[(0, 0, 200, 200)])
    mix = MixConfig(objects=0.2, tissue=0.5, background=0.3)
    drawn = sampler([one], mix, patches=50_000, weighted=True).epoch(0)
    for value, truth in ((drawn.y < 200, 0.25), (drawn.x < 400, 0.5), (drawn.y < 100, 0.125)):
        mean = (value * drawn.weight).sum() / drawn.weight.sum()
        assert mean == pytest.approx(truth, abs=0.015)


@pytest.mark.parametrize(("height", "width"), [(100, 100), (100, 4000)])
def test_weights_of_slides_that_a_patch_covers(height, width):
    """On a slide without room for other centres, the only one stands for all its cells."""
    box = (5, width // 2, 9, width // 2 + 4)
    maps = [slide_map(name, height=height, width=width, boxes=[box]) for name in "ab"]
    drawn = sampler(maps, MixConfig(objects=1), patches=100, side=128, weighted=True).epoch(0)
    reached = min(1.0, 132 / width)
    assert drawn.weight == pytest.approx(reached, rel=0.05)


def test_a_huge_slide_fits_in_50_mb_and_follows_the_map():
    """100,000 x 100,000 px, 5,000 objects: 100,000 draws within 1 % of the map."""
    side, cells = 100_000, 1563
    tissue = np.zeros((cells, cells), np.uint8)
    tissue[200:900, 300:1300] = 255
    corners = np.random.default_rng(0).uniform(0, side - 400, (5000, 2))
    boxes = np.concatenate([corners, corners + 300], axis=1)
    tracemalloc.start()
    one = slide_map(height=side, width=side, cell_px=64.0, tissue=tissue, boxes=boxes)
    found = sampler([one], patches=100_000)
    drawn = found.epoch(0)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 50e6
    assert len(np.unique(drawn.object_id)) == 5001  # all objects, and -1 for no object
    inside = drawn.layer == Layer.TISSUE
    assert inside.mean() == pytest.approx(0.4, abs=0.01)
    rows = np.histogram(drawn.y[inside], bins=[200 * 64, 375 * 64, 550 * 64, 900 * 64])[0]
    assert rows / inside.sum() == pytest.approx([0.25, 0.25, 0.5], abs=0.01)


def test_a_shifted_grid_covers_the_tissue_once():
    tissue = np.zeros((20, 16), np.uint8)
    tissue[4:6, 4:6] = 255
    one = slide_map(tissue=tissue)
    still = GridSampler([one], GridConfig(shifted=False), sides=square(100), seed=1)
    drawn = still.epoch(0)
    assert sorted(zip(drawn.y, drawn.x, strict=True)) == [(250, 250)]
    everywhere = slide_map(tissue=np.full((20, 16), 255, np.uint8))
    grid = GridSampler([everywhere], GridConfig(overlap=0.5), sides=square(100), seed=1, batch=7)
    assert len(grid) % 7 == 0
    first, again, other = grid.epoch(0), grid.epoch(0), grid.epoch(1)
    assert np.array_equal(first.y, again.y)
    assert not np.array_equal(first.y, other.y)
    seen = np.zeros((1000, 777), bool)
    unmoved = GridSampler([everywhere], GridConfig(shifted=False), sides=square(100), seed=1).epoch(
        0
    )
    for y, x in zip(unmoved.y, unmoved.x, strict=True):
        seen[int(y - 50) : int(y + 50), int(x - 50) : int(x + 50)] = True
    assert seen.all()
    with pytest.raises(ConfigError, match="touches tissue"):
        GridSampler([slide_map(tissue=np.zeros((20, 16), np.uint8))], GridConfig(),
                    sides=square(100), seed=1)  # fmt: skip


def test_sources_get_their_shares():
    one = slide_map(boxes=[(10 * n, 0, 10 * n + 10, 10) for n in range(5)])
    one.sources[:] = ["hand", "hand", "expert", "expert", "pseudo"]
    shares = {"hand": 3.0, "expert": 1.0}
    drawn = sampler([one], MixConfig(objects=1), sources=shares).epoch(0)
    assert np.bincount(drawn.object_id, minlength=5).tolist() == [150, 150, 50, 50, 0]
    one.class_ids[:] = [1, 2, 1, 1, 1]
    both = sampler([one], MixConfig(objects=1), sources=shares, balance="class").epoch(0)
    assert np.bincount(both.object_id, minlength=5).tolist() == [150, 150, 50, 50, 0]
    with pytest.raises(ConfigError, match=r"names nobody, .* from hand"):
        sampler([one], MixConfig(objects=1), sources={"hand": 1.0, "nobody": 1.0})
