import json

import pytest
import torch
from typer.testing import CliRunner

# Imported here, so that lightning does not take the runner's stderr for the real one.
import wsi_seg.learn.train  # noqa: F401
from wsi_seg.cli.app import app


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("classes: [{name: disc}]\ndata: {stores: [none.zarr]}\nmpp: 1.0\n")
    return path


@pytest.mark.parametrize("words", [(), ("--dry-run",)])
def test_a_store_that_is_missing_ends_in_a_sentence(recipe, tmp_path, words):
    code, out, err = run("train", recipe, "--out", tmp_path / "run", *words)
    assert code != 0
    assert "wsi-seg tile" in err + out
    assert "Traceback" not in err + out


def test_settings_are_typed_and_checked(recipe):
    for setting, hint in (
        ("train.epochs=many", "train.epochs"),
        ("optimizer.name=adamm", "optimizer.name"),
        ("loss.dise=1", "nearest valid key: 'dice'"),
        ("schedule={name: cosine, patience: 3}", "cosine takes no patience"),
        ("data.folds=1", "data.folds"),
    ):
        code, out, err = run("train", recipe, "--set", setting)
        assert code != 0
        assert hint in " ".join((err + out).split()), setting


def test_a_pickle_is_refused_by_convert(tmp_path):
    torch.save({"hook": print}, tmp_path / "m.pth")
    (tmp_path / "card.json").write_text(
        json.dumps(
            {
                "format": 2,
                "architecture": "Unet",
                "encoder": "resnet18",
                "in_channels": 3,
                "classes": [{"name": "a", "colour": "#ff0000"}],
                "mpp": 0.5,
                "tile_px": 64,
                "mean": [0.5] * 3,
                "std": [0.5] * 3,
                "scores": {},
                "training": {},
            }
        )
    )
    code, out, err = run("import-weights", tmp_path / "m.pth", "--card", tmp_path / "card.json")
    assert code != 0
    assert "could run code" in " ".join((err + out).split())
