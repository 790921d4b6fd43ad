"""The same plan on one process and on dask: byte for byte, for any slides, strips and workers."""

import contextlib
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cards import make_card
from tests.makers.memory import PixelPredictor
from wsi_seg.classes import ClassMode, ClassTable
from wsi_seg.inference.distribute import DaskExecutor
from wsi_seg.inference.executor import SerialExecutor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.predict.ensemble import Member, Model, read_model
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.testing.stores import digests, make_store

CARD = make_card("a", "b")
MODES: list[ClassMode | None] = [None, "exclusive", "overlapping"]


def model_of(mode):
    classes = ClassTable.named(["a", "b"], mode=mode)
    return Model((Member(make_card(classes=classes), "toy"),))


def of_place(tiles):
    """A model that errs towards the borders of tiles, so that blending has something to do."""
    ramp = np.linspace(0, 1, tiles.shape[1], dtype=np.float32)
    red = tiles[..., 0].astype(np.float32) / 510 + ramp[:, None] * ramp / 2
    return np.stack([red, tiles[..., 1].astype(np.float32) / 255], axis=1)


def load(member, options, compiled):
    """Make the predictor of a member: it travels to workers by its name."""
    return PixelPredictor(of_place, channels=2)


@pytest.fixture(scope="module")
def clients():
    """Clusters of one, two and three workers, in threads of this process."""
    found = {}
    for count in (1, 2, 3):
        cluster = LocalCluster(
            n_workers=count, threads_per_worker=1, processes=False, dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        )  # fmt: skip
        found[count] = (Client(cluster, set_as_default=False), cluster)
    yield {count: client for count, (client, _) in found.items()}
    for client, cluster in found.values():
        client.close()
        cluster.close()


@settings(max_examples=12)
@given(
    heights=st.lists(st.integers(40, 1700), min_size=1, max_size=3),
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
    batch=st.integers(1, 9),
    workers=st.sampled_from([1, 2, 3]),
    save=st.sampled_from(["both", "labels", "probabilities"]),
    stop=st.integers(0, 4),
    mode=st.sampled_from(MODES),
)
def test_any_workers_and_any_kill_give_the_bytes_of_one_process(
    clients, heights, overlap, batch, workers, save, stop, mode
):
    model = model_of(mode)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, height in enumerate(heights):
            make_store(root / "s.zarr", f"slide{number}", height, 70)
        stores = list(open_collection(root / "s.zarr"))
        options = InferOptions(
            overlap=overlap, batch=batch, strip_px=512, precision="fp32", device="cpu", save=save
        )
        serial = SerialExecutor(model, options, load=load)
        infer_with(model, stores, root / "serial", options, executor=serial, progress=Silent())
        many = DaskExecutor(clients[workers], model, options, load=load)
        infer_with(model, stores, root / "many", options, executor=many, progress=Silent())
        assert digests(root / "many") == digests(root / "serial")

        class Killed(BaseException):
            pass

        class Stop(Silent):
            left = stop

            def advance(self, amount):
                self.left -= 1
                if self.left < 0:
                    raise Killed

        cut = SerialExecutor(model, options, load=load, progress=Stop())
        with contextlib.suppress(Killed):  # a stop after the last batch stops nothing
            infer_with(model, stores, root / "cut", options, executor=cut, progress=Silent())
        again = DaskExecutor(clients[workers], model, options, load=load)
        infer_with(model, stores, root / "cut", options, executor=again, progress=Silent())
        assert digests(root / "cut") == digests(root / "serial")


def exclusive_checkpoint(path, seed):
    """Network of random weights with a softmax over background and three classes."""
    torch.manual_seed(seed)
    classes = ClassTable.named(["a", "b", "c"], mode="exclusive")
    card = make_card(classes=classes)
    network = build_network(card.spec)
    for module in network.get_submodule("segmentation_head").modules():
        if isinstance(module, torch.nn.Conv2d):  # so that each class wins somewhere
            module.weight.data *= 20
    save_checkpoint(path, network, card)
    return path


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("mode", ["mean", "vote"])
def test_exclusive_classes_are_an_argmax_with_the_same_bytes_on_workers_and_after_a_stop(
    clients, tmp_path, members, mode
):
    if mode == "vote" and members == 1:
        pytest.skip("one network does not vote")
    files = [exclusive_checkpoint(tmp_path / f"{n}.safetensors", n) for n in range(members)]
    model = read_model(files, mode)
    make_store(tmp_path / "s.zarr", "tall", 1300, 130)
    stores = list(open_collection(tmp_path / "s.zarr"))
    options = InferOptions(batch=4, strip_px=512, precision="fp32", device="cpu")

    def run(out, progress, executor=None):
        infer_with(model, stores, out, options, executor=executor, progress=progress)

    run(tmp_path / "serial", Silent())
    store = open_predictions(tmp_path / "serial")["tall"]
    assert store.image.classes == model.card.classes == store.label("prediction").classes
    found = store.image[:, :]
    left = np.maximum(0, 255 - found.sum(axis=2, dtype=int))
    expected = np.concatenate([left[..., None], found], axis=2).argmax(axis=2)
    np.testing.assert_array_equal(store.label("prediction")[:, :], expected)
    assert len(np.unique(expected)) > 2
    assert (found.max(axis=2)[expected > 0] <= 127).any()  # not what one half decides

    run(tmp_path / "many", Silent(), DaskExecutor(clients[2], model, options))
    assert digests(tmp_path / "many") == digests(tmp_path / "serial")

    class Stop(Silent):
        left = 6

        def advance(self, amount):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Stop())
    run(tmp_path / "cut", Silent())
    assert digests(tmp_path / "cut") == digests(tmp_path / "serial")


def test_members_that_read_the_same_pixels_share_what_is_read(tmp_path, monkeypatch):
    """Two members with one grid: each source pixel is read once, not once for each member."""
    from wsi_seg.inference.source import SourceRows

    make_store(tmp_path / "s.zarr", "one", 300, 210)
    stores = list(open_collection(tmp_path / "s.zarr"))
    options = InferOptions(batch=4, precision="fp32", device="cpu")
    reads = []
    real = SourceRows.read

    def noted(self, unit, part):
        reads.append(unit)
        return real(self, unit, part)

    monkeypatch.setattr(SourceRows, "read", noted)
    counts = []
    for members in (1, 2):
        model = Model(tuple(Member(CARD, str(n)) for n in range(members)))
        executor = SerialExecutor(model, options, load=load)
        out = tmp_path / f"p{members}"
        report = infer_with(model, stores, out, options, executor=executor, progress=Silent())
        counts.append((len(reads), report.tiles))
        reads.clear()
    assert counts[1] == (counts[0][0], 2 * counts[0][1])
