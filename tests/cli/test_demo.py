from pathlib import Path

import pytest

from wsi_seg import demo
from wsi_seg.config import load_recipe
from wsi_seg.errors import OutputError
from wsi_seg.progress import Silent
from wsi_seg.testing.tissue import CLASSES


def test_the_recipe_fits_what_the_demo_writes(tmp_path: Path):
    (tmp_path / "recipe.yaml").write_text(demo.RECIPE)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    assert recipe.class_table.names == CLASSES.names
    assert recipe.data.label == demo.LABEL
    assert recipe.data.stores == (tmp_path.resolve() / "learn.zarr",)
    assert isinstance(recipe.data.train, tuple)
    assert isinstance(recipe.data.validation, tuple)
    assert (*recipe.data.train, *recipe.data.validation) == demo.LEARNED
    assert recipe.train.max_minutes is None  # a busy machine takes longer, and learns as much


def test_the_scored_slide_is_large_and_not_learned_from():
    name, height, width, seed = demo.SLIDES[-1]
    assert name not in demo.LEARNED
    assert seed not in {slide[3] for slide in demo.SLIDES[:-1]}
    assert width >= 12_000
    assert height >= 9_000


def test_an_unwritable_folder_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="--out"):
        demo.run_demo(tmp_path / "file" / "demo", say=print, progress=Silent())
