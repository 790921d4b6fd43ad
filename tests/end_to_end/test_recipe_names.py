"""Recipes that name slides and collections of any name: shown, trained, resumed and used."""

import json
import shlex
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image
from typer.testing import CliRunner

from wsi_seg.cli.app import app
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.models import read_card
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_predictions

FOLDER = "p#x?y;z %20 '\"[q]"
COLLECTION = "store #1?.zarr"
NAMES = (
    "S1#2", "a?b", "a;b=c", "with space", 'q"uote', "ap'os", "new\nline", "com,ma: x", "{curly}",
    "[x]", "-dash", "true", "1.5", "null", "~", "*star", "&and", "!bang", "%25",
    unicodedata.normalize("NFD", "Prüfung"),
)  # fmt: skip
HELD_OUT = NAMES[:3]


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("recipes") / FOLDER
    (root / "slides").mkdir(parents=True)
    (root / "ann").mkdir()
    rng = np.random.default_rng(0)
    ring = [[10, 10], [50, 10], [50, 50], [10, 50], [10, 10]]
    feature = {
        "type": "Feature", "properties": {"class": "T"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }  # fmt: skip
    for name in NAMES:
        pixels = rng.integers(0, 200, (64, 64, 3), np.uint8)
        tifffile.imwrite(
            root / "slides" / f"{name}.tif", pixels, tile=(64, 64), photometric="rgb",
            metadata=None, resolution=(20_000, 20_000), resolutionunit="CENTIMETER",
        )  # fmt: skip
        (root / "ann" / f"{name}.geojson").write_text(json.dumps(feature))
    tile_slides([root / "slides"], root / COLLECTION, progress=Silent())
    annotate(open_collection(root / COLLECTION), [root / "ann"], progress=Silent())
    return root


def recipe(folder, **data):
    path = folder / "re#cipe?.yaml"
    values = {
        "classes": [{"name": "T"}],
        "data": {"stores": [COLLECTION], **data},
        "mpp": 0.5,
        "patch_px": 32,
        "sampling": {"patches_per_epoch": 4, "mix": {"objects": 1, "tissue": 0, "background": 0}},
        "model": {"encoder": "tu-mobilenetv3_small_050", "weights": None},
        "train": {"epochs": 1, "batch_size": 2, "workers": 0, "precision": "fp32"},
    }
    path.write_text(yaml.safe_dump(values, allow_unicode=True))
    return path


def test_every_name_is_shown_trained_and_used(folder):
    path = recipe(folder, train=list(NAMES[3:]), validation=list(HELD_OUT))
    shown = run("preview", path, "--out", folder / "pre#view.png")
    assert shown.exit_code == 0, shown.output
    with Image.open(folder / "pre#view.png") as sheet:
        assert sheet.width > 500
    for _ in range(2):  # the second time it is taken up
        trained = run("train", path, "--out", folder / "run?1")
        assert trained.exit_code == 0, trained.output
    last = trained.stdout.splitlines()[-1].removeprefix("Next: ")
    assert shlex.split(last)[:3] == ["wsi-seg", "infer", str(folder / COLLECTION)]
    card = read_card(folder / "run?1" / "best.safetensors")
    assert card.training["train_slides"] == list(NAMES[3:])
    assert card.training["validation_slides"] == list(HELD_OUT)
    used = run(
        "infer", folder / COLLECTION, "--checkpoint", folder / "run?1" / "best.safetensors",
        "--out", folder / "pred;1.zarr",
    )  # fmt: skip
    assert used.exit_code == 0, used.output
    assert open_predictions(folder / "pred;1.zarr").names() == tuple(sorted(NAMES))
    assert [child.name for child in folder.parent.iterdir()] == [FOLDER]


def test_names_may_be_given_on_the_command_line(folder, tmp_path):
    path = recipe(folder)
    words = ["--set", f"data.train={json.dumps(NAMES[3:])}"]
    words += ["--set", f"data.validation={json.dumps(HELD_OUT)}"]
    words += ["--set", f"data.stores={json.dumps([str(folder / COLLECTION)])}"]
    done = run("train", path, *words, "--out", tmp_path / "run", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "17 training slides, 3 held out" in done.output


def test_folds_keep_slides_of_any_name(folder, tmp_path):
    path = recipe(folder, folds=2)
    table = folder / "gr#oups?.csv"
    rows = [f'"{name.replace(chr(34), 2 * chr(34))}",{k % 3}' for k, name in enumerate(NAMES)]
    table.write_text("\n".join(["slide,group", *rows]))
    done = run("train", path, "--out", tmp_path / "run", "--set", f"data.groups={table.name}")
    assert done.exit_code == 0, done.output
    kept = [
        open_predictions(Path(f)).names() for f in sorted((tmp_path / "run").glob("*/oof.zarr"))
    ]
    assert sorted(name for names in kept for name in names) == sorted(NAMES)


def test_an_unknown_name_is_refused_as_it_is_written(folder, tmp_path):
    path = recipe(folder, train=["S1", "a?b"], validation=["a;b=c"])
    done = run("train", path, "--out", tmp_path / "run")
    assert done.exit_code == 1
    assert "data.train: got slide 'S1'" in done.output
    path = recipe(folder)
    done = run("train", path, "--out", tmp_path / "run", "--set", "data.stores=[store #1?.zar]")
    assert done.exit_code == 1
    assert "store #1?.zar" in done.output
