import json
import re
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageDraw
from shapely.geometry import box, mapping
from typer.testing import CliRunner

from wsi_seg.cli.app import app
from wsi_seg.config import load_recipe
from wsi_seg.data.source import PatchSource
from wsi_seg.errors import ConfigError
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.progress import Silent
from wsi_seg.reading.view import View
from wsi_seg.reporting import preview
from wsi_seg.reporting.preview import preview_slides
from wsi_seg.sampling.samplers import Draws
from wsi_seg.store import open_collection
from wsi_seg.testing.tissue import write_tissue_slide


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preview")
    write_tissue_slide(folder / "a.tif", height=900, width=1400, seed=2)
    tile_slides([folder / "a.tif"], folder / "s.zarr", progress=Silent())
    (polygons,) = folder.glob("*.geojson")
    annotate(open_collection(folder / "s.zarr"), [polygons], progress=Silent())
    (folder / "recipe.yaml").write_text(
        "classes: [{name: gland}]\ndata: {stores: [s.zarr]}\nmpp: null\npatch_px: 128\n"
    )
    return folder


@pytest.mark.parametrize("augment", ["d4", "heavy"])
def test_one_sheet_shows_slides_patches_and_mean_labels(folder, tmp_path, augment):
    recipe = load_recipe(folder / "recipe.yaml", [f"augment={augment}"])
    stores = list(open_collection(folder / "s.zarr"))
    report = preview_slides(stores, recipe, tmp_path / "out/sheet.png", progress=Silent())
    assert report._repr_png_() == (tmp_path / "out/sheet.png").read_bytes()
    assert report.slides == ("a",)
    assert report.left_out == 0
    with Image.open(report.picture) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] == 1680  # the slide, and margins
    colours = {tuple(colour) for colour in pixels[::2, ::2].reshape(-1, 3).tolist()}
    assert (213, 94, 0) in colours  # outlines of the class
    assert (253, 231, 36) in colours  # the most frequent place of the mean labels


def test_the_numbers_below_the_mean_labels_are_not_cut(folder, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda _, __, words, **___: written.append(words)
    )
    recipe = load_recipe(folder / "recipe.yaml", ["classes=[{name: glomerulus, from: [gland]}]"])
    stores = list(open_collection(folder / "s.zarr"))
    preview_slides(stores, recipe, tmp_path / "sheet.png", progress=Silent())
    (caption,) = [words for words in written if words.startswith("glomerulus: middle")]
    assert re.fullmatch(r"glomerulus: middle \d\.\d{3}, corners \d\.\d{3}", caption)


def test_slides_are_evenly_taken_and_the_others_counted(folder, tmp_path):
    store = tmp_path / "many.zarr"
    shutil.copytree(folder / "s.zarr", store)
    for name in "bcde":
        shutil.copytree(store / "a", store / name)
    recipe = load_recipe(folder / "recipe.yaml")
    stores = list(open_collection(store))
    report = preview_slides(stores, recipe, tmp_path / "sheet.png", most=2, progress=Silent())
    assert report.slides == ("a", "c")
    assert report.left_out == 3
    assert "3 more are left out" in report.lines()[0]


