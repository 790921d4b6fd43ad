"""Promises: constant in, constant out; tiled equals whole, bit for bit; any order, any restart."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cards import make_card
from tests.inference.tiles import read_tile
from tests.makers.memory import MemoryImage, MemoryStore, PixelPredictor, red_as_probability
from tests.makers.stream import predicted
from wsi_seg.errors import StoreError
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import plan_slide
from wsi_seg.inference.stream import Job, Sizes, TileStream
from wsi_seg.inference.waits import WaitTimes
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.predict.device import DeviceTimer
from wsi_seg.progress import Silent

BLENDS = st.sampled_from(["gaussian", "linear", "constant", "crop"])


def card(mpp=None):
    return make_card(mpp=mpp, tile_px=32, mean=(0.0,) * 3, std=(1.0,) * 3)


def coordinates(height, width):
    """RGB image in which every pixel says where it is."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(y * 7 + x * 13) % 256, y % 256, x % 256], axis=-1).astype(np.uint8)


def infer(image, options, *, strip_px=1024, strips=None, tissue=None, predictor=None, batch=5):
    labels: dict[str, Any] = {} if tissue is None else {"tissue": MemoryImage(tissue)}
    store = MemoryStore(MemoryImage(image), **labels)
    plan = plan_slide(store, card(), options, strip_px=strip_px)
    predictor = predictor or PixelPredictor(red_as_probability)
    done = predicted(plan, store.image, predictor, strips=strips, batch=batch)
    return plan, {index: strip.probabilities for index, strip in done.items()}


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
    """A model that errs towards the tile's borders, so blending has something to do."""
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
    found: dict[int, Any] = {}
    for portion in (order[:cut], order[cut:]):
        if portion:
            found |= infer(
                image, options, strip_px=strip_px, strips=portion, batch=random.randint(1, 9),
                predictor=PixelPredictor(position_dependent),
            )[1]  # fmt: skip
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(whole(found), whole(expected))


