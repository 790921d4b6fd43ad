"""Adaptive overlap: fewer tiles, the same wherever tiles agree, repeatable however it is run."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import wsi_seg.inference.save as save_module
from tests.cards import make_card
from tests.makers.memory import MemoryImage, MemoryStore, PixelPredictor, red_as_probability
from tests.makers.stream import predicted
from wsi_seg.errors import BatchError, ConfigError
from wsi_seg.inference.adaptive import first_options, merged, refined
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import plan_slide
from wsi_seg.inference.run import infer_with
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.progress import Silent
from wsi_seg.store import (
    create_collection,
    open_collection,
    open_predictions,
)
from wsi_seg.store.writer import write_strip_of
from wsi_seg.testing.stores import digests, write_image

CARD = make_card(mpp=None, tile_px=32, mean=(0.0,) * 3, std=(1.0,) * 3)
OPTIONS = InferOptions(overlap="adaptive", precision="fp32", batch=4)


class Blinkered(nn.Module):
    """Red as logit, but errs at a tile's left border wherever the image is red."""

    def forward(self, x):
        red = (x[:, :1] - 0.5) * 12
        wrong = torch.zeros_like(red)
        wrong[:, :, :, :4] = -8
        return torch.where(red > 0, red + wrong, red)


def write_store(collection, name, image, mpp=None):
    create_collection(collection)
    write_image(collection / name, image, {"kind": "slide"}, mpp=mpp, shard_px=64)


