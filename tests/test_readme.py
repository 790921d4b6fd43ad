"""What the README shows is true of the code."""

import re
import runpy
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer.main

from wsi_seg.cli.app import app
from wsi_seg.config import load_recipe
from wsi_seg.testing.painted import paint_prediction
from wsi_seg.testing.tissue import CLASSES

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
LINES = re.findall(r"^ {4}wsi-seg (.+?)(?:  +#.*)?$", README, re.MULTILINE)


def test_the_recipe_is_valid(tmp_path):
    (text,) = re.findall(r"```yaml\n(.+?)```", README, re.DOTALL)
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(tmp_path / "recipe.yaml").class_table.names == ("gland",)


def test_the_lines_of_python_run(tmp_path, monkeypatch, capsys):
    paint_prediction(tmp_path)
    (tmp_path / "recipe.yaml").write_text(
        f"""
        classes: [{", ".join(f"{{name: {name}}}" for name in CLASSES.names)}]
        data: {{stores: [store.zarr], validation: 0}}
        mpp: 4.0
        patch_px: 64
        model: {{encoder: tu-mobilenetv3_small_050, weights: null}}
        sampling: {{patches_per_epoch: 4}}
        train: {{epochs: 1, batch_size: 2, workers: 0}}
        """
    )
    (text,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    (tmp_path / "lines.py").write_text(text)
    shutil.rmtree(tmp_path / "pred.zarr", ignore_errors=True)
    monkeypatch.chdir(tmp_path)
    runpy.run_path("lines.py")
    assert "per slide" in capsys.readouterr().out


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_shown_parses(line):
    verb, *words = shlex.split(line)
    program: Any = typer.main.get_command(app)
    command = program.commands[verb]
    command.make_context(verb, words, resilient_parsing=False)


def test_command_lines_were_found():
    assert len(LINES) >= 5


def test_every_folder_named_exists():
    root = Path(__file__).resolve().parents[1]
    for name in re.findall(r"`(\w+)/`", README.split("## Where things are")[1]):
        assert (root / name).is_dir(), name
