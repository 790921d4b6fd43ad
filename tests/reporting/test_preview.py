import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from wsi_seg.cli.app import app
from wsi_seg.config import load_recipe
from wsi_seg.errors import ConfigError
from wsi_seg.ingest.run import tile_slides
from wsi_seg.progress import Silent
from wsi_seg.reporting.preview import preview_slides
from wsi_seg.store import open_collection
from wsi_seg.testing.tissue import write_tissue_slide


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from wsi_seg.masks.annotate import annotate

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
def test_each_slide_gets_a_picture_and_a_sheet(folder, tmp_path, augment):
    recipe = load_recipe(folder / "recipe.yaml", [f"augment={augment}"])
    report = preview_slides(
        list(open_collection(folder / "s.zarr")), recipe, tmp_path / "out", progress=Silent()
    )
    assert [path.name for path in report.pictures] == ["a.png", "a_patches.png", "mean-label.png"]
    for path in report.pictures[:2]:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert pixels.shape[1] > 1000
        colours = {tuple(colour) for colour in pixels[::2, ::2].reshape(-1, 3).tolist()}
        assert (213, 94, 0) in colours  # outlines of the class


def test_slides_without_the_label_are_named(folder, tmp_path):
    recipe = load_recipe(folder / "recipe.yaml", ["data.label=other"])
    stores = list(open_collection(folder / "s.zarr"))
    with pytest.raises(ConfigError, match="has the label 'other'"):
        preview_slides(stores, recipe, tmp_path, progress=Silent())


def test_the_next_command_has_the_same_settings(folder, tmp_path):
    words = ["preview", folder / "recipe.yaml", "--out", tmp_path / "out"]
    words += ["--set", "augment=none", "--set", "patch_px=64"]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert "recipe.yaml --set augment=none --set patch_px=64 --out run" in done.output
