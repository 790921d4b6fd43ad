"""Promises: constant in, constant out; tiled equals whole, bit for bit; any order, any restart."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.classes import ClassTable
from wsi_seg.infer.plan import InferOptions, plan_slide
from wsi_seg.infer.source import WindowReader
from wsi_seg.infer.stream import Job, run_jobs
from wsi_seg.models.checkpoint import ModelCard
from wsi_seg.progress import Silent
from wsi_seg.testing.memory import MemoryImage, MemoryStore, PixelPredictor, red_as_probability

BLENDS = st.sampled_from(["gaussian", "linear", "constant", "crop"])


def card(**changes):
    values = {
        "architecture": "Unet", "encoder": "resnet18", "in_channels": 3,
        "classes": ClassTable.named(["thing"]), "mpp": None, "tile_px": 32,
        "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "scores": {}, "training": {},
    }  # fmt: skip
    return ModelCard(**(values | changes))


def coordinates(height, width):
    """RGB image in which every px says where it is."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(y * 7 + x * 13) % 256, y % 256, x % 256], axis=-1).astype(np.uint8)


def infer(image, options, *, strip_px=1024, strips=None, tissue=None, predictor=None, batch=5):
    labels = {} if tissue is None else {"tissue": MemoryImage(tissue)}
    store = MemoryStore(MemoryImage(image), **labels)
    plan = plan_slide(store, card(), options, strip_px=strip_px)
    done = {}
    wanted = frozenset(range(len(plan.strips)) if strips is None else strips)
    job = Job(plan, WindowReader(store.image, plan), wanted, lambda i, rows: done.update({i: rows}))
    run_jobs([job], predictor or PixelPredictor(red_as_probability), batch=batch, progress=Silent())
    return plan, done


def whole(done):
    return np.concatenate([done[index] for index in sorted(done)])


@given(BLENDS, st.floats(0, 0.75), st.integers(1, 110), st.integers(1, 110), st.integers(0, 255))
def test_constant_in_gives_the_same_constant_out(blend, overlap, height, width, value):
    image = np.full((height, width, 3), value, dtype=np.uint8)
    _, done = infer(image, InferOptions(overlap=overlap, blend=blend), strip_px=48)
    assert (whole(done) == value).all()
    assert whole(done).shape == (height, width, 1)


@given(BLENDS, st.floats(0, 0.75), st.integers(1, 110), st.integers(1, 110), st.integers(1, 64))
def test_a_pointwise_model_tiled_is_the_model_on_the_whole_image(
    blend, overlap, height, width, strip_px
):
    image = coordinates(height, width)
    _, done = infer(image, InferOptions(overlap=overlap, blend=blend), strip_px=strip_px)
    np.testing.assert_array_equal(whole(done)[..., 0], image[..., 0])


@pytest.mark.parametrize("size", [31, 32, 33, 47, 48, 49, 63, 64, 65, 1])
@pytest.mark.parametrize("blend", ["gaussian", "linear", "constant", "crop"])
def test_awkward_sizes_come_out_whole(size, blend):
    image = coordinates(size, 2 * size + 1)
    _, done = infer(image, InferOptions(overlap=0.5, blend=blend))
    np.testing.assert_array_equal(whole(done)[..., 0], image[..., 0])


def position_dependent(tiles):
    """A model that errs towards the window's borders, so blending has something to do."""
    ramp = np.linspace(0, 1, tiles.shape[1], dtype=np.float32)
    return (tiles[..., 0].astype(np.float32) / 510 + ramp[:, None] * ramp / 2)[:, None]


@given(BLENDS, st.floats(0, 0.75), st.integers(33, 130), st.integers(1, 60), st.randoms())
def test_strips_in_any_order_and_portion_give_the_bytes_of_one_run(
    blend, overlap, height, strip_px, random
):
    image = coordinates(height, 75)
    options = InferOptions(overlap=overlap, blend=blend)
    plan, expected = infer(
        image, options, strip_px=strip_px, predictor=PixelPredictor(position_dependent)
    )
    order = list(range(len(plan.strips)))
    random.shuffle(order)
    cut = random.randint(0, len(order))
    found = {}
    for portion in (order[:cut], order[cut:]):
        if portion:
            found |= infer(
                image, options, strip_px=strip_px, strips=portion, batch=random.randint(1, 9),
                predictor=PixelPredictor(position_dependent),
            )[1]  # fmt: skip
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(whole(found), whole(expected))


