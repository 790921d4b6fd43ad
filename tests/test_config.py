from pathlib import Path

import pytest

from wsi_seg.config import load_recipe, save_recipe
from wsi_seg.errors import ConfigError

MINIMAL = """
classes: [{name: nucleus}, {name: 'no'}]
data: {stores: [../store.zarr], validation: 0.25}
mpp: 0.5
optimizer: {lr: 1e-3}
"""


@pytest.fixture
def recipe_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return path


def test_defaults_and_paths(recipe_file):
    recipe = load_recipe(recipe_file)
    assert recipe.data.stores == (recipe_file.parent / "../store.zarr",)
    assert recipe.optimizer.lr == 0.001
    assert recipe.class_table.names == ("nucleus", "no")
    assert recipe.sampling.mix.objects == 0.5


def test_a_saved_recipe_reads_back_the_same(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, ["model.weights=start.safetensors", "data.validation=[a]"])
    assert recipe.model.start == recipe_file.parent / "start.safetensors"
    (tmp_path / "elsewhere").mkdir()
    save_recipe(recipe, tmp_path / "elsewhere" / "recipe.yaml")
    assert load_recipe(tmp_path / "elsewhere" / "recipe.yaml") == recipe


def test_augmentation_and_phases_read_back_the_same(recipe_file, tmp_path):
    steps = "[{affine: {p: 0.5}}, {one_of: {p: 1, of: [{blur: {p: 1}}, {noise: {p: 1}}]}}]"
    phases = "[{name: first}, {name: second, augment: [{hflip: {p: 0.5}}]}]"
    recipe = load_recipe(recipe_file, [f"augment={steps}", f"phases={phases}"])
    save_recipe(recipe, tmp_path / "saved.yaml")
    again = load_recipe(tmp_path / "saved.yaml")
    assert again == recipe
    assert again.stages[0].augment == recipe.augment
    assert len(again.stages[1].augment) == 1


def test_overrides_are_typed(recipe_file):
    recipe = load_recipe(
        recipe_file,
        ["train.epochs=3", "optimizer.lr=3e-4", "mpp=null", "classes.1.name=vessel", "name=no"],
    )
    assert (recipe.train.epochs, recipe.optimizer.lr, recipe.mpp) == (3, 3e-4, None)
    assert recipe.class_table.names == ("nucleus", "vessel")
    assert recipe.name == "no"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", r"unknown key 'train\.epoch'; nearest valid key: 'epochs'"),
        ("sampling.mix.objcts=1", r"'sampling\.mix\.objcts'; nearest valid key: 'objects'"),
        ("classes.0.colr='#ffffff'", r"nearest valid key: 'colour'"),
        ("optimiser.lr=1", r"nearest valid key: 'optimizer'"),
        ("zzz=1", r"valid keys: name, seed"),
        ("train.epochs=x", r"train\.epochs: .*integer"),
        ("train.epochs=1.5", r"train\.epochs: .*integer"),
        ("train.epochs='3'", r"train\.epochs: .*integer"),
        ("train.workers=true", r"train\.workers: .*integer"),
        ("optimizer.lr=.inf", r"optimizer\.lr: .*finite"),
        ("optimizer.lr=0", r"optimizer\.lr: .*greater than 0"),
        ("sampling.mix={objects: 0}", "all shares are 0"),
        ("loss={bce: 0, dice: 0}", "at least one above 0"),
        ("classes=[]", r"classes\.table: .*at least 1"),
        ("classes=[{name: a}, {name: a}]", "each name once"),
        ("classes.0.colour=red", "#rrggbb"),
        ("data.validation=abc", r"data\.validation"),
        ("data.validation=1.0", r"data\.validation: .*less than 1"),
        ("augment=heavyy", "'stas' or 'heavy'"),
        ("augment=[{noise: {std: [0.04, 0.01]}}]", r"0\.01\]; expected the smaller number first"),
        (
            "augment=[{one_of: {of: [{gamma: {limit: [9, 8]}}]}}]",
            "expected the smaller number first",
        ),
        ("augment=[{one_of: {of: [{blur: {p: 0}}]}}]", "got p 0 for all steps of one_of"),
        ("augment=[{elastic: {sigma: 0.5}}]", "greater than or equal to 1"),
        ("train.epochs", "expected KEY.KEY=VALUE"),
        ("classes.7.name=a", "not inside a section"),
        ("name.x=1", r"name: .*string"),
        ("name=[", "cannot read the value"),
        ("mpp=2020-01-01", "mpp: .*number"),
        ("patch_px=0256", r"patch_px: .*integer"),
        ("train.max_minutes=1:20", r"train\.max_minutes: .*number"),
    ],
)
def test_errors_of_invalid_settings_name_the_key(recipe_file, override, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe_file, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b", "'name' twice"),
        ("a: &a [1]\nb: *a", "alias"),
        ("- 1", "holds a list"),
        ("", "holds a NoneType"),
        ("[" * 5000, "is not a recipe"),
        ("\0", "is not a recipe"),
        ("!!python/object/apply:os.system ['true']", "is not a recipe"),
        ("mpp: 1", "classes: Field required; data: Field required"),
        ("x" * (2**20 + 1), "one page"),
        ("{[1]: 2}", "is not a recipe"),
        ("1: 2", "unknown key '1'"),
    ],
)
def test_files_that_are_not_recipes(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="there is no recipe"):
        load_recipe(Path(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="cannot read"):
        load_recipe(tmp_path / ("long" * 100))
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_recipe(tmp_path / "latin.yaml")


def test_a_collection_in_place_of_a_recipe_is_explained(tmp_path):
    (tmp_path / "d.zarr").mkdir()
    with pytest.raises(ConfigError, match="is a folder") as caught:
        load_recipe(tmp_path / "d.zarr")
    assert "expected a recipe" in str(caught.value)
    assert "data: {stores: [d.zarr]}" in str(caught.value)


@pytest.mark.parametrize("name", ["true positives", "1.5x", "falsetto", "3 classes", ".5."])
def test_words_that_start_like_a_number_or_boolean_are_text(recipe_file, name):
    assert load_recipe(recipe_file, [f"name={name}"]).name == name
