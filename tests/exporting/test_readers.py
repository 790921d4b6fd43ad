"""What other programs' own readers make of exports."""

import csv
import json
import uuid
from xml.etree import ElementTree

import geopandas
import numpy as np
import pyarrow.parquet
import pytest
import rasterio.features
import shapely
import tifffile
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO

import wsi_seg.exporting.outlines as outlines_module
from wsi_seg.annotations import read_annotations
from wsi_seg.classes import ClassTable
from wsi_seg.errors import OutputError
from wsi_seg.exporting.asap import write_asap
from wsi_seg.exporting.coco import write_coco
from wsi_seg.exporting.geojson import write_geojson
from wsi_seg.exporting.geoparquet import write_geoparquet
from wsi_seg.exporting.outlines import outlines
from wsi_seg.exporting.rle import write_rle_csv
from wsi_seg.exporting.tiff import write_ome_tiff
from wsi_seg.geometry import Region
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.store import write_strip

CLASSES = ClassTable.named(["gland", "vessel"], ["#ff0000", "#00ff00"])
DOWN = 2.0


@pytest.fixture
def found(tmp_path, make_prediction, rings):
    """Label map, and the objects of a prediction of it whose probability is 200 / 255."""
    labels = rings()
    store = make_prediction(tmp_path, labels, downsample=DOWN)["slide"]
    values = np.stack([(labels == n) * np.uint8(200) for n in (1, 2)], axis=2)
    for y in (0, 512):
        write_strip(store.path, 0, y, values[y : y + 512])
    label = store.label("prediction")
    return labels, outlines(label, store.image, identity={"slide": "slide"})


def drawn(shapes, like):
    transform = rasterio.Affine.scale(DOWN)
    return rasterio.features.rasterize(shapes, like.shape, transform=transform, dtype=np.uint8)


def test_geopandas_reads_geojson_with_what_qupath_wants(tmp_path, found):
    labels, objects = found
    write_geojson(tmp_path / "a.geojson", objects)
    frame = geopandas.read_file(tmp_path / "a.geojson")
    ids = [CLASSES.id_of(found["name"]) for found in frame["classification"]]
    np.testing.assert_array_equal(drawn(zip(frame.geometry, ids, strict=True), labels), labels)
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert len({uuid.UUID(feature["id"]) for feature in features}) == 3
    about = {f["properties"]["name"]: f["properties"] for f in features}
    assert about.keys() == {"vessel 1", "gland 2", "vessel 3"}  # numbers of the tables
    block = about["vessel 1"]
    assert block["objectType"] == "annotation"
    assert block["isLocked"] is False
    assert block["classification"] == {"name": "vessel", "color": [0, 255, 0]}
    measured = block["measurements"]
    assert measured["Area µm^2"] == 20 * 40  # pixels of 1 um
    assert measured["Perimeter µm"] == pytest.approx(120 * np.pi / 4, abs=0.01)
    assert measured["Solidity"] == 1
    assert measured["Mean probability"] == measured["Max probability"] == 0.7843
    ring = about["gland 2"]["measurements"]
    assert ring["Solidity"] == pytest.approx(0.75, abs=0.02)  # half the radius is a hole
    assert ring["Eccentricity"] < 0.1
    assert 0 < ring["Circularity"] < 0.6


def test_identities_are_the_same_in_every_export_of_one_decision_only(tmp_path, found):
    _, objects = found
    label = objects.label
    again = [outlines(label, identity={"slide": "slide"}, simplify_um=0, min_area_um2=5)]
    again += [outlines(label, identity={"slide": name}) for name in ("slide", "other")]
    uuids = [{i for batch in some.batches() for i in batch.uuid} for some in (objects, *again)]
    assert uuids[1] < uuids[0] == uuids[2]
    assert not uuids[0] & uuids[3]
    write_geoparquet(tmp_path / "a.parquet", objects)
    assert set(geopandas.read_parquet(tmp_path / "a.parquet")["id"]) == uuids[0]


