"""Spheres in mm become discs on the slices of their volume, whatever its origin and direction."""

import numpy as np
import pytest

from wsi_seg.annotations import AnnotationSets, read_for_slides
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Region
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.reading import Reading
from wsi_seg.progress import Silent
from wsi_seg.slides.volume import volume_grid
from wsi_seg.slides.window import OpenOptions
from wsi_seg.store import open_collection

sitk = pytest.importorskip("SimpleITK", reason="needs the extra `volume`")

SHAPE = (9, 40, 50)  # z, y, x


@pytest.fixture(params=[(1, 1), (-1, -1)], ids=["plain", "flipped"])
def volume(request, tmp_path):
    image = sitk.GetImageFromArray(np.zeros(SHAPE, np.int16))
    image.SetSpacing((0.5, 0.8, 2.0))
    image.SetOrigin((-20.0, 30.0, -100.0))
    image.SetDirection((request.param[0], 0, 0, 0, request.param[1], 0, 0, 0, 1))
    path = tmp_path / "1.2.7.mhd"
    sitk.WriteImage(image, str(path))
    return path, image


def write(tmp_path, place, diameter, series="1.2.7"):
    path = tmp_path / "annotations.csv"
    numbers = ",".join(f"{value}" for value in (*place, diameter))
    path.write_text(
        f"seriesuid,coordX,coordY,coordZ,diameter_mm\n{series},{numbers}\nother,1,2,3,4\n"
    )
    return path


def test_discs_are_where_the_sphere_is(volume, tmp_path):
    path, image = volume
    csv = write(tmp_path, image.TransformContinuousIndexToPhysicalPoint((30.0, 12.0, 4.0)), 9.0)
    # Its pixels are not square, so that the mpp has to be given.
    opening = OpenOptions(mpp=500.0)
    tile_slides([path], tmp_path / "s.zarr", opening=opening, progress=Silent())
    slides = open_collection(tmp_path / "s.zarr")
    reading = Reading(default_class="nodule", volumes={"1.2.7": volume_grid(path)})
    report = annotate(slides, [csv], reading=reading, progress=Silent())
    assert sorted(report.objects) == [f"1.2.7_z000{k}" for k in (2, 3, 4, 5, 6)]
    drawn = np.stack([
        slides[name].label("annotations").read(Region(level=0, y=0, x=0, height=40, width=50))
        if name in report.objects else np.zeros(SHAPE[1:], np.uint8)
        for name in slides.names()
    ])  # fmt: skip
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    # A volume that runs to the right and the front is shown turned round.
    if image.GetDirection()[0] < 0:
        x, y = SHAPE[2] - 1 - x, SHAPE[1] - 1 - y
    inside = ((x - 30) * 0.5) ** 2 + ((y - 12) * 0.8) ** 2 + ((z - 4) * 2.0) ** 2 <= 4.5**2
    assert ((drawn > 0) & inside).sum() / ((drawn > 0) | inside).sum() > 0.95


def test_a_tiny_sphere_gets_one_disc(volume, tmp_path):
    path, image = volume
    csv = write(tmp_path, image.TransformContinuousIndexToPhysicalPoint((30.0, 12.0, 3.4)), 0.1)
    volumes = {"1.2.7": volume_grid(path)}
    sets = read_for_slides(csv, {}, default_class="n", volumes=volumes)
    assert isinstance(sets, AnnotationSets)
    found = sets.by_slide
    assert list(found) == ["1.2.7_z0003"]
    assert found["1.2.7_z0003"].items[0].geometry.area >= 1


@pytest.mark.parametrize(
    ("place", "diameter", "reason"),
    [
        ((0, 0, 500), 3, "centre on slice 300"),
        ((0, 0, "x"), 3, "line 2"),
        ((0, 0, 0), -1, "above 0"),
        ((0, "nan", 0), 1, "finite"),
    ],
)
def test_wrong_rows_are_named(volume, tmp_path, place, diameter, reason):
    grids = {"1.2.7": volume_grid(volume[0])}
    with pytest.raises(AnnotationError, match=reason):
        read_for_slides(write(tmp_path, place, diameter), {}, default_class="n", volumes=grids)


def test_the_file_of_luna_is_read(shared_data):
    path = shared_data / "cxr-ct-misc" / "ct" / "luna_annos.csv"
    sets = read_for_slides(path, {}, default_class="nodule")
    assert isinstance(sets, AnnotationSets)
    assert sets.by_slide == {}
    assert sets.unmatched
