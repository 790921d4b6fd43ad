import base64
import io
import re

import numpy as np
from PIL import Image

from tests.makers.painted import write_prediction
from wsi_seg.config import load_recipe
from wsi_seg.store import (
    create_collection,
    open_collection,
    open_predictions,
)
from wsi_seg.testing.stores import write_image
from wsi_seg.testing.tissue import CLASSES


def make_collection(path, names):
    create_collection(path)
    picture = np.zeros((300, 500, 3), dtype=np.uint8)
    picture[:, 250:] = (200, 40, 40)
    for name in names:
        write_image(path / name, picture, {})
    return open_collection(path)


def pictures(text):
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_a_slide_shows_itself(tmp_path):
    store = make_collection(tmp_path / "s.zarr", ["a&b"])["a&b"]
    shown = store._repr_html_()
    assert "a&amp;b" in shown
    assert "500 x 300 px" in shown
    (picture,) = pictures(shown)
    assert picture.shape == (96, 160, 3)
    assert picture[48, 20].max() < 30
    assert abs(picture[48, 140].astype(int) - (200, 40, 40)).max() < 10
    drawn = np.asarray(Image.open(io.BytesIO(store._repr_png_())))
    assert drawn.shape == (96, 160, 3)
    assert drawn[48, 20].max() < 30
    assert repr(store) == "<SlideStore a&b: 500 x 300 px, labels: none>"


def test_a_prediction_shows_its_classes(tmp_path):
    probability = np.zeros((300, 500), dtype=np.uint8)
    probability[:, 250:] = 255
    for saved in ("both", "labels"):
        write_prediction(tmp_path / saved, probability, saved=saved)
        (picture,) = pictures(open_predictions(tmp_path / saved)._repr_html_())
        assert picture.shape == (96, 160, 3)
        assert picture[48, 20].min() > 245
        assert abs(picture[48, 140].astype(int) - CLASSES.entries[0].rgb).max() < 12


def test_a_large_collection_is_shown_in_part(tmp_path):
    collection = make_collection(tmp_path / "s.zarr", [f"slide-{n:02}" for n in range(26)])
    shown = collection._repr_html_()
    assert len(pictures(shown)) == 24
    assert "and 2 more" in shown
    assert "26 slides" in repr(collection)


def test_a_damaged_slide_is_named(tmp_path):
    collection = make_collection(tmp_path / "s.zarr", ["a"])
    for file in (tmp_path / "s.zarr/a").rglob("c/**/*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    assert "(damaged)" in collection._repr_html_()
    assert collection["a"]._repr_png_() is None


def test_a_recipe_shows_all_its_settings(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "name: <mine>\nclasses: [{name: gland}]\ndata: {stores: [s.zarr]}\nmpp: 1.0\n"
    )
    shown = load_recipe(tmp_path / "recipe.yaml")._repr_html_()
    assert "name: &lt;mine&gt;" in shown
    assert "weight_decay" in shown
