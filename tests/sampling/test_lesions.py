"""Nodules are drawn by their size, whatever the number of slices that show them."""

import json
from collections import Counter

import numpy as np
import pytest

from wsi_seg.config import Recipe
from wsi_seg.config.sampling import SamplingConfig
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.reading import Reading
from wsi_seg.sampling import PatchSampler
from wsi_seg.sampling.maps import TrainingSlide
from wsi_seg.slides.volume import VolumeGrid
from wsi_seg.store import open_collection
from wsi_seg.testing.stores import make_store

SLICES, SIDE = 44, 60
UNTURNED = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SIZES = {"edges_mm": [10, 30, 100], "repeats": [4, 3, 1]}
PATCH = 8


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """Slices 1 mm apart, 1 mm per pixel, with nodules of 5, 12 and 40 mm."""
    folder = tmp_path_factory.mktemp("lesions")
    for z in range(SLICES):
        make_store(folder / "s.zarr", f"ct_z{z:04d}", SIDE, SIDE, mpp=1000.0)
    (folder / "nodules.csv").write_text(
        "seriesuid,coordX,coordY,coordZ,diameter_mm\nct,6,6,30,5\nct,52,10,12,12\nct,30,36,22,40\n"
    )
    grid = VolumeGrid((SIDE, SIDE, SLICES), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), UNTURNED)
    reading = Reading(default_class="nodule", volumes={"ct": grid})
    store = open_collection(folder / "s.zarr")
    annotate(store, [folder / "nodules.csv"], reading=reading).require_whole()
    labelled = [s for s in store if "annotations" in s.label_names()]
    return [TrainingSlide.of(s, "annotations") for s in labelled]


def recipe_of(**sampling):
    values = {
        "classes": {"table": [{"name": "nodule"}]},
        "data": {"stores": ["s.zarr"]},
        "mpp": 1000.0,
        "sampling": {"mix": {"objects": 1}, "patches_per_epoch": None, **sampling},
    }
    return Recipe.model_validate_json(json.dumps(values))


def draws_by_diameter(slides, recipe, epochs):
    maps = [slide.map(recipe, (PATCH, PATCH)) for slide in slides]
    sampler = PatchSampler(maps, recipe.sampling, sides=np.full((len(maps), 2), PATCH), seed=0)
    diameters = np.concatenate([m.diameters_mm for m in maps])
    drawn = [sampler.epoch(epoch) for epoch in range(epochs)]
    of = Counter(diameters[np.concatenate([one.object_id for one in drawn])].tolist())
    return of, len(sampler), drawn


def test_nodules_are_drawn_by_their_own_diameter_not_by_that_of_their_discs(slides):
    """4 : 3 : 1 in each epoch, although the largest is on 40 slices and the smallest on 5."""
    found, length, drawn = draws_by_diameter(slides, recipe_of(unit="lesion", sizes=SIZES), 60)
    assert length == 8
    assert found == {5.0: 4 * 60, 12.0: 3 * 60, 40.0: 60}
    large = np.concatenate([one.slide[one.layer == 0] for one in drawn])
    assert len(set(large.tolist())) > 30  # any of its slices


def test_discs_are_repeated_by_the_diameter_of_their_nodule(slides):
    """With unit object, the repeats of each disc depend on its nodule, not on the disc."""
    found, length, _ = draws_by_diameter(slides, recipe_of(sizes=SIZES), 1)
    discs: Counter[float] = Counter()
    for slide in slides:
        discs.update(slide.objects.diameter_mm.tolist())
    assert found == {5.0: 4 * discs[5.0], 12.0: 3 * discs[12.0], 40.0: discs[40.0]}
    assert length == sum(found.values())


def test_the_probability_of_a_lesion_is_divided_among_its_slices(slides):
    recipe = recipe_of(unit="lesion")
    maps = [slide.map(recipe, (PATCH, PATCH)) for slide in slides]
    sampler = PatchSampler(
        maps, SamplingConfig(mix=recipe.sampling.mix, patches_per_epoch=30_000, unit="lesion"),
        sides=np.full((len(maps), 2), PATCH), seed=1,
    )  # fmt: skip
    chances = sampler._turns.chances
    seen = np.bincount(sampler.epoch(0).object_id, minlength=len(chances)) / 30_000
    assert chances.sum() == pytest.approx(1)
    assert np.abs(seen - chances).max() < 0.01


def test_objects_without_a_lesion_are_lesions_of_their_own(slides):
    recipe = recipe_of(unit="lesion")
    plain = []
    for slide in slides:
        one = slide.map(recipe, (PATCH, PATCH))
        plain.append(type(one)(**{f: getattr(one, f) for f in one.__slots__ if f != "lesions"}))
    sampler = PatchSampler(plain, recipe.sampling, sides=np.full((len(plain), 2), PATCH), seed=0)
    assert len(sampler) == sum(len(one.boxes) for one in plain)
