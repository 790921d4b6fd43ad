"""Several networks as one: files, refusals, and whole inferences on small stores."""

from typing import Any

import numpy as np
import pytest
import torch

import wsi_seg.inference.save as save_module
from tests.cards import make_card
from wsi_seg.classes import ClassTable
from wsi_seg.errors import BatchError, ConfigError
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.inference.runner import load_network
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.models.checkpoint import weights_digest
from wsi_seg.predict.combine import combine
from wsi_seg.predict.ensemble import read_model
from wsi_seg.predict.members import MemberPredictors
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.store.writer import write_strip_of
from wsi_seg.testing.stores import digests, make_store

OPTIONS = InferOptions(precision="fp32", batch=4)


def save(path, seed, **changes):
    torch.manual_seed(seed)
    card = make_card("gland", "vessel", **changes)
    network = build_network(card.spec)
    save_checkpoint(path, network, card)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return [save(folder / f"{n}.safetensors", n) for n in range(3)]


@pytest.fixture
def collection(tmp_path):
    make_store(tmp_path / "store.zarr", "one", 150, 110)
    make_store(tmp_path / "store.zarr", "small", 64, 90)
    return open_collection(tmp_path / "store.zarr")


def image(path, name="one"):
    store = open_predictions(path)[name]
    extent = store.pyramid.extent
    return store.image.read(extent.region())


@pytest.mark.parametrize("mode", ["mean", "geometric", "vote"])
def test_an_ensemble_is_its_members_predictions_combined(collection, files, tmp_path, mode):
    single = []
    for number, path in enumerate(files):
        infer(collection, path, tmp_path / f"{number}.zarr", OPTIONS, progress=Silent())
        single.append(tmp_path / f"{number}.zarr")
    model = read_model(files, mode)
    report = infer(collection, model, tmp_path / "all.zarr", OPTIONS, progress=Silent())
    for name in ("one", "small"):
        expected = combine([image(path, name) for path in single], [1.0] * 3, mode)
        np.testing.assert_array_equal(image(tmp_path / "all.zarr", name), expected)
    assert report.tiles == sum(slide.tiles for slide in report.slides)
    settings: Any = open_predictions(tmp_path / "all.zarr")["one"].attributes["settings"]
    assert settings["checkpoint"]["mode"] == mode
    assert len({row["checkpoint"] for row in settings["checkpoint"]["members"]}) == 3


@pytest.mark.parametrize("mode", ["mean", "vote"])
def test_members_that_saw_a_resized_slide_are_combined_at_its_own_size(collection, tmp_path, mode):
    """A vote at the size that they saw, brought back, would be a mean of votes."""
    files = [
        save(tmp_path / f"{n}.safetensors", n, mpp=None, resize="stretch", tile_px=32)
        for n in range(3)
    ]
    single = []
    for path in files:
        infer(collection, path, path.with_suffix(".zarr"), OPTIONS, progress=Silent())
        single.append(path.with_suffix(".zarr"))
    model = read_model(files, mode)
    infer(collection, model, tmp_path / "all.zarr", OPTIONS, progress=Silent())
    for name in ("one", "small"):
        expected = combine([image(path, name) for path in single], [1.0] * 3, mode)
        np.testing.assert_array_equal(image(tmp_path / "all.zarr", name), expected)


def test_the_order_in_which_members_are_named_changes_no_byte(collection, files, tmp_path):
    for name, order in (("a.zarr", files), ("b.zarr", files[::-1])):
        infer(collection, read_model(order), tmp_path / name, OPTIONS, progress=Silent())
    assert digests(tmp_path / "a.zarr") == digests(tmp_path / "b.zarr")


def test_a_prediction_notes_what_any_member_learned_from(collection, tmp_path):
    """By these notes `mine` and people tell which slides a model has learned from."""
    slides = ["one", "small", "other"]
    files = [
        save(
            tmp_path / f"{n}.safetensors",
            n,
            training={
                "name": "folds",
                "train_slides": slides[:n] + slides[n + 1 :],
                "validation_slides": [slides[n], "test"],
            },
        )
        for n in range(2)
    ]
    infer(collection, read_model(files), tmp_path / "p.zarr", OPTIONS, progress=Silent())
    predicted = open_predictions(tmp_path / "p.zarr")
    training = predicted["one"].attributes["training"]
    assert training == {"name": "folds", "learned_from_slide": True}  # by one of the two
    alone = infer(collection, read_model(files[:1]), tmp_path / "q.zarr", OPTIONS)
    assert alone.tiles
    noted: Any = open_predictions(tmp_path / "q.zarr")["one"].attributes
    assert not noted["training"]["learned_from_slide"]


