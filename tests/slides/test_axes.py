"""One chest, however its voxels are ordered in the file: the same slices, at the same places."""

import numpy as np
import pytest
import SimpleITK

from wsi_seg.geometry import Region
from wsi_seg.slides import find_slides, open_slide
from wsi_seg.slides.volume import volume_grid

SHAPE = (4, 30, 23)
SPACING = (0.8, 0.8, 2.5)
WHOLE = Region(level=0, y=0, x=0, height=30, width=23)


def chest():
    """Volume whose columns run to the left, rows to the back, slices to the head."""
    values = np.random.default_rng(0).integers(-1000, 400, SHAPE).astype(np.int16)
    image = SimpleITK.GetImageFromArray(values)
    image.SetSpacing(SPACING)
    image.SetOrigin((-20.0, 15.0, -80.0))
    return image


def slices_of(path):
    return [open_slide(one).read(WHOLE) for one in find_slides([path])]


@pytest.mark.parametrize("code", ["LPS", "RPS", "LAS", "RAI", "LPI", "PLS", "ARI", "PRS"])
def test_axial_volumes_are_shown_alike_whatever_the_order_of_their_voxels(tmp_path, code):
    SimpleITK.WriteImage(chest(), str(tmp_path / "plain.mha"))
    stored = SimpleITK.DICOMOrient(chest(), code)
    SimpleITK.WriteImage(stored, str(tmp_path / "other.mha"))
    for ours, plain in zip(
        slices_of(tmp_path / "other.mha"), slices_of(tmp_path / "plain.mha"), strict=True
    ):
        assert np.array_equal(ours, plain)
    grid, same = volume_grid(tmp_path / "other.mha"), volume_grid(tmp_path / "plain.mha")
    assert (grid.size, grid.spacing) == (same.size, pytest.approx(same.spacing))
    voxels = np.random.default_rng(1).uniform(0, 20, (9, 3))
    assert grid.world(voxels) == pytest.approx(same.world(voxels))
    there = [chest().TransformContinuousIndexToPhysicalPoint(v.tolist()) for v in voxels]
    assert grid.world(voxels) == pytest.approx(np.array(there))


def test_a_volume_that_is_not_axial_stays_as_it_is_stored(tmp_path):
    stored = SimpleITK.DICOMOrient(chest(), "PSR")  # slices from left to right
    SimpleITK.WriteImage(stored, str(tmp_path / "side.mha"))
    slides = find_slides([tmp_path / "side.mha"])
    values = SimpleITK.GetArrayFromImage(stored)
    assert len(slides) == len(values) == SHAPE[2]
    shown = open_slide(slides[3], mpp=1.0)
    assert (shown.pyramid.extent.height, shown.pyramid.extent.width) == values.shape[1:]
    assert volume_grid(tmp_path / "side.mha").size == stored.GetSize()
    for voxel in ([3, 2, 1], [0, 0, 0]):
        world = stored.TransformIndexToPhysicalPoint(voxel)
        found = volume_grid(tmp_path / "side.mha").world(np.array([voxel], float))[0]
        assert found == pytest.approx(world)


def test_slices_know_how_far_apart_they_are(tmp_path):
    SimpleITK.WriteImage(chest(), str(tmp_path / "ct.mha"))
    assert open_slide(tmp_path / "ct.mha" / "z0001").slice_mm == pytest.approx(2.5)
