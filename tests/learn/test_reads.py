"""A run reads each object table and each mask once, counted by a Python audit hook."""

import shutil
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wsi_seg.learn.sampler import patch_sampler
from wsi_seg.learn.split import split_slides
from wsi_seg.learn.train import train
from wsi_seg.masks.labels import write_mask
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection

FOLDS_AND_PHASES = (
    "data.validation=0.2",
    "data.folds=3",
    (
        "phases=[{name: first, train: {epochs: 1}},"
        " {name: second, patch_px: 64, train: {epochs: 1}, "
        " sampling: {mix: {objects: 1, tissue: 1}}},"
        " {name: third, train: {epochs: 1}, sampling: {mix: {objects: 1, boundary: 1}}}]"
    ),
)

# An audit hook cannot be removed, so it only counts while enabled.
_counted: list[Counter[str]] = []


def _count(event, arguments):
    if event == "open" and _counted and isinstance(arguments[0], str | Path):
        _counted[-1][str(arguments[0])] += 1


sys.addaudithook(_count)


@contextmanager
def opened():
    """Count how often each file is opened inside the block, by path."""
    _counted.append(Counter())
    try:
        yield _counted[-1]
    finally:
        _counted.pop()


def times_of(counts, collection, inside):
    """Count how often files under a path inside each slide were opened, by slide."""
    found: Counter[str] = Counter()
    for path, count in counts.items():
        if path.startswith(str(collection)) and inside in path:
            found[Path(path).relative_to(collection).parts[0]] += count
    return found


@pytest.fixture
def masked(slides, tmp_path):
    """Add a tissue mask with a single shard to each slide."""
    shutil.copytree(slides / "store.zarr", tmp_path / "store.zarr")
    for store in open_collection(tmp_path / "store.zarr"):
        extent = store.pyramid.extent
        mask = np.ones((extent.height // 2, extent.width // 2), dtype=bool)
        mask[:10] = False
        write_mask(store, mask, downsample=2.0)
    return tmp_path / "store.zarr"


def test_all_folds_and_phases_read_tables_and_masks_once(recipe_for, masked):
    recipe = recipe_for(*FOLDS_AND_PHASES, f"data.stores=[{masked}]")
    with opened() as counts:
        splits = split_slides(recipe)
        samplers = [
            patch_sampler(split.train, stage) for split in splits for stage in recipe.stages
        ]
    assert len(samplers) == 9
    assert times_of(counts, masked, "objects.json") == dict.fromkeys("abc", 1)
    assert times_of(counts, masked, "labels/tissue/1/c") == dict.fromkeys("abc", 1)
    # Masks are shared, not copied, and read-only.
    by_slide: dict[str, list[Any]] = {}
    for sampler in samplers:
        for one in sampler.maps:
            by_slide.setdefault(one.name, []).append(one)
            assert not one.tissue.flags.writeable
    assert {name: len(maps) for name, maps in by_slide.items()} == dict.fromkeys("abc", 6)
    for maps in by_slide.values():
        assert all(one.tissue is maps[0].tissue for one in maps)
        # Only the third phase uses the boundary layer.
        assert sum(one.covered is not None for one in maps) == 2


def test_a_whole_run_parses_each_table_once(recipe_for, masked, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    recipe = recipe_for(
        *FOLDS_AND_PHASES,
        f"data.stores=[{masked}]",
        "sampling.patches_per_epoch=8",
        "ensemble.out_of_fold=false",
    )
    with opened() as counts:
        report = train(recipe, tmp_path / "run", progress=Silent())
    torch.set_num_threads(before)
    assert len(report.folds) == 3
    assert times_of(counts, masked, "objects.json") == dict.fromkeys("abc", 1)


def test_other_cell_sizes_are_read_again(recipe_for, masked):
    recipe = recipe_for(f"data.stores=[{masked}]")
    smaller = recipe_for(f"data.stores=[{masked}]", "sampling.cell_um=8")
    train_slides = split_slides(recipe)[0].train
    coarse, fine = (patch_sampler(train_slides, one).maps[0] for one in (recipe, smaller))
    assert fine.tissue.shape[0] > 2 * coarse.tissue.shape[0]