def box_mean(tiles):
    """Model that sees two pixels in every direction: mean of a 5 x 5 square, black outside."""
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
    expected = PixelPredictor(box_mean).predict(torch.from_numpy(image[None]))[0, 0].numpy()
    np.testing.assert_array_equal(whole(done)[..., 0], (expected + 8) // 16)


def test_gaussian_blending_equals_the_weighted_mean_written_out():
    image = coordinates(70, 90)
    options = InferOptions(overlap=0.5)
    plan, done = infer(image, options, predictor=PixelPredictor(position_dependent))
    store = MemoryImage(image)
    sums, weights = np.zeros((70, 90)), np.zeros((70, 90))
    for r, y in enumerate(plan.ys):
        for c, x in enumerate(plan.xs):
            tile = read_tile(store, plan, r, c)
            p = position_dependent(tile[None])[0, 0]
            w = np.outer(plan.row_weights[r], plan.column_weights[c])
            sums[y : y + 32, x : x + 32] += p * w
            weights[y : y + 32, x : x + 32] += w
    expected = 255 * sums / weights
    # Rounding to 4080 steps, then to 255.
    assert np.abs(whole(done)[..., 0] - expected).max() < 0.5 + 0.5 / 16 + 1e-6


@given(st.floats(0, 0.75), BLENDS, st.integers(0, 2**32 - 1))
def test_tiles_without_tissue_are_zero_and_the_others_unchanged(overlap, blend, seed):
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
    assert predictor.tiles == plan.keep.sum()
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
    images = [coordinates(20 + n, 30) for n in range(5)]
    stores = [MemoryStore(MemoryImage(image)) for image in images]
    predictor = PixelPredictor(red_as_probability)
    done, jobs = {}, []
    for n, store in enumerate(stores):
        plan = plan_slide(store, card(), InferOptions(), strip_px=64)
        sink = lambda strip, n=n: done.update({n: strip().probabilities})  # noqa: E731
        jobs.append(Job(plan, store.image, frozenset({0}), (sink,)))
    waits = WaitTimes(DeviceTimer(predictor.device))
    sizes = Sizes(batch=5, ahead=3000, strips=None, readers=2)
    stream = TileStream(jobs, [predictor], sizes, progress=Silent(), waits=waits)
    assert list(stream) == [5]
    assert predictor.tiles == 5
    for n, image in enumerate(images):
        np.testing.assert_array_equal(done[n][..., 0], image[..., 0])


@given(
    blend=BLENDS,
    overlap=st.floats(0, 0.9),
    size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
    mpp=st.sampled_from([None, 0.5, 0.8, 1.0, 1.3]),
    chunk_px=st.integers(5, 90),
    tissue=st.booleans(),
    batch=st.integers(1, 9),
    ahead=st.integers(1, 60_000),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_stream_equals_the_definition_written_out(
    blend, overlap, size, mpp, chunk_px, tissue, batch, ahead, seed
):
    """Tiles read one by one, sums over the whole slide: any strips, chunks, batch, read-ahead."""
    rng = np.random.default_rng(seed)
    image = MemoryImage(
        rng.integers(0, 256, (*size, 3), dtype=np.uint8), mpp=0.5, chunk_px=chunk_px
    )
    mask = (rng.random((10, 12)) < 0.15).astype(np.uint8)
    mask[0, 0] = 1
    labels: dict[str, Any] = {"tissue": MemoryImage(mask)} if tissue else {}
    store = MemoryStore(image, **labels)
    options = InferOptions(overlap=overlap, blend=blend)
    plan = plan_slide(store, card(mpp=mpp), options, strip_px=int(rng.integers(1, 64)))
    strips = [index for index in range(len(plan.strips)) if rng.random() < 0.7] or [0]
    found = predicted(
        plan, image, PixelPredictor(two_classes, channels=2), strips=strips, batch=batch,
        ahead=ahead,
    )  # fmt: skip
    expected = written_out(image, plan)
    assert list(found) == strips
    for index, strip in found.items():
        rows = expected[slice(*plan.strips[index])]
        np.testing.assert_array_equal(strip.probabilities, rows)
        np.testing.assert_array_equal(strip.labels, label_map(rows))


def two_classes(tiles):
    green = tiles[..., 1].astype(np.float32)[:, None] / 255
    return np.concatenate([position_dependent(tiles), green], axis=1)


def written_out(image, plan):
    """Blended probabilities by their definition, ``(H, W, 2)`` uint8."""
    size = [max(side, 32) for side in (plan.extent.height, plan.extent.width)]
    sums, weights = np.zeros((2, *size), np.int64), np.zeros(size, np.int64)
    for row, column in np.argwhere(plan.keep):
        tile = torch.from_numpy(read_tile(image, plan, row, column)[None])
        steps = PixelPredictor(two_classes, channels=2).predict(tile)[0].numpy()
        weight = np.outer(plan.row_weights[row], plan.column_weights[column]).astype(np.int64)
        y, x = plan.ys[row], plan.xs[column]
        sums[:, y : y + 32, x : x + 32] += steps * weight
        weights[y : y + 32, x : x + 32] += weight
    means = (sums + 8 * weights) // np.maximum(16 * weights, 1)
    return means[:, : plan.extent.height, : plan.extent.width].transpose(1, 2, 0).astype(np.uint8)


@pytest.mark.parametrize("mpp", [None, 1.0])
def test_tiles_over_pixels_that_cannot_be_read_are_left_out_and_named(mpp):
    """One chunk cannot be decoded: its tiles are reported, all others are as without it."""

    class Unreadable(MemoryImage):
        def read(self, region, *, cached=True, out=None):
            if region.y < 70 <= region.y_end - 1 and region.x < 100 <= region.x_end - 1:
                raise StoreError("chunk row=1 column=2 is damaged")
            return super().read(region, cached=cached, out=out)

    pixels = coordinates(200, 260)
    image = Unreadable(pixels, mpp=0.5, chunk_px=40)
    store = MemoryStore(image)
    plan = plan_slide(store, card(mpp=mpp), InferOptions(), strip_px=50)
    unread: list[Any] = []
    found = predicted(plan, image, PixelPredictor(red_as_probability), quarantined=unread)
    scale = 1 if mpp is None else 2
    expected = [
        (y, x)
        for y in plan.ys
        for x in plan.xs
        if y * scale < 80 and (y + 32) * scale > 40 and x * scale < 120 and (x + 32) * scale > 80
    ]
    assert sorted((y, x) for y, x, _ in unread) == expected
    assert {reason for _, _, reason in unread} == {"chunk row=1 column=2 is damaged"}
    whole_plan = predicted(plan, MemoryImage(pixels, mpp=0.5), PixelPredictor(red_as_probability))
    rows, whole_rows = (
        np.concatenate([one[index].probabilities for index in range(len(plan.strips))])
        for one in (found, whole_plan)
    )
    hole = np.zeros(rows.shape[:2], dtype=bool)
    for y in plan.ys:
        for x in plan.xs:
            if (y, x) not in expected:
                hole[y : y + 32, x : x + 32] = True
    np.testing.assert_array_equal(rows[..., 0], np.where(hole, whole_rows[..., 0], 0))