def box_mean(tiles):
    """Model that sees two px in every direction: mean of a 5 x 5 square, black outside."""
    red = tiles[..., 0].astype(np.float32)
    padded = np.pad(red, ((0, 0), (2, 2), (2, 2)))
    size = red.shape[1], red.shape[2]
    parts = [padded[:, y : y + size[0], x : x + size[1]] for y in range(5) for x in range(5)]
    return (np.sum(parts, axis=0) / (25 * 255))[:, None]


@given(st.integers(32, 130), st.integers(32, 130), st.floats(0.2, 0.75))
def test_cropped_to_its_middle_a_model_of_short_sight_equals_the_whole_image(
    height, width, overlap
):
    image = coordinates(height, width)
    options = InferOptions(overlap=overlap, blend="crop")
    _, done = infer(image, options, predictor=PixelPredictor(box_mean), strip_px=40)
    expected = PixelPredictor(box_mean).predict(image[None])[0, 0].numpy()
    np.testing.assert_array_equal(whole(done)[..., 0], (expected + 8) // 16)


def test_gaussian_blending_equals_the_weighted_mean_written_out():
    image = coordinates(70, 90)
    options = InferOptions(overlap=0.5)
    plan, done = infer(image, options, predictor=PixelPredictor(position_dependent))
    store = MemoryImage(image)
    sums, weights = np.zeros((70, 90)), np.zeros((70, 90))
    for r, y in enumerate(plan.ys):
        for c, x in enumerate(plan.xs):
            tile = WindowReader(store, plan).read(r, c)
            p = position_dependent(tile[None])[0, 0]
            w = np.outer(plan.row_weights[r], plan.column_weights[c])
            sums[y : y + 32, x : x + 32] += p * w
            weights[y : y + 32, x : x + 32] += w
    expected = 255 * sums / weights
    # Rounding to 4080 steps, then to 255.
    assert np.abs(whole(done)[..., 0] - expected).max() < 0.5 + 0.5 / 16 + 1e-6


@given(st.floats(0, 0.75), BLENDS, st.integers(0, 2**32 - 1))
def test_windows_without_tissue_are_zero_and_the_others_unchanged(overlap, blend, seed):
    image = coordinates(100, 120)
    tissue = (np.random.default_rng(seed).random((10, 12)) < 0.1).astype(np.uint8)
    tissue[0, 0] = 1
    predictor = PixelPredictor(red_as_probability)
    plan, done = infer(
        image,
        InferOptions(overlap=overlap, blend=blend),
        tissue=tissue,
        predictor=predictor,
        batch=1,
    )
    assert predictor.windows == plan.keep.sum()
    found = whole(done)[..., 0]
    covered = np.zeros((100, 120), dtype=bool)
    for r, c in zip(*np.nonzero(plan.keep), strict=True):
        y, x = plan.ys[r], plan.xs[c]
        weight = np.outer(plan.row_weights[r], plan.column_weights[c]) > 0
        covered[y : y + 32, x : x + 32] |= weight
        assert tissue[y // 10 : -(-(y + 32) // 10), x // 10 : -(-(x + 32) // 10)].any()
    np.testing.assert_array_equal(found, np.where(covered, image[..., 0], 0))


def test_empty_tissue_mask_predicts_everything_and_says_so():
    image = coordinates(40, 40)
    plan, done = infer(image, InferOptions(), tissue=np.zeros((4, 4), dtype=np.uint8))
    assert plan.keep.all()
    assert "tissue mask is empty" in plan.notes[0]
    np.testing.assert_array_equal(whole(done)[..., 0], image[..., 0])


def test_one_batch_is_filled_across_slides():
    stores = [MemoryStore(MemoryImage(coordinates(20 + n, 30))) for n in range(5)]
    predictor = PixelPredictor(red_as_probability)
    done = {}
    jobs = []
    for n, store in enumerate(stores):
        plan = plan_slide(store, card(), InferOptions(), strip_px=64)
        sink = lambda _, rows, n=n: done.update({n: rows})  # noqa: E731
        jobs.append(Job(plan, WindowReader(store.image, plan), frozenset({0}), sink))
    assert run_jobs(jobs, predictor, batch=5, progress=Silent()) == 5
    assert predictor.windows == 5
    for n, store in enumerate(stores):
        np.testing.assert_array_equal(done[n][..., 0], store.image.levels[0][..., 0])
