import gzip
import json

import pytest
import shapely

from wsi_seg.annotations import read_annotations
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[2, 2], [2, 5], [5, 5], [5, 2], [2, 2]]


def feature(geometry, name="gland", **properties):
    classification = {"classification": {"name": name, "color": [1, 2, 3]}} if name else {}
    return {"type": "Feature", "geometry": geometry, "properties": classification | properties}


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def write(tmp_path, document, name="slide.geojson"):
    path = tmp_path / name
    path.write_text(json.dumps(document))
    return path


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def test_qupath_collection_keeps_classes_and_holes(tmp_path):
    path = write(
        tmp_path, collection(feature(polygon(SQUARE, HOLE)), feature(polygon(SQUARE), "b"))
    )
    found = read_annotations(path)
    assert [item.class_name for item in found.items] == ["gland", "b"]
    assert found.items[0].geometry.area == 100 - 9
    assert found.repairs == ()


def test_bare_list_single_feature_and_gzip_are_the_same(tmp_path):
    bare = write(tmp_path, [feature(polygon(SQUARE))], "a.json")
    single = write(tmp_path, feature(polygon(SQUARE)), "b.json")
    packed = tmp_path / "c.geojson.gz"
    packed.write_bytes(gzip.compress(bare.read_bytes()))
    expected = read_annotations(bare).items
    assert read_annotations(single).items == read_annotations(packed).items == expected


def test_multipolygons_slivers_lines_and_crossed_rings_are_repaired_and_noted(tmp_path):
    sliver = [[20, 20], [20.5, 20], [20.5, 20.5], [20, 20]]
    bow = [[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]
    path = write(
        tmp_path,
        collection(
            feature({"type": "MultiPolygon", "coordinates": [[SQUARE], [sliver]]}),
            feature({"type": "LineString", "coordinates": [[0, 0], [5, 5]]}),
            feature(polygon(bow)),
            feature(polygon(SQUARE[:-1])),
        ),
    )
    found = read_annotations(path)
    assert [item.geometry.area for item in found.items] == [100, 50, 100]
    assert all(item.geometry.is_valid for item in found.items)
    assert len(found.repairs) == 3
    assert "feature 0: 1 sliver " in found.repairs[0]
    assert "feature 1" in found.repairs[1]
    assert "Self-intersection" in found.repairs[2]


def test_a_feature_without_class_needs_a_default(tmp_path):
    path = write(tmp_path, collection(feature(polygon(SQUARE)), feature(polygon(SQUARE), None)))
    with pytest.raises(AnnotationError, match=r"feature 1 has no class.*--default-class"):
        read_annotations(path)
    found = read_annotations(path, default_class="other")
    assert [item.class_name for item in found.items] == ["gland", "other"]


def shape(kind, points, label="gn"):
    return {"label": label, "shape_type": kind, "points": points}


def test_labelme_shapes_have_the_areas_they_show(tmp_path):
    path = write(
        tmp_path,
        {
            "imageHeight": 100,
            "imageWidth": 120,
            "imageData": "A" * 1000,
            "shapes": [
                shape("polygon", SQUARE),
                shape("rectangle", [[10, 20], [4, 5]]),
                shape("circle", [[50, 50], [50, 60]]),
                shape("line", [[0, 0], [10, 0]]),
                shape("linestrip", [[0, 0], [10, 0], [20, 0]]),
                shape("point", [[5, 5]]),
            ],
        },
        "slide.json",
    )
    found = read_annotations(path)
    assert found.extent == Extent(height=100, width=120)
    areas = [item.geometry.area for item in found.items]
    circle, cap = 314.16, 78.5
    expected = [100, 90, circle, 100 + cap, 200 + cap, cap]
    assert areas == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not json", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "nested"),
        (b"{}", "unknown format"),
        (b'{"type": "FeatureCollection", "features": [3]}', "feature 0 is int"),
        (b'{"shapes": [{"label": "a", "shape_type": "blob", "points": []}]}', "shape 0.*blob"),
        (b'{"shapes": [{"points": []}]}', "shape 0 has no label"),
        (b'{"shapes": [], "imageHeight": "x", "imageWidth": 3}', "imageHeight .*'x'"),
        (b"\x1f\x8bgarbage", "cannot be read"),
    ],
)
def test_hostile_files_give_one_sentence(tmp_path, content, said):
    path = tmp_path / "slide.json"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match=said) as caught:
        read_annotations(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("geometry", "said"),
    [
        (polygon([[0, 0], [1, float("nan")], [5, 5]]), r"feature 0: vertex 1 is \(1.0, nan\)"),
        (polygon([[0, 0], [1, 1]]), "feature 0: got 2 different points"),
        (polygon([[0, 0], "ab", [5, 5]]), "vertex 1"),
        (polygon(), "no rings"),
        ({"type": "Curve"}, "'Curve'"),
        ("Polygon", "got str as its geometry"),
    ],
)
def test_broken_geometry_names_its_feature(tmp_path, geometry, said):
    with pytest.raises(AnnotationError, match=said):
        read_annotations(write(tmp_path, collection(feature(geometry))))


@pytest.mark.parametrize("place", ["collection", "inner", "feature", "geometry"])
def test_a_coordinate_reference_system_is_refused(tmp_path, place):
    crs = {"crs": {"name": "EPSG:4326"}}
    geometry = polygon(SQUARE) | (crs if place == "geometry" else {})
    inner = collection(feature(geometry) | (crs if place == "feature" else {}))
    document = collection(inner | (crs if place == "inner" else {}))
    document |= crs if place == "collection" else {"crs": None}
    with pytest.raises(AnnotationError, match="EPSG:4326"):
        read_annotations(write(tmp_path, document))


def test_real_kidney_polygons_are_all_read(shared_data):
    folder = shared_data / "glomeruli-polygons"
    for name in ("hubmap-json", "qupath-geojson"):
        for path in sorted((folder / name).iterdir()):
            features = json.loads(path.read_bytes())
            features = features["features"] if isinstance(features, dict) else features
            found = read_annotations(path, default_class="other")
            skipped = sum("skipped" in note and "sliver" not in note for note in found.repairs)
            assert len(found.items) + skipped == len(features)
            assert all(shapely.is_valid(item.geometry) for item in found.items)


def test_real_labelme_files_are_all_read(shared_data):
    folder = shared_data / "glomeruli-labelme" / "annotations"
    labels = set()
    count = 0
    for path in sorted(folder.iterdir()):
        found = read_annotations(path)
        assert found.extent == Extent(height=1024, width=1360)
        labels |= {item.class_name for item in found.items}
        count += len(found.items)
    assert labels == {"gn", "gs", "gl", "gm"}
    assert count == 94
