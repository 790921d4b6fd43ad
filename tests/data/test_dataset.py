import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from wsi_seg.classes import ClassTable
from wsi_seg.config import MixConfig, SamplingConfig
from wsi_seg.data import source as source_module
from wsi_seg.data.augment import Augmenter
from wsi_seg.data.dataset import EpochItems, PatchDataset
from wsi_seg.data.source import PatchSource, PatchSources
from wsi_seg.errors import ResolutionError, StoreError
from wsi_seg.geometry import Extent
from wsi_seg.reading.view import View
from wsi_seg.sampling import PatchSampler, SlideMap, map_cells

CLASSES = ClassTable.named(["gland", "vessel"])
PATCHES = 24


def source(store, *, classes=CLASSES, mpp=0.5):
    return PatchSource.of(store, "annotations", classes=classes, view=View(mpp))


def dataset(store, augment="light", side=32):
    extent = store.pyramid.extent
    one = SlideMap(
        name="a",
        extent=extent,
        px_area=1.0,
        cell_px=16.0,
        tissue=map_cells(None, extent, 16.0),
        boxes=np.array([[0.0, 0.0, 20.0, 20.0]]),
        class_ids=np.ones(1, np.uint8),
        areas=np.full(1, 400.0),
        sources=np.full(1, "expert"),
    )
    mix = MixConfig(objects=0.5, tissue=0.5)
    sampling = SamplingConfig(mix=mix, patches_per_epoch=PATCHES)
    sampler = PatchSampler([one], sampling, sides=np.full((1, 2), float(side)), seed=3)
    return PatchDataset([source(store)], sampler, augment=augment, patch_px=side, seed=3)


@given(y=st.floats(0, 203), x=st.floats(0, 151), side=st.integers(1, 700))
def test_patches_are_read_at_their_position_and_mirrored_past_the_border(store, pixels, y, x, side):
    """For image and label, also if the patch is larger than the slide."""
    image, label = source(store).patch(y, x, side)
    past = 500
    rows, columns = (
        np.pad(np.arange(length), past, mode="reflect")[past + start : past + start + side]
        for length, start in ((203, round(y - side / 2)), (151, round(x - side / 2)))
    )
    here = np.ix_(rows, columns)
    assert np.array_equal(image, pixels[0][here])
    assert np.array_equal(label, pixels[1][here])


@pytest.mark.parametrize("augment", ["none", "d4", "light", "heavy", "stain", "siim", "stas"])
def test_augmented_image_and_label_agree_past_the_border(write_store, augment):
    """The image is dark where the label is 1, so that both can be compared after any step."""
    y, x = np.mgrid[:140, :170]
    label = (((y // 35) + (x // 34)) % 2).astype(np.uint8)
    image = np.repeat(np.where(label, 40, 215)[..., None], 3, axis=-1).astype(np.uint8)
    one = source(write_store(image, label, classes=("gland",)),
                 classes=ClassTable.named(["gland"]))  # fmt: skip
    augmenter = Augmenter(augment)
    agreed = []
    for draw in range(24):
        side = augmenter.side_to_cut(96)
        cut = one.patch((0, 140)[draw % 2], (0, 170)[draw // 2 % 2], side)
        seen, known = augmenter(*cut, side=96, seeds=[draw, draw + 100, 7, 9])
        split = (seen.max() / 2 + seen.min() / 2) if seen.max() > seen.min() else 128
        agreed.append(((seen.mean(axis=-1) < split) == (known == 1)).mean())
    assert np.mean(agreed) > 0.9


def test_class_ids_are_recoded_and_ignore_is_kept(store, pixels):
    table = ClassTable.named(["vessel"])
    _, label = source(store, classes=table).patch(15, 15, 30)
    expected = np.select([pixels[1] == 2, pixels[1] == 255], [1, 255], 0)[:30, :30]
    assert np.array_equal(label, expected)


def test_unsuitable_slides_are_reported_by_name(store):
    with pytest.raises(StoreError, match=r"'slide'.*expected nerve too"):
        source(store, classes=ClassTable.named(["gland", "nerve"]))
    with pytest.raises(ResolutionError, match="'slide'"):
        source(store, mpp=0.1)


def test_items_are_the_same_in_any_process_and_after_pickling(store):
    ours = dataset(store)
    copy = pickle.loads(pickle.dumps(dataset(store)))
    copy[5]
    for item in (0, PATCHES - 1, 3 * PATCHES + 7):
        for one, other in zip(ours[item], copy[item], strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(ours[0][0], ours[PATCHES][0])
    image, label, weight = ours[0]
    assert weight == 1
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.uint8)
    assert (label.shape, label.dtype) == ((32, 32), torch.uint8)


@pytest.mark.slow
def test_an_epoch_is_the_same_for_any_number_of_workers(store):
    def epoch(workers):
        context = "spawn" if workers else None
        items = EpochItems(PATCHES)
        items.set_epoch(2)
        loader = DataLoader(
            dataset(store),
            batch_size=5,
            sampler=items,
            num_workers=workers,
            multiprocessing_context=context,
        )
        return [torch.cat([image.flatten(1), label.flatten(1)], 1) for image, label, _ in loader]

    alone = epoch(0)
    for ours, theirs in zip(alone, epoch(2), strict=True):
        assert torch.equal(ours, theirs)


@given(length=st.integers(1, 100), ranks=st.integers(1, 7), epoch=st.integers(0, 9))
def test_ranks_partition_an_epoch(length, ranks, epoch):
    shares = []
    for rank in range(ranks):
        items = EpochItems(length, rank=rank, ranks=ranks)
        items.set_epoch(epoch)
        assert len(items) == len(list(items))
        shares += list(items)
    assert sorted(shares) == list(range(epoch * length, (epoch + 1) * length))


def test_slides_of_unknown_mpp_work_with_recipes_in_pixels(write_store, pixels):
    store = write_store(*pixels, mpp=None)
    image, _ = source(store, mpp=None).patch(50, 50, 10)
    assert np.array_equal(image, pixels[0][45:55, 45:55])
    assert source(store, mpp=None).scale.extent == Extent(height=203, width=151)


def test_slides_are_opened_lazily_and_few_stay_open(store, monkeypatch):
    """Open sources are not pickled; the most recently used stay open."""
    monkeypatch.setattr(source_module, "_MAX_OPEN", 2)
    sources = PatchSources([store] * 4, "annotations", classes=CLASSES, view=View(0.5))
    first = sources[0]
    assert sources[0] is first
    small = pickle.dumps(PatchSources([store] * 4, "annotations", classes=CLASSES, view=View(0.5)))
    assert len(pickle.dumps(sources)) == len(small)
    assert len([*sources]) == 4
    assert sources[0] is not first
    image, label = pickle.loads(pickle.dumps(sources))[3].patch(60, 50, 32)
    plain = source(store).patch(60, 50, 32)
    assert np.array_equal(image, plain[0])
    assert np.array_equal(label, plain[1])
    assert [one.scale for one in sources[1:3]] == [first.scale] * 2
