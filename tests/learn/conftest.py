"""Small collections of slides with dark discs as objects."""

import numpy as np
import pytest
from shapely.geometry import Point

from tests.cards import make_card
from wsi_seg.annotations import Annotation, Annotations
from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Extent, dyadic_extents
from wsi_seg.masks.labels import write_labels
from wsi_seg.store import create_collection, open_collection
from wsi_seg.testing.stores import write_image


def write_slide(collection, name, seed, *, labelled=True, kinds=("disc",)):
    rng = np.random.default_rng(seed)
    height, width = 161 + 10 * seed, 193
    image = rng.normal(200, 15, (height, width, 3))
    y, x = np.mgrid[:height, :width] + 0.5
    items = []
    for number in range(12):
        kind = number % len(kinds)
        cy, cx, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(10, 20)
        image[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] -= ((80, 100, 30), (0, 30, 120))[kind]
        items.append(Annotation(Point(cx, cy).buffer(radius), kinds[kind], "test"))
    pixels = image.clip(0, 255).astype(np.uint8)
    extents = dyadic_extents(Extent.of(pixels.shape), 2)
    write_image(collection / name, pixels, {"kind": "slide"}, extents=extents)
    if labelled:
        store = open_collection(collection)[name]
        classes = ClassTable.named([*kinds, "unseen"])
        write_labels(store, Annotations(tuple(items), ()), classes, "annotations")


@pytest.fixture(scope="session")
def slides(tmp_path_factory):
    """Write a folder with ``store.zarr``: slides a, b and c with labels, d without."""
    folder = tmp_path_factory.mktemp("slides")
    create_collection(folder / "store.zarr")
    for seed, name in enumerate("abc"):
        write_slide(folder / "store.zarr", name, seed)
    write_slide(folder / "store.zarr", "d", 9, labelled=False)
    return folder


@pytest.fixture
def recipe_for(slides):
    """Return a function that builds a small recipe for these slides, with overrides."""
    from wsi_seg.config import load_recipe

    path = slides / "recipe.yaml"
    path.write_text(
        """
classes: [{name: disc}]
data: {stores: [store.zarr], validation: [c]}
mpp: 1.0
patch_px: 32
sampling: {patches_per_epoch: 32, mix: {objects: 0.6, tissue: 0.4}}
model: {encoder: tu-test_efficientnet, weights: null}
optimizer: {lr: 5e-3}
train: {epochs: 3, batch_size: 8, precision: fp32, workers: 0}
"""
    )
    return lambda *settings: load_recipe(path, settings)


@pytest.fixture
def card_of():
    """Return a function that builds the card of a recipe's network."""
    return lambda recipe: make_card(
        architecture=recipe.model.architecture,
        encoder=recipe.model.encoder,
        classes=recipe.class_table,
        mpp=recipe.mpp,
        tile_px=recipe.patch_px,
    )
