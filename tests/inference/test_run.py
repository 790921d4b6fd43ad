"""A whole inference on small stores, with a real network: complete, resumable, repeatable."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import wsi_seg.inference.output as output_module
import wsi_seg.inference.save as save_module
from tests.cards import make_card
from wsi_seg.errors import BatchError, ConfigError, OutputError, StoreError, StoreIncompleteError
from wsi_seg.geometry import Extent, Region
from wsi_seg.inference.finish import finish_slide
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer
from wsi_seg.inference.runner import _pays_to_compile
from wsi_seg.inference.waits import describe_shares
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.postprocess.label_map import label_map
from wsi_seg.predict.device import Device
from wsi_seg.predict.predictor import Predictor
from wsi_seg.progress import Silent
from wsi_seg.shard import Shard
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.store.writer import write_strip_of
from wsi_seg.testing.stores import digests, make_store


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    card = make_card("gland", "vessel")
    network = build_network(card.spec)
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_checkpoint(path, network, card)
    return path


@pytest.fixture
def collection(tmp_path):
    make_store(tmp_path / "store.zarr", "one", 300, 210)
    make_store(tmp_path / "store.zarr", "two", 64, 90)
    return open_collection(tmp_path / "store.zarr")


OPTIONS = InferOptions(precision="fp32", batch=4, strip_px=512)


def test_every_slide_is_predicted_at_its_exact_extent(collection, checkpoint, tmp_path):
    report = infer(collection, checkpoint, tmp_path / "pred.zarr", OPTIONS, progress=Silent())
    predictions = open_predictions(tmp_path / "pred.zarr")
    assert predictions.names() == ("one", "two")
    for name, extent in (
        ("one", Extent(height=300, width=210)),
        ("two", Extent(height=64, width=90)),
    ):
        store = predictions[name]
        assert store.pyramid.extent == extent
        assert store.pyramid.mpp == 0.5
        assert store.image.channels == 2
        whole = extent.region()
        labels = store.label("prediction").read(whole)
        np.testing.assert_array_equal(labels, label_map(store.image.read(whole)))
    assert report.tiles == sum(slide.tiles for slide in report.slides)
    assert json.loads(json.dumps(report.to_json()))["tiles"] == report.tiles
    assert 0 < report.device_use <= 1
    assert describe_shares(report.shares) in "\n".join(report.lines())
    assert not (tmp_path / "pred.zarr" / ".wsi_seg/partial").exists()


def test_a_second_run_finds_everything_done_and_other_settings_are_refused(
    collection, checkpoint, tmp_path
):
    out = tmp_path / "pred.zarr"
    infer(collection, checkpoint, out, OPTIONS, progress=Silent())
    before = digests(out)
    again = infer(collection, checkpoint, out, OPTIONS, progress=Silent())
    assert again.tiles == 0
    assert digests(out) == before
    other = InferOptions(precision="fp32", batch=4, strip_px=512, overlap=0.25)
    with pytest.raises(BatchError, match=r"was made with .* overlap was 0.5 and is now 0.25; --ov"):
        infer(collection, checkpoint, out, other, progress=Silent())
    report = infer(collection, checkpoint, out, other, overwrite=True, progress=Silent())
    assert report.tiles > 0


def test_stopped_anywhere_and_run_again_gives_the_same_bytes(checkpoint, tmp_path, monkeypatch):
    make_store(tmp_path / "store.zarr", "tall", 1300, 64)
    collection = open_collection(tmp_path / "store.zarr")
    infer(collection, checkpoint, tmp_path / "whole.zarr", OPTIONS, progress=Silent())
    expected = digests(tmp_path / "whole.zarr")

    class Killed(BaseException):
        pass

    calls = {"left": 0}
    real = write_strip_of

    def dying(*args):
        if calls["left"] == 0:
            raise Killed
        calls["left"] -= 1
        return real(*args)

    monkeypatch.setattr(save_module, "write_strip_of", dying)
    for survived in range(6):  # three strips, an image and a label each
        out = tmp_path / f"killed{survived}.zarr"
        calls["left"] = survived
        with pytest.raises(Killed):
            infer(collection, checkpoint, out, OPTIONS, progress=Silent())
        with pytest.raises(StoreIncompleteError, match="tall"):
            open_predictions(out)
        calls["left"] = 99
        report = infer(collection, checkpoint, out, OPTIONS, progress=Silent())
        assert digests(out) == expected
        assert report.tiles > 0
        done = min(survived // 2, 2) * 512  # rows of whole strips; a label is written after each
        assert report.pixels == (1300 - done) * 64


def stopped_after(strips, monkeypatch):
    """Let so many writes of a strip or its label succeed, and the next one be a kill."""

    class Killed(BaseException):
        pass

    left, real = [strips], write_strip_of

    def dying(*args):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return real(*args)

    monkeypatch.setattr(save_module, "write_strip_of", dying)
    return Killed


def test_another_memory_budget_neither_refuses_nor_redoes_what_is_there(
    checkpoint, tmp_path, monkeypatch
):
    make_store(tmp_path / "store.zarr", "tall", 2300, 64)
    collection = open_collection(tmp_path / "store.zarr")
    large = InferOptions(precision="fp32", batch=4, strip_px=1024)
    infer(collection, checkpoint, tmp_path / "whole.zarr", large)
    expected = digests(tmp_path / "whole.zarr")
    killed = stopped_after(2, monkeypatch)
    with pytest.raises(killed):
        infer(collection, checkpoint, tmp_path / "killed.zarr", large)
    monkeypatch.undo()
    whole = infer(collection, checkpoint, tmp_path / "whole.zarr", OPTIONS)
    assert whole.tiles == 0
    assert digests(tmp_path / "whole.zarr") == expected
    report = infer(collection, checkpoint, tmp_path / "killed.zarr", OPTIONS)
    assert report.memory.strip_px == 1024
    assert 0 < report.tiles < report.slides[0].tiles
    assert digests(tmp_path / "killed.zarr") == expected


def test_an_old_prediction_stays_until_the_new_one_is_complete(checkpoint, tmp_path, monkeypatch):
    make_store(tmp_path / "store.zarr", "tall", 1300, 64)
    collection, out = open_collection(tmp_path / "store.zarr"), tmp_path / "pred.zarr"
    infer(collection, checkpoint, out, OPTIONS)
    old = digests(out / "tall")
    other = replace(OPTIONS, tta="hflip")
    infer(collection, checkpoint, tmp_path / "new.zarr", other)
    killed = stopped_after(3, monkeypatch)
    with pytest.raises(killed):
        infer(collection, checkpoint, out, other, overwrite=True)
    monkeypatch.undo()
    assert digests(open_predictions(out)["tall"].path) == old
    with pytest.raises(BatchError, match="unfinished work with other settings"):
        infer(collection, checkpoint, out, OPTIONS)
    report = infer(collection, checkpoint, out, other)
    assert 0 < report.tiles < report.slides[0].tiles
    assert digests(out) == digests(tmp_path / "new.zarr")
    infer(collection, checkpoint, out, OPTIONS, overwrite=True)
    assert digests(out / "tall") == old
    assert not (out / ".wsi_seg/partial").exists()


def test_a_prediction_that_cannot_be_marked_as_made_again_says_why(
    collection, checkpoint, tmp_path
):
    out = tmp_path / "pred.zarr"
    infer(collection, checkpoint, out, OPTIONS)
    old = digests(out / "one")
    (out / ".wsi_seg" / "partial").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot write .*partial/one: Not a directory"):
        infer(collection, checkpoint, out, OPTIONS, overwrite=True)
    assert digests(out / "one") == old


def test_one_bad_slide_does_not_stop_the_others(checkpoint, tmp_path):
    make_store(tmp_path / "store.zarr", "good", 70, 70)
    make_store(tmp_path / "store.zarr", "unknown", 70, 70, mpp=None)
    collection = open_collection(tmp_path / "store.zarr")
    report = infer(collection, checkpoint, tmp_path / "pred.zarr", OPTIONS)
    assert [slide.slide for slide in report.slides] == ["good"]
    assert list(report.failures) == ["unknown"]
    with pytest.raises(BatchError, match="'unknown' has no mpp") as caught:
        report.require_whole()
    assert caught.value.done == 1
    assert open_predictions(tmp_path / "pred.zarr").names() == ("good",)


def test_a_damaged_chunk_is_left_at_zero_and_its_neighbours_are_predicted(
    collection, checkpoint, tmp_path
):
    shard = collection.path / "one" / "0" / "c" / "0" / "1" / "0"
    data = bytearray(shard.read_bytes())
    data[4:64] = bytes(60)
    shard.write_bytes(data)
    report = infer(collection, checkpoint, tmp_path / "pred.zarr", OPTIONS, progress=Silent())
    (slide,) = (s for s in report.slides if s.slide == "one")
    assert slide.quarantined
    assert all("chunk" in reason for _, _, reason in slide.quarantined)
    image = open_predictions(tmp_path / "pred.zarr")["one"].image
    first = Region(level=0, y=0, x=0, height=64, width=64)
    assert image.read(first).any()
    bad = Region(level=0, y=140, x=10, height=8, width=8)
    assert not image.read(bad).any()


def test_an_output_that_is_something_else_is_refused(collection, checkpoint, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    with pytest.raises((StoreError, OSError), match="not a collection"):
        infer(collection, checkpoint, tmp_path / "notes", OPTIONS, progress=Silent())
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep"


def test_tta_changes_the_prediction_and_belongs_to_the_settings(collection, checkpoint, tmp_path):
    out = tmp_path / "pred.zarr"
    infer(collection, checkpoint, out, OPTIONS, progress=Silent())
    flipped = InferOptions(precision="fp32", batch=4, strip_px=512, tta="hflip")
    with pytest.raises(BatchError, match="tta was 'none' and is now 'hflip'"):
        infer(collection, checkpoint, out, flipped, progress=Silent())
    infer(collection, checkpoint, tmp_path / "b.zarr", flipped, progress=Silent())
    region = Region(level=0, y=0, x=0, height=64, width=64)
    plain = open_predictions(out)["two"].image.read(region).astype(int)
    averaged = open_predictions(tmp_path / "b.zarr")["two"].image.read(region).astype(int)
    assert 0 < np.abs(plain - averaged).mean() < 30


def test_a_cluster_gives_the_prediction_of_one_process(checkpoint, tmp_path):
    make_store(tmp_path / "store.zarr", "tall", 1100, 70)
    make_store(tmp_path / "store.zarr", "two", 64, 90)
    collection = open_collection(tmp_path / "store.zarr")
    serial, many = tmp_path / "serial.zarr", tmp_path / "many.zarr"
    infer(collection, checkpoint, serial, OPTIONS, progress=Silent())
    report = infer(collection, checkpoint, many, OPTIONS, cluster="local:2", progress=Silent())
    assert report.tiles >= sum(slide.tiles for slide in report.slides)
    for name in ("tall", "two"):
        expected, found = open_predictions(serial)[name], open_predictions(many)[name]
        extent = expected.pyramid.extent
        whole = extent.region()
        differing = expected.image.read(whole) != found.image.read(whole)
        # Threads decide in which order a convolution sums; blending adds nothing to that.
        assert differing.mean() < 1e-4
    assert not (many / ".wsi_seg/partial").exists()


def test_finishing_a_slide_once_more_changes_nothing(checkpoint, tmp_path, monkeypatch):
    """A worker may die between the last rename and telling the client about it."""
    make_store(tmp_path / "store.zarr", "two", 64, 90)
    collection = open_collection(tmp_path / "store.zarr")
    real = finish_slide

    def twice(task, final, journal):
        found = real(task, final, journal)
        assert real(task, final) is None
        return found

    monkeypatch.setattr(output_module, "finish_slide", twice)
    infer(collection, checkpoint, tmp_path / "a", OPTIONS, progress=Silent())
    monkeypatch.undo()
    infer(collection, checkpoint, tmp_path / "b", OPTIONS, progress=Silent())
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_an_unknown_cluster_is_refused(collection, checkpoint, tmp_path):
    for word in ("local", "local:0", "local:x", "cuda:0", "slurm:many", "moon"):
        with pytest.raises(ConfigError, match="--cluster"):
            infer(collection, checkpoint, tmp_path / "p", OPTIONS, cluster=word, progress=Silent())


def test_label_map_takes_the_most_probable_class_above_one_half():
    probability = np.array([[[127, 100], [128, 100], [200, 201], [200, 200]]], dtype=np.uint8)
    np.testing.assert_array_equal(label_map(probability), [[0, 1, 2, 1]])
    np.testing.assert_array_equal(label_map(probability[..., :1]), [[0, 1, 1, 1]])


def test_many_small_images_are_predicted_in_full_batches(checkpoint, tmp_path, monkeypatch):
    for number in range(22):
        make_store(tmp_path / "store.zarr", f"image{number:02d}", 50 + number % 3, 60)
    sizes = []
    real = Predictor.predict

    def counted(self, tiles):
        sizes.append(len(tiles))
        return real(self, tiles)

    monkeypatch.setattr(Predictor, "predict", counted)
    options = InferOptions(precision="fp32", batch=8)
    out = tmp_path / "pred.zarr"
    report = infer(
        open_collection(tmp_path / "store.zarr"), checkpoint, out, options, progress=Silent()
    )
    assert report.tiles == 22
    assert sizes == [8, 8, 8]
    assert len(open_predictions(out)) == 22


def test_compiling_without_a_compiler_is_refused(collection, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match="cpu: this machine lacks a compiler"):
        infer(collection, checkpoint, tmp_path / "pred.zarr", replace(OPTIONS, compiled="on"))


@pytest.mark.parametrize("there", [True, False])
def test_where_compiling_would_pay_and_cannot_be_done_a_warning_says_what_lacks(
    monkeypatch, caplog, there
):
    gpu = Device("cuda:0", "bf16", 80 * 10**9)
    lacks = "" if there else "a compiler of C (gcc)"
    monkeypatch.setattr("wsi_seg.inference.runner.missing_compiler", lambda device: lacks)
    assert _pays_to_compile(gpu, 10**6, 100.0) is there
    assert ("lacks a compiler of C (gcc)" in caplog.text) is not there
    assert not _pays_to_compile(gpu, 10**6, 1e6)


def test_a_process_that_found_nothing_to_do_says_so(collection, checkpoint, tmp_path):
    infer(collection, checkpoint, tmp_path / "pred.zarr", OPTIONS)
    shard = replace(OPTIONS, shard=Shard(15, 16))
    report = infer(collection, checkpoint, tmp_path / "pred.zarr", shard)
    assert report.lines() == ["nothing was left to predict here"]
    said = replace(report, elsewhere=3).lines()
    assert said[1:] == ["3 slides left to other processes: see wsi-seg status"]
