"""Every verb ends with the command that comes next, and that command exists."""

import re
import shlex
import shutil
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tests.makers.painted import paint_prediction
from wsi_seg.cli.app import app
from wsi_seg.store.digests import write_digests


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """Collections of two slides each, as `search` needs."""
    folder = tmp_path_factory.mktemp("next")
    paint_prediction(folder)
    for name in ("store.zarr", "pred.zarr"):
        shutil.copytree(folder / name / "painted", folder / name / "other")
        for slide in ("painted", "other"):
            write_digests(folder / name / slide)
    return folder


NOTHING = '{"type": "FeatureCollection", "features": []}'

WORDS = [
    ("infer", "store.zarr", "--plan", "--mpp", "2.0", "--allow-mpp-mismatch", "--no-skip"),
    ("verify", "store.zarr"),
    ("verify", "pred.zarr"),
    ("dedup", "store.zarr"),
    ("stats", "store.zarr", "--compare", "store.zarr"),
    ("mine", "pred.zarr", "store.zarr"),
    ("next", "store.zarr", "pred.zarr"),
    ("evaluate", "pred.zarr"),
    ("search", "pred.zarr", "--high-threshold", "0.5"),
    ("calibrate", "pred.zarr"),
    ("calibrate", "pred.zarr", "--apply", "pred.zarr"),
    ("ensemble", "pred.zarr", "pred.zarr"),
    ("export", "--png", "png"),
    ("report", "pred.zarr"),
    ("recipe",),
]


@pytest.mark.parametrize("words", WORDS, ids=" ".join)
def test_the_last_line_is_a_command_that_parses(painted, words, monkeypatch):
    monkeypatch.chdir(painted)
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    last = done.stdout.splitlines()[-1]
    assert last.startswith("Next: "), last
    program, *rest = shlex.split(last.removeprefix("Next: "))
    if program == "python":
        assert re.fullmatch(r"-m webbrowser \S+", " ".join(rest))
        return
    assert program == "wsi-seg"
    verb, *options = rest
    known: Any = get_command(app)
    known.commands[verb].make_context(verb, options)


def test_verify_of_predictions_suggests_an_export_that_writes_a_format(painted, monkeypatch):
    monkeypatch.chdir(painted)
    done = CliRunner().invoke(app, ("verify", "pred.zarr"))
    _, *words = shlex.split(done.stdout.splitlines()[-1].removeprefix("Next: "))
    exported = CliRunner().invoke(app, words)
    assert exported.exit_code == 0, exported.output
    assert {file.stem for file in (painted / "found").glob("*.geojson")} == {"painted", "other"}


def test_a_plan_ends_with_the_same_command_without_the_option(painted, monkeypatch):
    monkeypatch.chdir(painted)
    words = ("infer", "store.zarr", "--no-skip", "--allow-mpp-mismatch", "--mpp", "2.0")
    done = CliRunner().invoke(app, [*words, "--plan"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "Next: wsi-seg " + " ".join(words)


FAILING = [
    ("annotate", "store.zarr", "empty"),
    ("export", "pred.zarr", "--png", "theirs"),
    ("preview", "recipe.yaml"),
    ("stats", "damaged.zarr"),
]


@pytest.mark.parametrize("words", FAILING, ids=" ".join)
def test_what_failed_names_no_next_command(painted, words, monkeypatch):
    monkeypatch.chdir(painted)
    recipe = "name: x\nclasses: [{name: no-such}]\ndata: {stores: [store.zarr]}\nmpp: 1.0\n"
    (painted / "recipe.yaml").write_text(recipe)
    for folder, suffix, text in (("empty", "geojson", NOTHING), ("theirs", "png", "a drawing")):
        (painted / folder).mkdir(exist_ok=True)
        for slide in ("painted", "other"):
            (painted / folder / f"{slide}.{suffix}").write_text(text)
    shutil.copytree("store.zarr", "damaged.zarr", dirs_exist_ok=True)
    for chunk in (painted / "damaged.zarr" / "other").rglob("c/**/*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1, done.output
    assert "Next:" not in done.output