@pytest.mark.parametrize(
    ("kind", "side", "expected"),
    [("auto", 31, "annotation"), ("auto", 32, "detection"), ("annotations", 32, "annotation"),
     ("detections", 1, "detection")],
)  # fmt: skip
def test_many_objects_are_detections(tmp_path, make_prediction, kind, side, expected):
    labels = np.zeros((64, 64), np.uint8)
    labels[: 2 * side : 2, : 2 * side : 2] = 1
    objects = outlines(make_prediction(tmp_path, labels)["slide"].label("prediction"))
    assert write_geojson(tmp_path / "a.geojson", objects, kind=kind) == side**2
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert {f["properties"]["objectType"] for f in features} == {expected}
    assert "Mean probability" not in features[0]["properties"]["measurements"]


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_geojson_has_the_same_bytes_on_any_number_of_cores(
    tmp_path, make_prediction, monkeypatch, cores
):
    labels = np.zeros((200, 200), np.uint8)
    labels[::2, ::2] = 1  # several batches of outlines
    objects = outlines(make_prediction(tmp_path, labels)["slide"].label("prediction"))
    assert len(objects) > 2 * 4096
    write_geojson(tmp_path / "here.geojson", objects)
    monkeypatch.setattr(outlines_module, "available_cores", lambda: cores)
    write_geojson(tmp_path / "there.geojson", objects)
    assert (tmp_path / "there.geojson").read_bytes() == (tmp_path / "here.geojson").read_bytes()


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_small_blocks_are_no_rounder_than_a_circle(tmp_path, make_prediction, side):
    labels = np.zeros((20, 20), np.uint8)
    labels[5 : 5 + side, 5 : 5 + side] = 1
    (batch,) = outlines(make_prediction(tmp_path, labels)["slide"].label("prediction")).batches()
    assert 0 < batch.figures["circularity"][0] <= 1


def kaggle_mask(text, height, width):
    """Draw runs by the rule of Kaggle: pixels count from 1, down columns, then right."""
    mask = np.zeros(height * width, np.uint8)
    numbers = [int(number) for number in text.split()]
    for first, length in zip(numbers[::2], numbers[1::2], strict=True):
        mask[first - 1 : first - 1 + length] = 1
    return mask.reshape(width, height).T


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_kaggles_rule_and_pycocotools_read_run_lengths(tmp_path, found):
    labels, objects = found
    write_rle_csv(tmp_path / "r.csv", [("slide", objects.label)], dialect="absolute")
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == ["gland", "vessel"]
    for number, row in enumerate(rows, 1):
        height, width = int(row["height"]), int(row["width"])
        np.testing.assert_array_equal(kaggle_mask(row["rle"], height, width), labels == number)
        begins, lengths = np.array(row["rle"].split(), int).reshape(-1, 2).T
        ends = np.concatenate([[0], begins - 1 + lengths])
        gaps = np.append(begins - 1, height * width) - ends
        counts = np.stack([gaps, np.append(lengths, 0)], axis=1).ravel()[:-1].tolist()
        coded = mask_utils.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
        np.testing.assert_array_equal(mask_utils.decode(coded), labels == number)


def test_geopandas_reads_geoparquet_and_its_boxes(tmp_path, found):
    labels, objects = found
    path = tmp_path / "a.parquet"
    write_geoparquet(path, objects)
    frame = geopandas.read_parquet(path)
    assert frame.crs is None
    ids = frame["class"].map(CLASSES.id_of)
    np.testing.assert_array_equal(drawn(zip(frame.geometry, ids, strict=True), labels), labels)
    by_number = frame.set_index("object")
    np.testing.assert_allclose(by_number.loc[[1, 2, 3], "area_um2"], objects.table.area)
    np.testing.assert_allclose(by_number["mean_probability"], 200 / 255)
    # Only rows that touch the box are read, by the boxes' columns.
    some = geopandas.read_parquet(path, bbox=(60, 40, 61, 41))
    assert some["object"].tolist() == [1]
    about = json.loads(pyarrow.parquet.read_metadata(path).metadata[b"geo"])
    assert about["version"] == "1.1.0"
    np.testing.assert_allclose(about["columns"]["geometry"]["bbox"], frame.total_bounds)


