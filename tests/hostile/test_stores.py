"""Every named defect of a store, through the verbs that read stores."""

import shutil

import pytest
import torch

from tests.cards import make_card
from tests.hostile.made_stores import write_hostile_stores
from tests.makers.painted import NAME, paint_prediction
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.testing.tissue import CLASSES

# Damage of the slide's own pixels or sizes, which a prediction at the finest level must meet.
OF_PX = ("chunk-", "codec-", "index-", "shard-", "shape-", "metadata-", "mpp-", "downsample-")
# Of zarr's own codecs none has a bound; SECURITY.md says so.
UNBOUNDED = {("tile", "chunk-bomb"), ("tile", "chunk-claims-more")}
# Bytes that are read as another picture, or as none at all: `verify` alone can tell.
ONLY_VERIFY = {"codec-not-a-mapping"}

RECIPE = """
classes: [{{name: gland}}]
data: {{stores: [{store}], label: annotations, validation: 0}}
mpp: 0.5
patch_px: 32
model: {{encoder: tu-mobilenetv3_small_050, weights: null}}
train: {{epochs: 1, batch_size: 2, workers: 0}}
sampling: {{patches_per_epoch: 4}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    for name in ("good", "out"):
        (folder / name).mkdir()
    paint_prediction(folder / "good")
    return folder


@pytest.fixture(scope="module")
def corpus(folder):
    corpus = write_hostile_stores(folder / "good" / "store.zarr", folder / "out" / "stores")
    assert len(corpus) > 40
    return corpus


@pytest.fixture(scope="module")
def checkpoint(folder):
    torch.manual_seed(0)
    card = make_card(classes=CLASSES, tile_px=256)
    path = folder / "model.safetensors"
    save_checkpoint(path, build_network(card.spec), card)
    return path


@pytest.mark.slow
def test_verify_finds_every_defect(verbs, folder, corpus):
    good = verbs("verify", folder / "good" / "store.zarr", folder=folder)
    assert good.code == 0, f"{good}"
    for store in corpus.values():
        verbs("verify", store, folder=folder).require_refused()


def test_one_damaged_store_does_not_hide_the_others(verbs, folder, tmp_path):
    (tmp_path / "out").mkdir()
    store = shutil.copytree(folder / "good" / "store.zarr", tmp_path / "out" / "s.zarr")
    shutil.copytree(store / NAME, store / "second")
    (store / NAME / "0/zarr.json").write_text("{")
    checked = verbs("verify", store, "--quarantine", folder=tmp_path)
    checked.require_refused("1 of 2 slides failed, 1 done", NAME)
    assert verbs("verify", store, folder=tmp_path).code == 0


@pytest.mark.torture
def test_every_verb_on_every_defect(network_verbs, folder, corpus, checkpoint):
    prediction, out = folder / "good" / "pred.zarr", folder / "out" / "made"
    outlines = folder / "good" / f"{NAME}.geojson"
    for defect, store in corpus.items():
        (folder / "out" / "recipe.yaml").write_text(RECIPE.format(store=store))
        for words in (
            ("info", store / NAME),
            ("tile", store / NAME, "--out", out / "again.zarr"),
            ("dedup", store),
            ("stats", store),
            ("annotate", store, outlines, "--name", "again"),
            ("preview", "out/recipe.yaml", "--out", out / "preview.png"),
            ("train", "out/recipe.yaml", "--out", out / "run"),
            ("evaluate", prediction, "--truth", store),
            ("search", prediction, "--truth", store, "--out", out / "rule.json"),
            ("calibrate", prediction, "--truth", store),
            ("ensemble", prediction, prediction, "--truth", store),
            ("mine", store, prediction),
            ("export", store, "--geojson", out / "outlines"),
            ("report", prediction, "--slides", store, "--out", out / "report.html"),
            ("pseudo", prediction, store, "--recipe", "out/recipe.yaml"),
        ):
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            if (words[0], defect) not in UNBOUNDED:
                network_verbs(*words, folder=folder).require_bounded()
        predicted = network_verbs(
            "infer", store, "--checkpoint", checkpoint, "--out", out / "p.zarr", "--overlap", "0",
            "--batch", "1", folder=folder,
        )  # fmt: skip
        predicted.require_bounded()
        if defect.startswith(OF_PX) and defect not in ONLY_VERIFY:
            predicted.require_refused()
        network_verbs("ct", "lungs", store, "--out", out / "lungs", folder=folder).require_bounded()
