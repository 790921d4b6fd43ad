"""Levels of an image: opened by the record of the group, checked when they are read."""

import json
import pickle
import shutil

import pytest

from wsi_seg.errors import StoreError, StoreIncompleteError, WsiSegError
from wsi_seg.geometry import Region
from wsi_seg.store import open_collection
from wsi_seg.store.arrays import read_level_array
from wsi_seg.testing.stores import make_store

NAME = "slide"


@pytest.fixture
def group(tmp_path):
    make_store(tmp_path / "s.zarr", NAME, 300, 5000)
    return tmp_path / "s.zarr" / NAME


def opened(group):
    return open_collection(group.parent)[group.name].image


def edit(group, **values):
    """Change what wsi_seg stored about the image; None removes it."""
    document = json.loads((group / "zarr.json").read_bytes())
    ours = {**document["attributes"]["wsi_seg"], **values}
    document["attributes"]["wsi_seg"] = {k: v for k, v in ours.items() if v is not None}
    (group / "zarr.json").write_text(json.dumps(document))


def test_a_group_records_what_its_levels_are(group):
    image = opened(group)
    assert len(image.arrays) == 4
    arrays = [read_level_array(group / str(level)) for level in range(4)]
    assert image.pyramid.extents == tuple(array.extent for array in arrays)
    assert image.channels == arrays[0].channels == 3
    assert list(image.arrays) == arrays
    assert image.arrays[-1:] == arrays[-1:]


def test_damage_of_a_level_is_noticed_where_the_level_is_read(group):
    (group / "1/zarr.json").write_text("{")
    (group / "2/zarr.json").unlink()
    image = opened(group)
    assert image.read(Region(level=0, y=0, x=0, height=9, width=9)).any()
    with pytest.raises(StoreError, match=r"1/zarr\.json is not JSON"):
        image.read(Region(level=1, y=0, x=0, height=9, width=9))
    with pytest.raises(StoreIncompleteError, match=r"slide/2 has no zarr\.json"):
        image.chunk(2)
    with pytest.raises(StoreError, match=r"1/zarr\.json is not JSON"):
        list(image.arrays)


def test_a_level_of_another_shape_than_recorded_is_refused(group):
    shutil.copyfile(group / "1/zarr.json", group / "0/zarr.json")
    image = opened(group)
    with pytest.raises(StoreError, match=r"0/zarr\.json: got shape \[3, 150, 2500\]; expected"):
        image.read(Region(level=0, y=0, x=0, height=9, width=9))


def test_a_store_without_the_record_is_opened_by_its_arrays(group):
    recorded = opened(group)
    edit(group, shapes=None)
    image = opened(group)
    assert (image.pyramid, image.channels) == (recorded.pyramid, recorded.channels)
    assert list(image.arrays) == list(recorded.arrays)
    (group / "3/zarr.json").unlink()
    with pytest.raises(StoreIncompleteError, match=r"slide/3 has no zarr\.json"):
        opened(group)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ([[3, 300, 5000]], "one for each of 4 levels"),
        ([[3, 300, 5000], [150, 2500], [3, 75, 1250], [3, 38, 625]], "the same channels"),
        ([[3, 2**20, 2**20], *[[3, 9, 9]] * 3], "level pixels"),
        ([[3, 9, 9], [3, 10, 10], [3, 5, 5], [3, 2, 2]], "no larger"),
        ([[3, 0, 5000]] * 4, "greater than 0"),
        ("many", "valid list"),
    ],
)
def test_a_damaged_record_is_refused(group, shapes, said):
    edit(group, shapes=shapes)
    with pytest.raises(WsiSegError, match=said):
        opened(group)


def test_what_was_read_of_levels_travels_with_the_image(group):
    image = opened(group)
    image.chunk(0)
    copy = pickle.loads(pickle.dumps(image))
    assert copy == image
    assert hash(copy.arrays) == hash(image.arrays)
    (group / "0/zarr.json").unlink()
    assert copy.chunk(0) == image.chunk(0)


def test_an_image_that_was_written_again_is_another_one(group):
    before = opened(group)
    edit(group)
    assert opened(group) != before
