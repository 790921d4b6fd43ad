"""Bad input gives one sentence and exit code 1 or 2, and nothing that looks finished."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cards import make_card
from tests.commands import run
from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.geometry import Extent
from wsi_seg.models import build_network, save_checkpoint
from wsi_seg.store import open_collection, open_predictions


def fails(result, said):
    assert result.exit_code == 1, result.output
    assert said in result.stderr
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    card = make_card("gland")
    path = tmp_path_factory.mktemp("model") / "run" / "best.safetensors"
    path.parent.mkdir()
    save_checkpoint(path, build_network(card.spec), card)
    return path


def test_a_text_file_named_tif(tmp_path):
    (tmp_path / "notes.tif").write_text("not a slide")
    fails(run("tile", tmp_path / "notes.tif", "--out", tmp_path / "s.zarr"), "notes")
    assert not (tmp_path / "s.zarr" / "notes").exists()


def test_an_empty_folder(tmp_path):
    (tmp_path / "slides").mkdir()
    fails(run("tile", tmp_path / "slides", "--out", tmp_path / "s.zarr"), "slides")


def test_a_truncated_tiff_fails_and_the_other_slide_is_done(tmp_path):
    folder = tmp_path / "slides"
    folder.mkdir()
    extents = [Extent(height=300, width=200)]
    write_coordinate_tiff(folder / "good.tif", extents=extents)
    write_coordinate_tiff(folder / "cut.tif", extents=extents)
    data = (folder / "cut.tif").read_bytes()
    (folder / "cut.tif").write_bytes(data[: len(data) // 2])
    result = run("tile", folder, "--out", tmp_path / "s.zarr", "--json")
    assert result.exit_code == 1
    assert "1 slide tiled" in result.stderr
    assert "\nerror: 1 of 2 slides failed, 1 done\n" in result.stderr
    assert "cut" in json.loads(result.stdout.splitlines()[-1])["failures"]
    assert open_collection(tmp_path / "s.zarr").names() == ("good",)


def test_a_model_bound_to_an_mpp_on_a_slide_without_one(tmp_path, checkpoint):
    Image.fromarray(np.zeros((80, 90, 3), dtype=np.uint8)).save(tmp_path / "x.png")
    assert run("tile", tmp_path / "x.png", "--out", tmp_path / "s.zarr").exit_code == 0
    words = ("infer", tmp_path / "s.zarr", "--checkpoint", checkpoint, "--out", tmp_path / "p.zarr")
    fails(run(*words), "--allow-mpp-mismatch")
    assert open_predictions(tmp_path / "p.zarr").names() == ()
    result = run(*words, "--allow-mpp-mismatch", "--json")
    assert result.exit_code == 0
    summary = json.loads(result.stdout.splitlines()[-1])
    assert "no mpp" in summary["slides"][0]["notes"][0]


def test_an_unwritable_output(tmp_path, checkpoint):
    write_coordinate_tiff(tmp_path / "a.tif", extents=[Extent(height=80, width=90)])
    (tmp_path / "file").write_text("mine")
    fails(run("tile", tmp_path / "a.tif", "--out", tmp_path / "file" / "s.zarr"), "cannot write")
    assert run("tile", tmp_path / "a.tif", "--out", tmp_path / "s.zarr").exit_code == 0
    out = tmp_path / "file" / "p.zarr"
    fails(
        run("infer", tmp_path / "s.zarr", "--checkpoint", checkpoint, "--out", out), "cannot write"
    )
    assert (tmp_path / "file").read_text() == "mine"


def test_a_recipe_with_a_misspelt_key(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: a\nmpp: 1.0\nclases: [{name: gland}]\ndata: {stores: [s.zarr]}\n")
    result = run("train", recipe, "--out", tmp_path / "run")
    fails(result, "clases")
    assert "classes" in result.stderr
    assert "recipe.yaml" in result.stderr


def test_a_missing_store_a_missing_model_and_a_pickle(tmp_path, checkpoint):
    fails(run("infer", tmp_path / "none.zarr", "--checkpoint", checkpoint), "wsi-seg tile")
    write_coordinate_tiff(tmp_path / "a.tif", extents=[Extent(height=80, width=90)])
    run("tile", tmp_path / "a.tif", "--out", tmp_path / "s.zarr")
    out = tmp_path / "p.zarr"
    words = ("infer", tmp_path / "s.zarr", "--out", out, "--checkpoint")
    fails(run(*words, tmp_path / "none.safetensors"), "none.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "model.pth")
    fails(run(*words, tmp_path / "model.pth"), "model.pth")
    assert not out.exists()


def test_usage_errors_are_exit_code_2(tmp_path):
    assert run("infer", "--overlap", "much").exit_code == 2
    assert run("infer", "--blend", "cubic").exit_code == 2
    assert run("export", tmp_path).exit_code == 2
    assert run("no-such-verb").exit_code == 2
