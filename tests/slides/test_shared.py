"""The conformance suite on real files of every family, where they are present."""

import logging

import pytest

from wsi_seg.errors import SlideError
from wsi_seg.slides import find_slides, open_slide
from wsi_seg.testing.conformance import check_slide

# Larger files are compared with other readers elsewhere; reading them again and again takes long.
_MOST_PIXELS = 7_000_000


@pytest.fixture(autouse=True)
def _quiet_tifffile(monkeypatch):
    monkeypatch.setattr(logging.getLogger("tifffile"), "disabled", True)


@pytest.mark.parametrize(
    ("folder", "at_least"),
    [
        ("slides-small", 5),
        ("cxr-ct-misc", 4),
        ("dicom", 8),
        ("hostile-tiff", 40),
        ("glomeruli-polygons", 1),
    ],
)
def test_every_readable_file_conforms(shared_data, folder, at_least):
    checked = 0
    for path in find_slides([shared_data / folder]):
        levels = _levels(path)
        if levels:
            check_slide(path, levels)
            checked += 1
    assert checked >= at_least


def _levels(path):
    """All pixels of a small, complete file; damaged ones are refused where they are damaged."""
    try:
        with open_slide(path) as slide:
            if slide.pyramid.extent.area > _MOST_PIXELS:
                return []
            return [slide.read(extent.region(i)) for i, extent in enumerate(slide.pyramid.extents)]
    except SlideError:
        return []
