"""Training and inference see the same pixels after changes of intensity; the card names them."""

from typing import Any

import numpy as np
import pytest
import torch
from shapely.geometry import box

from tests.cards import make_card
from wsi_seg.annotations import Annotation, Annotations
from wsi_seg.classes import ClassTable
from wsi_seg.config.intensity import IntensityConfig, LocalContrastConfig
from wsi_seg.data.source import PatchSource
from wsi_seg.geometry import Region
from wsi_seg.inference.array import Predictor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.masks.labels import write_labels, write_mask
from wsi_seg.models.card import card_from_json
from wsi_seg.models.checkpoint import load_checkpoint, save_checkpoint
from wsi_seg.models.network import build_network
from wsi_seg.progress import Silent
from wsi_seg.store import StoreInfo, create_collection, open_collection, open_predictions
from wsi_seg.testing.stores import write_image

HEIGHT, WIDTH = 150, 200
CONFIGS = [
    IntensityConfig(scale="minmax"),
    IntensityConfig(scale="percentiles", stain="macenko"),
    IntensityConfig(clahe=LocalContrastConfig(kernel_px=40), stain="reinhard"),
    IntensityConfig(outside_tissue=170),
]


class Red(torch.nn.Module):
    """Network whose probability is the red of the pixel."""

    def forward(self, x):
        return torch.logit(x[:, :1].clamp(1e-6, 1 - 1e-6))


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    collection = tmp_path_factory.mktemp("intensity") / "store.zarr"
    create_collection(collection)
    size = HEIGHT, WIDTH, 3
    dull = np.random.default_rng(0).integers(60, 190, size, dtype=np.uint8)
    write_image(collection / "a", dull, StoreInfo().to_json())
    store = open_collection(collection)["a"]
    outline = Annotation(box(20, 20, 90, 80), "gland", "test")
    write_labels(store, Annotations((outline,), ()), ClassTable.named(["gland"]), "annotations")
    mask = np.zeros((HEIGHT // 2, WIDTH // 2), bool)
    mask[10:60, 20:90] = True
    write_mask(store, mask, downsample=2.0)
    return collection


@pytest.mark.parametrize("config", CONFIGS, ids=["minmax", "macenko", "clahe", "outside"])
@pytest.mark.parametrize("tile_px", [32, 96])
def test_inference_sees_what_training_saw_whatever_the_tile(stores, tmp_path, config, tile_px):
    card = make_card("gland", mpp=0.5, mean=(0.0,) * 3, std=(1.0,) * 3, intensity=config,
                     tile_px=tile_px)  # fmt: skip
    slides = list(open_collection(stores))
    options = InferOptions(precision="fp32", batch=4, skip_background=False)
    infer_with((Red(), card), slides, tmp_path / "pred.zarr", options, progress=Silent())
    source = PatchSource.of(slides[0], "annotations", classes=card.classes, view=card.view())
    # Patches of the size of the slide's height, next to each other.
    patches = [source.patch(HEIGHT / 2, x, HEIGHT)[0] for x in (75, WIDTH - 75)]
    learned = np.concatenate([patches[0], patches[1][:, 100:]], axis=1)
    whole = Region(level=0, y=0, x=0, height=HEIGHT, width=WIDTH)
    found = open_predictions(tmp_path / "pred.zarr")["a"].image.read(whole)
    assert np.abs(found[..., 0].astype(int) - learned[..., 0]).max() <= 1
    raw = slides[0].image.read(whole)
    assert np.abs(raw[..., 0].astype(int) - learned[..., 0]).max() > 5
    settings = open_predictions(tmp_path / "pred.zarr")["a"].prediction.settings
    kept: Any = settings["intensity"]
    assert kept[0]["scale"] == config.scale
    assert ("colours" in kept[0]) == (config.stain != "none")


def test_the_card_keeps_it(tmp_path):
    card = make_card("gland", intensity=CONFIGS[2])
    save_checkpoint(tmp_path / "a.safetensors", build_network(card.spec), card)
    assert load_checkpoint(tmp_path / "a.safetensors")[1].intensity == CONFIGS[2]
    text = (tmp_path / "a.json").read_text().replace('"kernel_px": 40', '"kernel_px": 4')
    with pytest.raises(ValueError, match="kernel_px"):
        card_from_json(text)


def test_arrays_are_changed_too():
    card = make_card("gland", mpp=None, mean=(0.0,) * 3, std=(1.0,) * 3,
                     intensity=CONFIGS[0])  # fmt: skip
    dull = np.random.default_rng(0).integers(100, 150, (70, 90, 3), dtype=np.uint8)
    predictor = Predictor.of(Red(), card, InferOptions(precision="fp32"))
    found = predictor(dull)[..., 0]
    assert found == pytest.approx((dull[..., 0] - 100.0) / 49, abs=0.01)
