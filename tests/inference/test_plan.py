"""Plans of whole runs: pure data, the memory they name, and overrides of level and mpp."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cards import make_card
from tests.makers.memory import MemoryImage, MemoryStore
from wsi_seg.errors import ConfigError, ResolutionError
from wsi_seg.files.object_path import place
from wsi_seg.geometry import Extent
from wsi_seg.inference.memory import parse_bytes, resident_bytes
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import plan_slide
from wsi_seg.inference.run_plan import plan_inference
from wsi_seg.models import NetworkSpec
from wsi_seg.models.memory_estimate import estimate_memory
from wsi_seg.predict.device import Device
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.store import open_collection
from wsi_seg.testing.stores import make_store

CARD = make_card(architecture="Unet", encoder="resnet18")  # large enough to show in plans
MODEL = Model((Member(CARD, "x"),))


def pyramid(mpp=0.5):
    rng = np.random.default_rng(0)
    levels = [rng.integers(0, 256, (400 >> k, 300 >> k, 3), dtype=np.uint8) for k in range(3)]
    return MemoryStore(MemoryImage(*levels, mpp=mpp))


def test_a_plan_pickles_prints_and_names_everything(tmp_path):
    make_store(tmp_path / "s.zarr", "one", 300, 210)
    make_store(tmp_path / "s.zarr", "unknown", 70, 70, mpp=None)
    stores = list(open_collection(tmp_path / "s.zarr"))
    plan = plan_inference(stores, MODEL, InferOptions(precision="fp32"))
    again = pickle.loads(pickle.dumps(plan))
    assert again.lines() == plan.lines()
    assert again.tiles == plan.tiles == 9 * 6
    text = "\n".join(plan.lines())
    for part in ("1 slide, 54 tiles", "one: 300 x 210 px", "skipped, 1 strip\n", "memory: at most"):
        assert part in text
    found = json.loads(json.dumps(plan.to_json()))
    assert found["failures"].keys() == {"unknown"}
    assert found["slides"][0]["strips"] == 1
    assert plan.memory is not None
    assert found["memory"]["total"] == plan.memory.total
    assert not (tmp_path / "pred.zarr").exists()


def test_strips_on_their_way_to_an_object_store_take_memory():
    pytest.importorskip("obstore", reason="needs the extra `remote`")
    wide = MemoryStore(MemoryImage(np.zeros((300, 4_000, 3), np.uint8), mpp=0.5))

    def planned(out):
        found = plan_inference([wide], MODEL, InferOptions(precision="fp32"), out=out).memory
        assert found is not None
        return found

    folder, bucket = planned(place("p.zarr")), planned(place("s3://bucket/p.zarr"))
    assert folder.sending == 0
    assert bucket.sending == bucket.strip_px * 4_000 * (len(CARD.classes) + 1)
    assert bucket.strips == folder.strips + bucket.sending


def test_the_batch_fits_the_memory_of_the_gpu():
    def planned(memory, batch=0):
        device = Device("cuda:0", "bf16", memory)
        found = plan_inference([large], MODEL, InferOptions(batch=batch), device=device).memory
        assert found is not None
        return found

    large = MemoryStore(MemoryImage(np.zeros((4_000, 4_000, 3), np.uint8), mpp=0.5))
    much, little = planned(100 * 10**9), planned(2 * 10**9)
    assert much.batches[0] > 4 * little.batches[0]
    assert little.device < 2 * 10**9
    assert planned(2 * 10**9, batch=64).batches == (64,)


@pytest.mark.parametrize("architecture", ["Unet", "Linknet"])  # the latter's tiles are padded
def test_tiny_tiles_are_planned_with_what_the_network_makes_of_them(architecture):
    model = Model((Member(make_card(architecture=architecture), "x"),))

    def planned(tile_px, batch):
        options = InferOptions(tile_px=tile_px, batch=batch, overlap=0.0, precision="fp32")
        found = plan_inference([pyramid()], model, options).memory
        assert found is not None
        return found

    for tile_px in (1, 7):
        assert planned(tile_px, 8).forward > planned(32, 8).forward * tile_px**2 / 32**2
    if architecture == "Linknet":
        assert planned(7, 8).forward == planned(32, 8).forward
    assert planned(1, 0).batches == (2**20 // 32**2,)


@pytest.mark.parametrize(("tile_px", "warned"), [(7, True), (32, True), (48, False), (None, False)])
@pytest.mark.parametrize("overlap", [0.5, "adaptive"])
def test_many_more_tiles_than_the_model_needs_are_said_once(caplog, tile_px, warned, overlap):
    even = tile_px if overlap == 0.5 else tile_px and tile_px + tile_px % 2
    options = InferOptions(tile_px=even, overlap=overlap, precision="fp32")
    plan = plan_inference([pyramid()], MODEL, options)
    said = [text for text in caplog.messages if "leave out --tile" in text]
    assert len(said) == warned
    if warned:
        assert f"{plan.tiles:,} tiles of {even} pixels; with the " in said[0]


def test_more_tiles_than_a_plan_can_hold_are_refused_with_the_smallest_that_do():
    image = MemoryImage(np.zeros((5_000, 5_000, 3), np.uint8), mpp=0.5)
    large = MemoryStore(image, name="large")
    options = InferOptions(tile_px=1, overlap=0.0, precision="fp32")
    plan = plan_inference([large, pyramid()], MODEL, options)
    assert len(plan.slides) == 1
    assert "got 25,000,000 tiles" in plan.failures[large.name]
    assert "--tile to 2 or more" in plan.failures[large.name]


@given(st.integers(400, 5_000), st.sampled_from([0, 1, 3]))
def test_memory_is_solved_within_what_is_allowed(megabytes, batch):
    store = pyramid()
    limit = resident_bytes() + megabytes * 10**6
    plan = plan_inference(
        [store], MODEL, InferOptions(precision="fp32", max_ram=limit, batch=batch)
    )
    assert plan.memory is not None
    assert plan.memory.total <= limit
    free = plan_inference([store], MODEL, InferOptions(precision="fp32"))
    assert free.memory is not None
    assert plan.memory.batches[0] <= max(batch, free.memory.batches[0])


def test_a_container_limits_memory_unless_an_option_does():
    store, limit = pyramid(), resident_bytes() + 2 * 10**9
    device = Device("cpu", "fp32", None, limit)
    found = plan_inference([store], MODEL, InferOptions(), device=device).memory
    assert found is not None
    assert found.limit == int(0.75 * limit)
    assert found.total <= 0.75 * limit
    chosen = plan_inference([store], MODEL, InferOptions(max_ram=2 * limit), device=device).memory
    assert chosen is not None
    assert chosen.limit == 2 * limit


def test_more_memory_never_means_smaller_parts_and_too_little_is_refused():
    store = pyramid()
    free = plan_inference([store], MODEL, InferOptions(precision="fp32")).memory
    with pytest.raises(ConfigError, match=r"need at least \d+ MB") as caught:
        plan_inference([store], MODEL, InferOptions(precision="fp32", max_ram=10**8))
    least = int(str(caught.value).split("at least ")[1].split()[0]) * 10**6
    tight = plan_inference(
        [store], MODEL, InferOptions(precision="fp32", max_ram=int(least * 1.1) + 10**6)
    ).memory
    assert tight is not None
    assert free is not None
    assert tight.total < free.total
    assert tight.batches <= free.batches
    assert tight.strip_px <= free.strip_px
    fixed = plan_inference([store], MODEL, InferOptions(precision="fp32", batch=3)).memory
    assert fixed is not None
    assert fixed.batches == (3,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GB", 4 * 10**9), ("800 MB", 8 * 10**8), ("2e9", 2 * 10**9), ("1.5g", 15 * 10**8)],
)
def test_sizes_are_read(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "lots", "-1GB", "0", "4XB", "1.2.3GB"])
def test_sizes_that_are_not_sizes_are_refused(text):
    with pytest.raises(ConfigError, match="4GB"):
        parse_bytes(text)


def test_an_estimate_of_memory_counts_parameters_without_holding_them():
    found = estimate_memory(NetworkSpec("Unet", "resnet18", 3, 1))
    assert found.parameters == pytest.approx(14.3e6, rel=0.01)
    assert found.values_per_px > 16


def test_another_level_or_mpp_is_read_where_the_model_knows_its_like():
    store = pyramid()
    options = InferOptions(level=0)
    assert plan_slide(store, CARD, options, strip_px=64).level == 0
    near = plan_slide(store, CARD, InferOptions(mpp=0.55), strip_px=64)
    assert near.extent == Extent(height=364, width=273)
    assert near.mpp == pytest.approx(0.55)
    for far in (InferOptions(level=1), InferOptions(mpp=0.8)):
        with pytest.raises(ResolutionError, match="within 20%"):
            plan_slide(store, CARD, far, strip_px=64)
    forced = plan_slide(store, CARD, InferOptions(level=1, allow_mpp_mismatch=True), strip_px=64)
    assert (forced.level, forced.extent, forced.downsample) == (1, Extent(height=200, width=150), 2)
    assert "would be read at 1 um per pixel" in forced.notes[0]


def test_levels_and_mpp_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="expected 0 to 2"):
        plan_slide(pyramid(), CARD, InferOptions(level=3), strip_px=64)
    with pytest.raises(ConfigError, match="one of them"):
        InferOptions(level=1, mpp=0.5)
    with pytest.raises(ResolutionError, match="unknown um per pixel"):
        plan_slide(pyramid(None), CARD, InferOptions(level=0), strip_px=64)


def test_an_adaptive_plan_names_both_passes():
    plan = plan_inference([pyramid()], MODEL, InferOptions(overlap="adaptive", precision="fp32"))
    first = plan_inference([pyramid()], MODEL, InferOptions(overlap=0.0, precision="fp32"))
    assert plan.first == first.tiles < plan.tiles
    assert f"{first.tiles} tiles first" in "\n".join(plan.lines())
