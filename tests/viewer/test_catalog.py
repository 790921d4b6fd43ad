"""What opening a slide costs in a collection of many."""

import sys

import pytest

from wsi_seg.errors import StoreNotFoundError
from wsi_seg.store import open_collection, open_predictions
from wsi_seg.viewer.catalog import Catalog


@pytest.fixture
def listed():
    """Folders that are listed; a hook cannot be removed."""
    found, at_work = [], [True]

    def note(event, arguments):
        if at_work and event in ("os.listdir", "os.scandir"):
            found.append(str(arguments[0]))

    sys.addaudithook(note)
    yield found
    at_work.clear()


def test_opening_a_slide_does_not_list_the_collections(seen, listed):
    catalog = Catalog(open_collection(seen.store), open_predictions(seen.prediction), "truth")
    listed.clear()
    view = catalog.view("painted")
    assert view.found is not None
    assert not {str(seen.store), str(seen.prediction)} & set(listed)
    with pytest.raises(StoreNotFoundError, match="expected one of the list"):
        catalog.view("missing")
    assert not {str(seen.store), str(seen.prediction)} & set(listed)
