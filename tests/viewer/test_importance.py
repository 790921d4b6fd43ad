import numpy as np
import pytest

from wsi_seg.geometry import Region
from wsi_seg.masks.objects import read_objects
from wsi_seg.store import open_collection
from wsi_seg.viewer.importance import importance, importance_reader


def test_objects_draw_more_than_tissue_and_tissue_more_than_background(seen):
    (store,) = open_collection(seen.store)
    tissue = store.label("tissue")
    density = importance(store, tissue, "annotations")
    assert density.sum() == pytest.approx(1)
    rows, columns = density.shape
    assert (rows, columns) == (33, 42)  # cells of 64 px
    box = read_objects(store, "annotations").bbox
    centre = ((box[:, :2] + box[:, 2:]) / 2 * (rows / 2100, columns / 2700)).astype(int)
    objects = density[centre[:, 0], centre[:, 1]]
    assert objects.min() > np.median(density)
    bare = importance(store, tissue, None)
    assert bare.sum() == pytest.approx(0.5)
    assert (density >= bare).all()


def test_the_picture_is_the_map_enlarged(seen):
    (store,) = open_collection(seen.store)
    tissue = store.label("tissue")
    read = importance_reader(store, tissue, "annotations")
    extent = tissue.pyramid.extent
    whole = read(Region(level=0, y=0, x=0, height=extent.height, width=extent.width))
    assert whole.shape == (extent.height, extent.width)
    assert whole.max() == 255
    part = read(Region(level=0, y=37, x=51, height=20, width=30))
    assert np.array_equal(part, whole[37:57, 51:81])
