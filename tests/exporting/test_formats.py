import gzip
import json
from dataclasses import replace

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.makers.memory import MemoryImage
from wsi_seg.annotations import AnnotationSets, read_for_slides
from wsi_seg.annotations.rle import decode_rle, encode_rle
from wsi_seg.classes import ClassTable
from wsi_seg.exporting.coco import write_coco
from wsi_seg.exporting.outlines import outlines
from wsi_seg.exporting.png import write_mask
from wsi_seg.exporting.rle import encode_label, write_rle_csv
from wsi_seg.exporting.run import export
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.exporting.tiff import write_ome_tiff
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.postprocess.rule import Rule
from wsi_seg.postprocess.table import read_table
from wsi_seg.progress import Silent
from wsi_seg.store import write_strip

CLASSES = ClassTable.named(["gland", "vessel"], ["#ff0000", "#00ff00"])


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.4, 1.0]), st.integers(500, 1030))
def test_bands_of_columns_leave_no_trace_in_runs(seed, share, width):
    mask = np.random.default_rng(seed).random((3, width)) < share
    label = MemoryImage(mask.astype(np.uint8), attributes={"classes": CLASSES.to_json()})
    found = dict(encode_label(label))
    text = encode_rle(mask, dialect="absolute")
    flat = np.array(text.split(), dtype=np.int64).reshape(-1, 2)
    np.testing.assert_array_equal(found["gland"][:, 0] + 1, flat[:, 0])
    np.testing.assert_array_equal(found["gland"][:, 1] - found["gland"][:, 0], flat[:, 1])
    assert len(found["vessel"]) == 0


@pytest.mark.parametrize("dialect", ["absolute", "relative"])
def test_rle_csv_comes_back_through_our_reader(tmp_path, dialect, make_prediction, rings):
    labels = rings()
    label = make_prediction(tmp_path, labels)["slide"].label("prediction")
    write_rle_csv(tmp_path / "a.csv", [("slide", label)], dialect=dialect)
    text = (tmp_path / "a.csv").read_text()
    extents = {"slide": Extent(height=700, width=300)}
    sets = read_for_slides(tmp_path / "a.csv", extents, dialect=dialect)
    assert isinstance(sets, AnnotationSets)
    found = sets.by_slide["slide"]
    region = Region(level=0, y=0, x=0, height=700, width=300)
    drawn = Rasterizer(found.items, CLASSES).draw(region, (1.0, 1.0))
    np.testing.assert_array_equal(drawn, labels)
    row = text.splitlines()[1].split(",")
    mask = decode_rle(row[4], height=700, width=300, dialect=dialect)
    np.testing.assert_array_equal(mask, labels == 1)


def test_mask_png_is_the_label_map_with_a_palette(tmp_path, make_prediction, rings):
    label = make_prediction(tmp_path, rings())["slide"].label("prediction")
    write_mask(tmp_path / "m.png", label)
    with Image.open(tmp_path / "m.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), rings())
        assert (picture.getpalette() or [])[3:9] == [255, 0, 0, 0, 255, 0]


def test_ome_tiff_loads_in_tifffile_and_openslide(tmp_path, make_prediction, rings):
    labels = np.tile(rings(), (2, 5))
    label = make_prediction(tmp_path, labels)["slide"].label("prediction")
    path = tmp_path / "l.ome.tif"
    write_ome_tiff(path, label, "slide")
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert len(tiff.series[0].levels) == len(label.pyramid.extents) == 2
        np.testing.assert_array_equal(tiff.series[0].asarray(), labels)
        assert 'PhysicalSizeX="1.0"' in (tiff.ome_metadata or "")
    with openslide.OpenSlide(path) as slide:
        assert slide.dimensions == (1500, 1400)
        region = np.asarray(slide.read_region((0, 0), 0, (1500, 1400)))
        np.testing.assert_array_equal(region[:, :, 0], labels)


def test_ome_tiff_of_probabilities_names_its_channels(tmp_path, make_prediction, rings):
    store = make_prediction(tmp_path, rings())["slide"]
    values = np.random.default_rng(0).integers(0, 256, (700, 300, 2), dtype=np.uint8)
    for y in (0, 512):
        write_strip(store.path, 0, y, values[y : y + 512])
    image = replace(store.image, attributes={"classes": CLASSES.to_json()})
    write_ome_tiff(tmp_path / "p.ome.tif", image, "slide")
    with tifffile.TiffFile(tmp_path / "p.ome.tif") as tiff:
        np.testing.assert_array_equal(tiff.series[0].asarray(), values.transpose(2, 0, 1))
        assert 'Name="gland"' in (tiff.ome_metadata or "")


def test_coco_keeps_holes_and_comes_back_through_our_reader(tmp_path, make_prediction, rings):
    labels = rings()
    label = make_prediction(tmp_path, labels, downsample=1.0)["slide"].label("prediction")
    path = tmp_path / "c.json"
    assert write_coco(path, [("slide", outlines(label))], CLASSES) == {"slide": 3}
    sets = read_for_slides(path, {"slide": Extent(height=700, width=300)})
    assert isinstance(sets, AnnotationSets)
    found = sets.by_slide["slide"]
    region = Region(level=0, y=0, x=0, height=700, width=300)
    drawn = Rasterizer(found.items, CLASSES).draw(region, (1.0, 1.0))
    np.testing.assert_array_equal(drawn, labels)


def test_a_rule_decides_what_is_exported_in_every_format(tmp_path, make_prediction, rings):
    labels = rings()
    predictions = make_prediction(tmp_path, labels)
    store = predictions["slide"]
    document = json.loads((store.path / "zarr.json").read_text())
    document["attributes"]["wsi_seg"]["classes"] = CLASSES.to_json()
    (store.path / "zarr.json").write_text(json.dumps(document))
    values = np.stack([(labels == n) * np.uint8(200) for n in (1, 2)], axis=2)
    for y in (0, 512):
        write_strip(store.path, 0, y, values[y : y + 512])
    out = tmp_path / "out"
    targets = ExportTargets(
        geojson=out / "g",
        png=out / "m",
        ome_tiff=out / "t",
        table=out / "o",
        rle=out / "r.csv",
        coco=out / "c.json",
        rule=Rule(min_object_area=5, unit="px"),
        packed=True,
    )
    report = export(predictions, None, targets, progress=Silent())
    assert report.objects == {"slide": 2}
    assert len(report.files) == 8
    expected = labels.copy()
    expected[600:602, 2:4] = 0
    np.testing.assert_array_equal(np.asarray(Image.open(out / "m" / "slide.png")), expected)
    table = read_table(out / "o" / "slide.parquet")
    assert sorted(table.class_name.tolist()) == ["gland", "vessel"]
    np.testing.assert_allclose(table.mean_probability, 200 / 255)
    with gzip.open(out / "g" / "slide.geojson.gz", "rt") as file:
        assert len(json.load(file)["features"]) == 2
    assert store.label_names() == ("decision", "prediction")
