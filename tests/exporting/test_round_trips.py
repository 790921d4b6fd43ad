"""Exports read back by our own readers, and the same whatever the strips they were made of."""

from dataclasses import fields

import numpy as np
import pytest
import shapely
import tifffile
from scipy import ndimage

from wsi_seg.annotations import AnnotationSets, read_annotations, read_for_slides
from wsi_seg.classes import ClassTable
from wsi_seg.exporting.coco import write_coco
from wsi_seg.exporting.geojson import write_geojson
from wsi_seg.exporting.outlines import outlines
from wsi_seg.exporting.png import write_mask
from wsi_seg.exporting.tiff import write_ome_tiff
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.outlines import outline_mask
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.postprocess.objects import ObjectTable, Scale, measure
from wsi_seg.postprocess.strips import label_strips
from wsi_seg.slides import open_slide
from wsi_seg.store import write_strip

CLASSES = ClassTable.named(["gland", "vessel"], ["#ff0000", "#00ff00"])


@pytest.mark.parametrize("level", [0, 1])
def test_ome_tiff_comes_back_at_every_level(tmp_path, make_prediction, rings, level):
    labels = np.tile(rings(), (2, 5))
    label = make_prediction(tmp_path, labels)["slide"].label("prediction")
    write_ome_tiff(tmp_path / "l.ome.tif", label, "slide")
    region = Region(level=level, y=317, x=500, height=301, width=233)
    found = tifffile.imread(tmp_path / "l.ome.tif", series=0, level=level)
    np.testing.assert_array_equal(found[region.slices], label.read(region))


def test_probabilities_come_back_with_all_their_classes(tmp_path, make_prediction, rings):
    store = make_prediction(tmp_path, rings())["slide"]
    values = np.random.default_rng(0).integers(0, 256, (700, 300, 2), dtype=np.uint8)
    for y in (0, 512):
        write_strip(store.path, 0, y, values[y : y + 512])
    object.__setattr__(store.image, "attributes", {"classes": CLASSES.to_json()})
    write_ome_tiff(tmp_path / "p.ome.tif", store.image, "slide")
    found = tifffile.imread(tmp_path / "p.ome.tif", series=0, level=0)
    np.testing.assert_array_equal(found, np.moveaxis(values, -1, 0))


def test_label_maps_come_back_as_slides_and_as_masks(tmp_path, make_prediction, rings):
    labels = rings()
    label = make_prediction(tmp_path, labels)["slide"].label("prediction")
    write_ome_tiff(tmp_path / "l.ome.tif", label, "slide")
    write_mask(tmp_path / "m.png", label)
    whole = Region(level=0, y=0, x=0, height=700, width=300)
    for path in (tmp_path / "l.ome.tif", label.path):  # the second is the OME-Zarr label itself
        with open_slide(path) as slide:
            np.testing.assert_array_equal(slide.read(whole)[:, :, 0], labels)
            assert slide.pyramid.mpp == pytest.approx(1.0)
    for path in (tmp_path / "l.ome.tif", tmp_path / "m.png"):
        found = outline_mask(path, Extent(height=700, width=300), class_names=CLASSES.names)
        drawn = Rasterizer(found.items, CLASSES).draw(whole, (1.0, 1.0))
        np.testing.assert_array_equal(drawn, labels)


@pytest.mark.parametrize("height", [256, 4096])
def test_a_ring_that_spans_the_slide_keeps_its_hole_in_every_export(
    tmp_path, make_prediction, monkeypatch, height
):
    monkeypatch.setattr("wsi_seg.exporting.outlines._STRIP_PX", height)
    labels = np.zeros((4700, 64), np.uint8)
    labels[3:4690, 5:60] = 1
    labels[30:4650, 20:41] = 0
    labels[2000:2600, 25:35] = 2  # another object in the hole, and it has one
    labels[2100:2500, 28:31] = 0
    label = make_prediction(tmp_path, labels, downsample=1.0)["slide"].label("prediction")
    write_geojson(tmp_path / "a.geojson", outlines(label, simplify_um=0))
    found = read_annotations(tmp_path / "a.geojson")
    assert sorted(
        (item.geometry.area, shapely.get_num_interior_rings(item.geometry)) for item in found.items
    ) == [
        (600 * 10 - 400 * 3, 1),
        (4687 * 55 - 4620 * 21, 1),
    ]
    write_coco(tmp_path / "c.json", [("s", outlines(label))], CLASSES)
    extents = {"s": Extent(height=4700, width=64)}
    sets = read_for_slides(tmp_path / "c.json", extents)
    assert isinstance(sets, AnnotationSets)
    coco = sets.by_slide["s"]
    whole = Region(level=0, y=0, x=0, height=4700, width=64)
    for items in (found.items, coco.items):
        drawn = Rasterizer(items, CLASSES).draw(whole, (1.0, 1.0))
        np.testing.assert_array_equal(drawn, labels)


def test_polygons_and_tables_from_strips_of_256_and_of_4096_rows_are_the_same(
    tmp_path, make_prediction, monkeypatch
):
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(size=(4300, 90)), 4)
    labels = ((noise > 0.01) * (1 + (np.arange(90) > 60))).astype(np.uint8)
    label = make_prediction(tmp_path, labels)["slide"].label("prediction")
    polygons, tables = [], []
    for height in (256, 4096):
        monkeypatch.setattr("wsi_seg.exporting.outlines._STRIP_PX", height)
        found = [(entry.name, polygon.normalize().wkb) for entry, polygon in outlines(label)]
        polygons.append(sorted(found))
        source = label_strips(label, strip_px=height)
        tables.append(measure(source, CLASSES, Scale(2.0, 1.0)))
    assert len(polygons[0]) == len(tables[0]) > 100
    assert polygons[0] == polygons[1]
    for field in fields(ObjectTable):
        one, other = (getattr(table, field.name) for table in tables)
        np.testing.assert_array_equal(one, other)
