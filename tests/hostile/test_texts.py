"""Every named defect of annotation files and recipes, through the verbs that read them."""

import pytest

from tests.hostile.made_texts import write_hostile_annotations, write_hostile_recipes
from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.geometry import Extent
from wsi_seg.store import open_collection

# Odd, but no reason to refuse them: no outline at all, or one that covers the slide.
HARMLESS = {"xml-deep", "csv-nul", "json-huge-coordinates"}


@pytest.fixture(scope="module")
def folder(verbs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    write_coordinate_tiff(folder / "slide.tif", extents=[Extent(height=80, width=90)])
    (folder / "out").mkdir()
    made = verbs("tile", folder / "slide.tif", "--out", folder / "out" / "s.zarr", folder=folder)
    assert made.code == 0, f"{made}"
    return folder


@pytest.mark.slow
def test_every_annotation_file_is_refused(verbs, folder):
    (folder / "annotations").mkdir()
    corpus = write_hostile_annotations(folder / "annotations", "slide")
    assert len(corpus) > 40
    store = folder / "out" / "s.zarr"
    options = ("--default-class", "a", "--rle", "absolute", "--json")
    for name, path in corpus.items():
        done = verbs("annotate", store, path, *options, folder=folder)
        done.require_bounded()
        if name in HARMLESS:
            assert done.code == 0, f"{done}"
        else:
            done.require_refused(path.name)
    assert open_collection(store).names() == ("slide",)


@pytest.mark.slow
def test_every_recipe_is_refused(network_verbs, folder):
    (folder / "recipes").mkdir()
    corpus = write_hostile_recipes(folder / "recipes", folder / "out" / "s.zarr")
    assert len(corpus) > 20
    for path in corpus.values():
        network_verbs("train", path, "--out", "out/run", folder=folder).require_refused()
    assert not (folder / "out-of-place").exists()


def test_settings_of_the_command_line_are_refused(network_verbs, folder):
    recipe = folder / "out" / "recipe.yaml"
    recipe.write_text("classes: [{name: a}]\ndata: {stores: [s.zarr]}\nmpp: 1.0\n")
    for value in ("mpp=" + "9" * 5000, "mpp=" + "[" * 20_000, "mpp=!!binary aGFsbG8=", "mpp=&a *a"):
        done = network_verbs("train", recipe, "--set", value, "--out", "out/run", folder=folder)
        done.require_refused("--set")
