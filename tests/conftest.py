"""Fixtures every test may use."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Extent, dyadic_extents
from wsi_seg.store import create_collection, open_collection
from wsi_seg.testing.stores import write_image

settings.register_profile(
    "default", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "thorough", deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", settings.get_profile("thorough"), max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real slides next to the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not here")
    return SHARED


@pytest.fixture(scope="session")
def write_store(tmp_path_factory):
    """Write an image and its label as a store and open it."""

    def write(image, label, *, name="slide", mpp=0.5, classes=("gland", "vessel")):
        collection = tmp_path_factory.mktemp("data") / "store.zarr"
        create_collection(collection)
        extents = dyadic_extents(Extent.of(image.shape), 2)
        write_image(collection / name, image, {"kind": "slide"}, mpp=mpp, extents=extents)
        about = {"kind": "label", "classes": ClassTable.named(list(classes)).to_json()}
        truth = collection / name / "labels" / "annotations"
        write_image(truth, label, about, mpp=mpp, extents=extents)
        return open_collection(collection)[name]

    return write


@pytest.fixture(scope="session")
def pixels():
    """Image of odd size whose red is the row and green the column; label in blocks of ids."""
    height, width = 203, 151
    y, x = np.mgrid[:height, :width]
    image = np.stack([y, x, (y + x) // 2], axis=-1).astype(np.uint8)
    label = ((y // 20 + x // 30) % 3).astype(np.uint8)
    label[:5, :7] = 255
    return image, label


@pytest.fixture(scope="session")
def store(write_store, pixels):
    """The slide with its label ``annotations``."""
    return write_store(*pixels)
