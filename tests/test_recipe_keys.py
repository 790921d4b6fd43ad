"""The reference of recipe keys: complete, true of the models, and the page that shows it."""

import functools
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from wsi_seg.cli.app import app
from wsi_seg.config import load_recipe, save_recipe
from wsi_seg.config.describe import recipe_keys, recipe_markdown, recipe_schema
from wsi_seg.config.text import read_yaml

ROOT = Path(__file__).resolve().parents[1]
RECIPES = sorted(ROOT.glob("pipelines/*/recipe*.yaml"))
MINIMAL = "classes: [{name: a}]\ndata: {stores: [s.zarr]}\nmpp: 0.5\n"
KEYS = {row.key: row for row in recipe_keys()}


@pytest.fixture(scope="module")
def checker():
    jsonschema.Draft202012Validator.check_schema(recipe_schema())
    return jsonschema.Draft202012Validator(recipe_schema())


@pytest.fixture
def minimal(tmp_path):
    (tmp_path / "recipe.yaml").write_text(MINIMAL)
    return load_recipe(tmp_path / "recipe.yaml")


def test_the_page_is_up_to_date():
    page = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
    assert page == recipe_markdown(), "run: wsi-seg recipe --markdown > docs/recipe.md"


def test_every_key_has_a_description():
    assert len(KEYS) == len(recipe_keys()) > 150
    for key, row in KEYS.items():
        assert row.kind, key
        assert re.match(r"[A-Z0-9`-].*\.$", row.text), (key, row.text)


def test_required_keys():
    top = {key for key, row in KEYS.items() if row.default is None and "." not in key}
    assert top == {"classes", "data", "mpp"}


def test_defaults_are_those_of_a_minimal_recipe(minimal):
    values = minimal.model_dump(mode="json")
    compared = 0
    for key, row in KEYS.items():
        parts = key.split(".")
        parents = [".".join(parts[:end]) for end in range(1, len(parts))]
        # The default of a section goes before those of its keys; lists are empty here.
        if not row.default or "[]" in key or any(KEYS[parent].default for parent in parents):
            continue
        found = functools.reduce(lambda inner, part: inner[part], parts, values)
        default = read_default(row.default)
        if isinstance(default, dict):
            found = {name: found[name] for name in default}
        assert found == default, key
        compared += 1
    assert compared > 50


def read_default(text):
    try:
        return json.loads(text)  # YAML 1.1 takes 1e-05 for text
    except ValueError:
        return yaml.safe_load(text)


def test_numbers_with_a_unit_have_it_in_the_reference():
    assert KEYS["mpp"].unit == "um per pixel"
    for key, row in KEYS.items():
        for suffix, unit in (("px", "pixel"), ("um", "um"), ("mm", "mm"), ("minutes", "minutes")):
            if re.search(rf"(_|\b){suffix}$", key):
                assert unit in row.unit, key


def test_defaults_of_sections():
    assert yaml.safe_load(KEYS["sampling.mix"].default or "") == {
        "objects": 0.5, "tissue": 0.4, "background": 0.1,
    }  # fmt: skip
    assert KEYS["loss.tversky"].default == ""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_schema_accepts_the_recipes_of_the_pipelines(checker, path):
    checker.validate(read_yaml(path))


def test_the_schema_accepts_a_saved_recipe(checker, minimal, tmp_path):
    save_recipe(minimal, tmp_path / "saved.yaml")
    checker.validate(read_yaml(tmp_path / "saved.yaml"))


@pytest.mark.parametrize(
    "change",
    [{"sed": 1}, {"train": {"epochs": 0}}, {"loss": {"dice": -1}}, {"augment": "heavyy"},
     {"classes": []}, {"mpp": 0}],
    ids=str,
)  # fmt: skip
def test_the_schema_refuses_what_loading_refuses(checker, change):
    with pytest.raises(jsonschema.ValidationError):
        checker.validate(yaml.safe_load(MINIMAL) | change)


def run(*words):
    done = CliRunner().invoke(app, ["recipe", *words])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_every_key_within_80_columns():
    lines = run().splitlines()
    assert max(map(len, lines)) <= 80
    assert [line for line in lines[:-1] if line[0] != " "] == list(KEYS)
    one = run("train").splitlines()
    assert one[0] == "train"
    assert "(integer >= 1; default 8; unit: epochs)" in map(str.strip, one)
    assert not any(line.startswith("augment") for line in one)


def test_other_output_formats_of_the_command():
    assert json.loads(run("--schema")) == recipe_schema()
    assert run("--markdown") == recipe_markdown()
    assert json.loads(run("--schema", "--json"))["schema"] == recipe_schema()
    (row,) = json.loads(run("train.ema", "--json"))["keys"]
    assert row["default"] == "0.99"


def test_an_unknown_key_is_an_error():
    done = CliRunner().invoke(app, ["recipe", "train.epoch"])
    assert done.exit_code == 1
    assert "got 'train.epoch'; expected a key of a recipe" in done.stderr