def test_members_of_other_tiles_encoders_and_mpp_predict_together(collection, files, tmp_path):
    coarse = save(tmp_path / "coarse.safetensors", 7, mpp=0.8, tile_px=96, encoder="resnet34")
    out = tmp_path / "pred.zarr"
    model = read_model([files[0], coarse])
    report = infer(collection, model, out, OPTIONS, progress=Silent())
    infer(collection, files[0], tmp_path / "fine.zarr", OPTIONS, progress=Silent())
    infer(collection, coarse, tmp_path / "coarse.zarr", OPTIONS, progress=Silent())
    fine, found = image(tmp_path / "fine.zarr"), image(out)
    assert found.shape == fine.shape
    small = image(tmp_path / "coarse.zarr")
    assert small.shape[0] < fine.shape[0]
    ys = ((np.arange(150) + 0.5) * small.shape[0] / 150).astype(int)
    xs = ((np.arange(110) + 0.5) * small.shape[1] / 110).astype(int)
    nearest = small[ys][:, xs].astype(int)
    # The coarse member is enlarged linearly; nearest pixels are close to that on average.
    assert np.abs(found - (fine + nearest) / 2).mean() < 4
    assert report.slides[0].mpp == pytest.approx(0.5)


def test_one_member_in_memory_at_a_time_gives_the_same(collection, files, tmp_path, monkeypatch):
    infer(collection, read_model(files), tmp_path / "a", OPTIONS, progress=Silent())
    real = MemberPredictors.__init__

    def alone(self, model, build, *, resident=0):
        real(self, model, build, resident=1)

    monkeypatch.setattr(MemberPredictors, "__init__", alone)
    infer(collection, read_model(files), tmp_path / "b", OPTIONS, progress=Silent())
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_members_hold_distinct_tensors(files, tmp_path):
    model = read_model(files)
    predictors = MemberPredictors(model, lambda member: load_network(member, OPTIONS, False))
    tiles = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8)
    outputs = [one.predict(tiles) for one in predictors.each()]
    assert not torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[1], outputs[2])
    twin = tmp_path / "twin.safetensors"
    save(twin, 0, scores={"val_dice": 0.5})  # another card, the same weights
    assert weights_digest(twin) == weights_digest(files[0])
    with pytest.raises(ConfigError, match="hold the same weights"):
        read_model([files[0], twin])


def test_members_of_other_classes_are_refused(files, tmp_path):
    other = save(tmp_path / "other.safetensors", 9, classes=ClassTable.named(["gland", "nerve"]))
    with pytest.raises(ConfigError, match="nerve"):
        read_model([files[0], other])


def test_an_ensemble_resumes_and_refuses_other_members(files, tmp_path, monkeypatch):
    make_store(tmp_path / "store.zarr", "tall", 1300, 64)
    collection = open_collection(tmp_path / "store.zarr")
    model = read_model(files[:2])
    infer(collection, model, tmp_path / "whole", OPTIONS, progress=Silent())

    class Killed(BaseException):
        pass

    real, left = write_strip_of, [3]

    def dying(*args):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return real(*args)

    monkeypatch.setattr(save_module, "write_strip_of", dying)
    with pytest.raises(Killed):
        infer(collection, model, tmp_path / "cut", OPTIONS, progress=Silent())
    monkeypatch.setattr(save_module, "write_strip_of", real)
    with pytest.raises(BatchError, match="checkpoint was"):
        infer(
            collection, read_model(files[1:]), tmp_path / "cut", OPTIONS, progress=Silent()
        ).require_whole()
    infer(collection, model, tmp_path / "cut", OPTIONS, progress=Silent())
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


@pytest.mark.torture
def test_a_cluster_predicts_with_an_ensemble(files, tmp_path):
    make_store(tmp_path / "store.zarr", "tall", 1100, 70)
    collection = open_collection(tmp_path / "store.zarr")
    model = read_model(files[:2])
    infer(collection, model, tmp_path / "a", OPTIONS, progress=Silent())
    infer(collection, model, tmp_path / "b", OPTIONS, cluster="local:1", progress=Silent())
    differing = image(tmp_path / "a", "tall") != image(tmp_path / "b", "tall")
    assert differing.mean() < 1e-4