def test_a_slide_without_objects_has_files_that_open(tmp_path, make_prediction):
    label = make_prediction(tmp_path, np.zeros((9, 9), np.uint8))["slide"].label("prediction")
    objects = outlines(label)
    write_geojson(tmp_path / "a.geojson", objects)
    assert len(geopandas.read_file(tmp_path / "a.geojson")) == 0
    write_geoparquet(tmp_path / "a.parquet", objects)
    assert len(geopandas.read_parquet(tmp_path / "a.parquet")) == 0
    write_asap(tmp_path / "a.xml", objects)
    assert read_annotations(tmp_path / "a.xml").items == ()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools
def test_pycocotools_reads_masks_scores_and_names(tmp_path, found, capsys):
    labels, objects = found
    write_coco(tmp_path / "c.json", [("slide.svs", objects)], CLASSES)
    coco = COCO(tmp_path / "c.json")
    capsys.readouterr()  # it talks
    assert coco.imgs[1]["file_name"] == "slide.svs"
    masks = np.zeros((int(700 * DOWN), int(300 * DOWN)), np.uint8)
    for row in coco.anns.values():
        masks[coco.annToMask(row) > 0] = row["category_id"]
        assert row["score"] == 0.7843
        assert row["iscrowd"] == 0
    # It fills polygons by a rule of its own, which differs at borders.
    assert np.mean(masks[::2, ::2] == labels) > 0.995
    assert masks[int(510 * DOWN), int(150 * DOWN)] == 0  # the hole


def test_asap_has_groups_with_colours_and_no_holes(tmp_path, found):
    labels, objects = found
    write_asap(tmp_path / "a.xml", objects)
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    groups = {group.get("Name"): group.get("Color") for group in root.iter("Group")}
    assert groups == {"gland": "#ff0000", "vessel": "#00ff00"}
    parts = [a for a in root.iter("Annotation") if a.get("Name") == "gland 2"]
    assert len(parts) == 2
    items = read_annotations(tmp_path / "a.xml").items
    assert sum(item.geometry.area for item in items) == pytest.approx(
        sum(polygon.area for _, polygon in objects), rel=1e-6
    )
    region = Region(level=0, y=0, x=0, height=700, width=300)
    np.testing.assert_array_equal(Rasterizer(items, CLASSES).draw(region, (DOWN, DOWN)), labels)


def test_asap_has_the_elements_that_asap_reads_and_the_same_pixels(tmp_path, found):
    labels, objects = found
    write_asap(tmp_path / "a.xml", objects)
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    assert [root.tag, *(part.tag for part in root)] == [
        "ASAP_Annotations", "Annotations", "AnnotationGroups",
    ]  # fmt: skip
    groups = {group.attrib["Name"] for group in root.findall("AnnotationGroups/Group")}
    shapes = []
    for one in root.findall("Annotations/Annotation"):
        assert one.attrib.keys() == {"Name", "Type", "PartOfGroup", "Color"}
        assert one.attrib["Type"] == "Polygon"
        assert one.attrib["PartOfGroup"] in groups
        points = [point.attrib for point in one.findall("Coordinates/Coordinate")]
        assert [int(point["Order"]) for point in points] == list(range(len(points)))
        polygon = shapely.Polygon([(float(point["X"]), float(point["Y"])) for point in points])
        assert polygon.is_valid
        shapes.append((polygon, CLASSES.id_of(one.attrib["PartOfGroup"])))
    np.testing.assert_array_equal(drawn(shapes, labels), labels)


def test_ome_tiff_has_the_names_of_slide_and_classes(tmp_path, found):
    _, objects = found
    write_ome_tiff(tmp_path / "a.ome.tif", objects.label, "slide 1")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        about = tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]
    assert about["Name"] == "slide 1"
    assert about["Pixels"]["Channel"]["Name"] == "class ids: 1 gland, 2 vessel"


def test_outlines_that_would_cross_are_refused(found):
    _, objects = found
    with pytest.raises(OutputError, match=r"got outlines that may move by 2 um; expected 0, or"):
        outlines(objects.label, simplify_um=2)
    counts = []
    for simplify_um in (None, 0.5, 0.34, 0):
        found = [p for _, p in outlines(objects.label, simplify_um=simplify_um)]
        counts.append(int(shapely.get_num_coordinates(found).sum()))
    assert counts[0] == counts[1] < counts[2] < counts[3]
