"""tips/README.md names keys, options and objects that exist."""

import importlib
import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from typer.main import get_command

from wsi_seg.cli.app import app
from wsi_seg.config import Recipe
from wsi_seg.config.augment import StepConfig

PAGE = (Path(__file__).parents[2] / "pipelines/tips/README.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "technique |" not in line]
NAMED = re.findall(r"`(recipe|cli|python): ([^`]+)`", PAGE)[
    3:
]  # the first are the placeholders of the introduction


def sections(annotation):
    """Return the recipe sections in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in sections(inner)]


def test_each_row_names_something_or_gives_a_reason():
    assert len(ROWS) > 60
    for row in ROWS:
        served = row.split(" | ")[1]
        assert "`" in served or "out of scope: " in served, row


@pytest.mark.parametrize("key", sorted({what for kind, what in NAMED if kind == "recipe"}))
def test_recipe_keys_exist(key):
    here: list[type[BaseModel]] = [Recipe]
    for part in key.split("."):
        found = [s.model_fields[part].annotation for s in here if part in s.model_fields]
        assert found, f"{key}: no {part}"
        here = sections(found[0])
        if part == "augment":
            here = [StepConfig]


@pytest.mark.parametrize("words", sorted({what for kind, what in NAMED if kind == "cli"}))
def test_commands_and_options_exist(words):
    command, options = get_command(app), words.split()
    while hasattr(command, "commands"):
        command = command.commands[options.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert set(options) <= known


@pytest.mark.parametrize("path", sorted({what for kind, what in NAMED if kind == "python"}))
def test_library_objects_exist(path):
    module, name = path.rsplit(".", 1)
    assert hasattr(importlib.import_module(module), name)


TESTS = "\n".join(
    path.read_text(encoding="utf-8")
    for path in sorted(Path(__file__).parents[1].rglob("test_*.py"))
    if path.parent.name != "pipelines"
)


@pytest.mark.parametrize(("kind", "what"), sorted(set(NAMED)))
def test_keys_and_options_of_techniques_are_used_in_tests(kind, what):
    """Its last word, a key, option, command or object, occurs in a test."""
    last = re.split(r"[. ]", what)[-1]
    word = last.removeprefix("--")
    words = {word, word.replace("-", "_"), last}
    assert any(re.search(rf"(?<![a-z]){re.escape(one)}(?![a-z])", TESTS) for one in words), what
