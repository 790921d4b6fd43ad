"""DICOM slides: the pixels, levels and mpp that wsidicom, another reader, finds."""

import numpy as np
import pytest
import wsidicom

from tests.makers.coordinates import coordinate_pixels
from tests.makers.dicoms import write_dicom_level
from wsi_seg.geometry import Extent, Region
from wsi_seg.slides import open_slide

# Levels are halves: wsidicom knows no others.
EXTENTS = (Extent(height=203, width=333), Extent(height=101, width=166))


@pytest.mark.parametrize("frames", ["raw", "jpeg2000"])
def test_both_readers_find_the_same(tmp_path, frames):
    for level, extent in enumerate(EXTENTS):
        pixels, mpp = coordinate_pixels(extent.region(level), extent), 0.25 * 2**level
        path = tmp_path / f"{level}.dcm"
        write_dicom_level(path, pixels, number=level, frames=frames, mpp=mpp)
    with wsidicom.WsiDicom.open(tmp_path) as theirs, open_slide(tmp_path) as ours:
        assert (theirs.size.height, theirs.size.width) == (203, 333)
        assert theirs.mpp.width == pytest.approx(ours.pyramid.mpp)
        for level, size in enumerate(EXTENTS):
            region = Region(level=level, y=40, x=50, height=57, width=size.width - 60)
            found = np.asarray(
                theirs.read_region((region.x, region.y), level, (region.width, region.height))
            )
            assert np.array_equal(ours.read(region), found[..., :3])