def test_slides_without_the_label_are_named(folder, tmp_path):
    recipe = load_recipe(folder / "recipe.yaml", ["data.label=other"])
    stores = list(open_collection(folder / "s.zarr"))
    with pytest.raises(ConfigError, match="without label 'other'"):
        preview_slides(stores, recipe, tmp_path / "sheet.png", progress=Silent())


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Slides with one class each, with none, with ignored pixels alone, and a recipe of both."""
    folder = tmp_path_factory.mktemp("several")
    for part in ("slides", "ann"):
        (folder / part).mkdir()
    rng = np.random.default_rng(0)
    drawn = {"a": ["gland"], "b": ["vessel"], "n": [], "i": ["ignore"], "v": ["gland", "vessel"]}
    for name, classes in drawn.items():
        pixels = np.full((256, 256, 3), 243, np.uint8)
        pixels[30:220, 10:246] = rng.integers((180, 90, 150), (230, 140, 200), (190, 236, 3))
        tifffile.imwrite(
            folder / "slides" / f"{name}.tif", pixels, tile=(64, 64), photometric="rgb",
            resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
        )  # fmt: skip
        features = [
            {
                "type": "Feature",
                "properties": {"class": word},
                "geometry": mapping(box(20 + 120 * k, 80, 80 + 120 * k, 140)),
            }
            for k, word in enumerate(classes)
        ]
        document = {"type": "FeatureCollection", "features": features}
        (folder / "ann" / f"{name}.geojson").write_text(json.dumps(document))
    tile_slides([folder / "slides"], folder / "s.zarr", progress=Silent())
    annotate(open_collection(folder / "s.zarr"), [folder / "ann"], progress=Silent())
    (folder / "recipe.yaml").write_text(
        "classes: [{name: gland}, {name: vessel}]\ndata: {stores: [s.zarr], validation: 0}\n"
        "mpp: 0.5\npatch_px: 64\n"
    )
    return folder


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ([], "abinv"),
        (["data.train=[a,b,n]", "data.validation=[v]"], "abn"),
        (["data.validation=[v]"], "abin"),
        (["data.folds=2", "data.validation=0.2"], "abinv"),
        (["sampling.mix={objects: 1, tissue: 0, background: 0}"], "abinv"),
        (["sampling.mix={objects: 0.5, empty: 0.5}"], "abinv"),
        (["sampling={grid: {overlap: 0.5}}"], "abinv"),
    ],
)
def test_slides_without_a_class_are_on_the_sheet(several, tmp_path, settings, shown):
    words = [word for setting in settings for word in ("--set", setting)]
    call = ["preview", several / "recipe.yaml", "--out", tmp_path / "out.png", "--json", *words]
    done = CliRunner().invoke(app, list(map(str, call)))
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["slides"] == list(shown)
    assert (tmp_path / "out.png").is_file()


def test_what_train_would_refuse_preview_refuses_too(several, tmp_path):
    for settings, said in (
        (["data.train=[a,n]"], "class vessel has no object"),
        (["data.train=[a,zz]"], "data.train: got slide 'zz'"),
        (["data.train=[a,b]", "data.validation=[a,b]"], "no slide is left to train on"),
    ):
        words = [word for setting in settings for word in ("--set", setting)]
        call = ["preview", several / "recipe.yaml", "--out", tmp_path / "out.png", *words]
        done = CliRunner().invoke(app, list(map(str, call)))
        assert done.exit_code == 1
        assert said in done.output


def test_the_next_command_has_the_same_settings(folder, tmp_path):
    words = ["preview", folder / "recipe.yaml", "--out", tmp_path / "out.png"]
    words += ["--set", "augment=none", "--set", "patch_px=64"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert "recipe.yaml --set augment=none --set patch_px=64 --out run" in done.output


def test_patches_of_one_place_on_several_slides_are_changed_in_different_ways(folder):
    recipe = load_recipe(folder / "recipe.yaml", ["augment=heavy"])
    (store,) = open_collection(folder / "s.zarr")
    view = View.of(recipe)
    source = PatchSource.of(store, "annotations", classes=recipe.class_table, view=view)

    def first_of(number):
        place = np.full(1, 400.0)
        draws = Draws(
            slide=np.full(1, number, np.int32), y=place, x=place, layer=np.zeros(1, np.uint8),
            object_id=np.full(1, -1), weight=np.ones(1, np.float32),
        )  # fmt: skip
        (picture,) = preview._patches(source, recipe, draws, 1)
        return np.asarray(picture)

    assert (first_of(0) == first_of(0)).all()
    assert len({first_of(number).tobytes() for number in range(6)}) == 6
