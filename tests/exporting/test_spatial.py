"""Exported SpatialData stores, opened by spatialdata itself."""

import warnings

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of spatialdata and what it imports
    import spatialdata

from wsi_seg.exporting.outlines import outlines
from wsi_seg.exporting.spatial import write_spatialdata

pytestmark = pytest.mark.filterwarnings("ignore")  # of spatialdata and what it needs


def test_spatialdata_opens_labels_shapes_and_table(tmp_path, make_prediction, rings):
    labels = np.tile(rings(), (2, 5))
    store = make_prediction(tmp_path, labels)["slide"]
    objects = outlines(store.label("prediction"), min_area_um2=5)
    slide = tmp_path / "store.zarr" / "slide"
    write_spatialdata(tmp_path / "out" / "slide.zarr", objects, "slide", slide)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["slide.zarr"]
    data = spatialdata.read_zarr(tmp_path / "out" / "slide.zarr")
    assert data.attrs["slide"] == {"name": "slide", "store": str(slide)}
    classes = spatialdata.get_pyramid_levels(data["classes"], n=0)
    np.testing.assert_array_equal(classes.to_numpy(), labels)
    numbers = spatialdata.get_pyramid_levels(data["objects"], n=0).to_numpy()
    assert numbers.dtype == np.uint32
    table = data["measurements"]
    assert len(table) == numbers.max() == 30
    first = table[table.obs["object"] == 1]
    assert first.obs["class"].tolist() == ["vessel"]
    np.testing.assert_allclose(first[:, "area"].X, 800)  # pixels of 1 um
    shapes = data["outlines"]
    assert len(shapes) == 20  # without specks
    # Outlines and pixels are at one place in um.
    extents = [spatialdata.get_extent(data[name]) for name in ("classes", "outlines")]
    assert extents[0]["x"][1] == 1500
    assert extents[1]["x"][1] == pytest.approx(1500 - 30, abs=1)