def with_a_square(height=200, width=230):
    """One red square across borders of tiles; black elsewhere."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[70:130, 50:120, 0] = 250
    return image


def prediction(path, name="one"):
    store = open_predictions(path)[name]
    extent = store.pyramid.extent
    region = extent.region()
    return store.image.read(region)[..., 0]


@pytest.fixture
def stores(tmp_path):
    write_store(tmp_path / "s.zarr", "one", with_a_square())
    write_store(tmp_path / "s.zarr", "two", np.full((64, 64, 3), 9, dtype=np.uint8))
    return list(open_collection(tmp_path / "s.zarr"))


def run(stores, out, options=OPTIONS):
    return infer_with((Blinkered(), CARD), stores, out, options, progress=Silent())


def test_tiles_are_skipped_and_seams_are_gone_where_tiles_disagreed(stores, tmp_path):
    full = run(stores, tmp_path / "full", InferOptions(overlap=0.5, precision="fp32", batch=4))
    plain = run(stores, tmp_path / "plain", InferOptions(overlap=0.0, precision="fp32", batch=4))
    report = run(stores, tmp_path / "ours")
    one, two = report.slides
    assert one.tiles + one.skipped_by_first_pass == full.slides[0].tiles
    assert plain.slides[0].tiles < one.tiles < full.slides[0].tiles / 2
    assert two.tiles == plain.slides[1].tiles  # nothing to repair
    assert one.seam_score_first == plain.slides[0].seam_score > one.seam_score
    assert report.tiles == one.tiles + two.tiles
    truth = with_a_square()[..., 0] > 127

    def wrong(name):
        return int(((prediction(tmp_path / name) > 127) != truth).sum())

    assert wrong("full") == 0
    assert wrong("ours") < wrong("plain") / 10
    assert "adaptive overlap skipped" in "\n".join(report.lines())
    assert not (tmp_path / ".ours.first").exists()
    again = run(stores, tmp_path / "ours")
    assert (again.tiles, again.slides) == (0, report.slides)


def test_stopped_anywhere_and_run_again_gives_the_same_bytes(stores, tmp_path, monkeypatch):
    run(stores, tmp_path / "whole")
    expected = digests(tmp_path / "whole")

    class Killed(BaseException):
        pass

    real, left = write_strip_of, [0]

    def dying(*args):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(*args)

    monkeypatch.setattr(save_module, "write_strip_of", dying)
    for survived in range(8):  # two slides, two passes, an image and a label each
        left[0], out = survived, tmp_path / f"killed{survived}"
        with pytest.raises(Killed):
            run(stores, out)
        left[0] = 99
        run(stores, out)
        assert digests(out) == expected


@given(st.integers(33, 150), st.integers(33, 150), st.integers(0, 255), st.integers(8, 80))
def test_a_pointwise_model_is_unchanged_and_strips_do_not_matter(height, width, red, strip_px):
    y, x = np.mgrid[:height, :width]
    image = np.stack([np.where(x * 3 > y * 2, red, x % 256), y % 256, x % 256], axis=-1)
    image = image.astype(np.uint8)
    store = MemoryStore(MemoryImage(image))
    plan = plan_slide(store, CARD, OPTIONS, strip_px=strip_px)
    first = plan_slide(store, CARD, first_options(OPTIONS), strip_px=strip_px)
    known = MemoryImage(image[..., :1])
    second = refined(plan, first, known)
    assert second.first_pass is not None
    assert second.keep is not None
    assert first.keep is not None
    assert not (second.keep & second.first_pass.keep).any()
    assert second.first_pass.keep.sum() == first.keep.size
    predictor = PixelPredictor(red_as_probability)
    found = []
    for index, strip in predicted(second, store.image, predictor, batch=3).items():
        alone = predicted(second, store.image, predictor, strips=[index])[index]
        np.testing.assert_array_equal(alone.probabilities, strip.probabilities)
        assert strip.probabilities is not None
        found.append(merged(second, second.strips[index][0], strip.probabilities))
    np.testing.assert_array_equal(np.concatenate(found)[..., 0], image[..., 0])


def test_a_slide_that_fails_does_not_stop_the_others(stores, tmp_path):
    card = replace(CARD, mpp=0.5)  # neither slide knows its own
    write_store(tmp_path / "s.zarr", "three", with_a_square(), mpp=0.5)
    every = list(open_collection(tmp_path / "s.zarr"))
    report = infer_with((Blinkered(), card), every, tmp_path / "p", OPTIONS, progress=Silent())
    assert list(report.failures) == ["one", "two"]
    with pytest.raises(BatchError, match="'one' has no mpp") as caught:
        report.require_whole()
    assert caught.value.done == 1
    assert open_predictions(tmp_path / "p").names() == ("three",)
    with pytest.raises(BatchError, match="2 of 2 slides failed"):
        infer_with((Blinkered(), card), stores, tmp_path / "q", OPTIONS, progress=Silent())


def test_no_first_pass_stays_where_nothing_can_go_on_from_it(stores, tmp_path):
    run(stores[:1], tmp_path / "p")
    other = replace(OPTIONS, tta="hflip")
    with pytest.raises(BatchError, match="one was made with other settings"):
        run(stores, tmp_path / "p", other).require_whole()
    assert open_predictions(tmp_path / "p").names() == ("one", "two")
    assert not (tmp_path / ".p.first").exists()
    card = replace(CARD, mpp=0.5)
    with pytest.raises(BatchError, match="2 of 2 slides failed"):
        infer_with((Blinkered(), card), stores, tmp_path / "q", OPTIONS, progress=Silent())
    assert not (tmp_path / ".q.first").exists()


def test_what_does_not_fit_is_refused(stores, tmp_path):
    with pytest.raises(ConfigError, match="several models"):
        infer_with(
            Model((Member(CARD, "a"), Member(CARD, "b"))), stores, tmp_path / "p", OPTIONS,
            progress=Silent(),
        )  # fmt: skip
    with pytest.raises(ConfigError, match="or adaptive"):
        InferOptions(overlap=0.95)


@pytest.mark.torture
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_same(tmp_path, workers):
    from wsi_seg.inference.run import infer
    from wsi_seg.models import build_network, save_checkpoint

    write_store(tmp_path / "s.zarr", "one", with_a_square(1100, 230))
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "m.safetensors", build_network(CARD.spec), CARD)
    collection = open_collection(tmp_path / "s.zarr")
    options = InferOptions(overlap="adaptive", precision="fp32", batch=4, strip_px=512)
    for out, cluster in (("a", None), ("b", f"local:{workers}")):
        infer(
            collection, tmp_path / "m.safetensors", tmp_path / out, options,
            cluster=cluster, progress=Silent(),
        )  # fmt: skip
    assert (prediction(tmp_path / "a") != prediction(tmp_path / "b")).mean() < 1e-4


def test_overwriting_is_resumed_after_a_stop_and_a_refusal(stores, tmp_path, monkeypatch):
    """Stopped in the second run, refused once for other settings, repeated: the same bytes."""
    out = tmp_path / "p"
    options = replace(OPTIONS, tta="hflip")
    run(stores, out)
    run(stores, tmp_path / "whole", options)

    class Killed(BaseException):
        pass

    real, left = write_strip_of, [6]  # both slides of the first run, then one strip

    def dying(*args):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(*args)

    monkeypatch.setattr(save_module, "write_strip_of", dying)
    with pytest.raises(Killed):
        infer_with(
            (Blinkered(), CARD), stores, out, options, overwrite=True, progress=Silent()
        )  # fmt: skip
    monkeypatch.undo()
    with pytest.raises(BatchError, match="blend was"):
        run(stores, out, replace(options, blend="linear")).require_whole()
    run(stores, out, options)
    assert digests(out) == digests(tmp_path / "whole")
    assert not (tmp_path / ".p.first").exists()


def test_overwriting_stopped_in_the_first_run_continues_without_overwrite(
    stores, tmp_path, monkeypatch
):
    out = tmp_path / "p"
    options = replace(OPTIONS, tta="hflip")
    run(stores, out)
    run(stores, tmp_path / "whole", options)

    class Killed(BaseException):
        pass

    def dying(*_):
        raise Killed

    monkeypatch.setattr(save_module, "write_strip_of", dying)
    with pytest.raises(Killed):
        infer_with(
            (Blinkered(), CARD), stores, out, options, overwrite=True, progress=Silent()
        )  # fmt: skip
    monkeypatch.undo()
    run(stores, out, options)
    assert digests(out) == digests(tmp_path / "whole")
