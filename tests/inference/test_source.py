import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.cards import make_card
from tests.inference.tiles import read_tile
from tests.makers.memory import MemoryImage, MemoryStore
from wsi_seg.data.source import PatchSource
from wsi_seg.errors import ResolutionError
from wsi_seg.inference import source as source_module
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import plan_slide
from wsi_seg.inference.source import ReadAhead, SourceRows
from wsi_seg.inference.transfer import Transfers
from wsi_seg.reading.view import View


def card(mpp):
    return make_card(mpp=mpp, tile_px=32, mean=(0.0,) * 3, std=(1.0,) * 3)


def test_whole_number_reduction_is_the_block_mean_in_every_tile():
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    store = MemoryStore(MemoryImage(image, mpp=0.5))
    plan = plan_slide(store, card(1.0), InferOptions(overlap=0.5), strip_px=64)
    assert (plan.extent.height, plan.extent.width, plan.downsample) == (48, 64, 2.0)
    assert plan.mpp == 1.0
    expected = np.rint(image.reshape(48, 2, 64, 2, 3).mean(axis=(1, 3)))
    for r, y in enumerate(plan.ys):
        for c, x in enumerate(plan.xs):
            tile = read_tile(store.image, plan, r, c)
            np.testing.assert_array_equal(tile, expected[y : y + 32, x : x + 32])


@given(st.floats(1.03, 4), st.integers(40, 150), st.integers(40, 150))
def test_tiles_agree_where_they_overlap_at_any_reduction(factor, height, width):
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    store = MemoryStore(MemoryImage(image, mpp=0.5))
    plan = plan_slide(store, card(0.5 * factor), InferOptions(overlap=0.75), strip_px=64)
    canvas = np.full((plan.ys[-1] + 32, plan.xs[-1] + 32, 3), -1)
    for r, y in enumerate(plan.ys):
        for c, x in enumerate(plan.xs):
            tile = read_tile(store.image, plan, r, c)
            here = canvas[y : y + 32, x : x + 32]
            known = here >= 0
            np.testing.assert_array_equal(here[known], tile[known])
            inside = (slice(0, plan.extent.height - y), slice(0, plan.extent.width - x))
            here[inside] = tile[inside]


def test_the_coarsest_level_that_is_fine_enough_is_read():
    levels = [np.zeros((400 // n, 400 // n, 3), dtype=np.uint8) for n in (1, 4)]
    store = MemoryStore(MemoryImage(*levels, mpp=0.25))
    plan = plan_slide(store, card(1.0), InferOptions(), strip_px=64)
    assert (plan.level, plan.extent.height, plan.downsample) == (1, 100, 4.0)
    plan = plan_slide(store, card(0.5), InferOptions(), strip_px=64)
    assert (plan.level, plan.extent.height, plan.downsample) == (0, 200, 2.0)


def test_mpp_that_cannot_serve_the_model_is_refused_and_the_override_recorded():
    image = np.zeros((50, 50, 3), dtype=np.uint8)
    unknown, coarse = MemoryStore(MemoryImage(image)), MemoryStore(MemoryImage(image, mpp=0.7))
    for store in (unknown, coarse):
        with pytest.raises(ResolutionError) as caught:
            plan_slide(store, card(0.5), InferOptions(), strip_px=64)
        assert str(caught.value).count("--allow-mpp-mismatch") == 1
        plan = plan_slide(store, card(0.5), InferOptions(allow_mpp_mismatch=True), strip_px=64)
        assert plan.extent.height == 50
        assert len(plan.notes) == 1


@given(st.sampled_from([0.5, 0.8, 1.0, 1.7, 2.0]), st.integers(0, 3), st.integers(0, 3))
def test_training_and_inference_see_the_same_pixels(mpp, row, column):
    rng = np.random.default_rng(1)
    levels = [rng.integers(0, 256, (400 >> k, 360 >> k, 3), dtype=np.uint8) for k in range(2)]
    store = MemoryStore(MemoryImage(*levels, mpp=0.5))
    plan = plan_slide(store, card(mpp), InferOptions(), strip_px=64)
    truth = MemoryImage(levels[0][..., 0] % 2)
    scale = View(mpp).scale(store.pyramid, name="a")
    source = PatchSource(store.image, truth, scale, np.arange(256, dtype=np.uint8))
    tile = read_tile(store.image, plan, row, column)
    level0, extent = store.pyramid.extent, plan.extent
    centre_y = (plan.ys[row] + 16) * level0.height / extent.height
    centre_x = (plan.xs[column] + 16) * level0.width / extent.width
    pixels, _ = source.patch(centre_y, centre_x, 32)
    np.testing.assert_array_equal(pixels, tile)


class Interrupted:
    """Pool in whose place Ctrl-C strikes before it hears of the work."""

    def submit(self, *_):
        raise KeyboardInterrupt


def test_a_ctrl_c_while_reads_are_handed_over_leaves_nothing_to_wait_for(monkeypatch):
    store = MemoryStore(MemoryImage(np.zeros((4096, 64, 3), dtype=np.uint8)))
    plan = plan_slide(store, card(None), InferOptions(overlap=0.0), strip_px=64)
    rows = SourceRows(store.image, plan, range(len(plan.ys)))
    first, *others = rows.units()
    assert others
    ahead = ReadAhead([rows], Transfers(torch.device("cpu")), readers=2, nbytes=first.nbytes(3))
    monkeypatch.setattr(source_module, "shared_pool", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        ahead.take()
    closing = threading.Thread(target=ahead.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()


def test_closing_waits_for_the_other_reads_of_a_unit_that_failed(monkeypatch):
    store = MemoryStore(MemoryImage(np.zeros((48, 4096, 3), dtype=np.uint8)))
    plan = plan_slide(store, card(None), InferOptions(overlap=0.0), strip_px=48)
    rows = SourceRows(store.image, plan, range(len(plan.ys)))
    assert len(next(rows.units()).parts) > 1
    begun, ended = threading.Event(), threading.Event()

    def read(_unit, part):
        if part.start == 0:
            assert begun.wait(10)
            raise RuntimeError("a bug")
        begun.set()
        time.sleep(0.3)
        ended.set()

    monkeypatch.setattr("wsi_seg.store.cache.available_cores", lambda: 2)
    monkeypatch.setattr(SourceRows, "read", lambda _, unit, part: read(unit, part))
    ahead = ReadAhead([rows], Transfers(torch.device("cpu")), readers=2, nbytes=2**20)
    with pytest.raises(RuntimeError, match="a bug"):
        ahead.take()
    ahead.close()
    assert ended.is_set()
