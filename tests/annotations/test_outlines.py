"""What any outline means: the union of its parts, each its shell without its holes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.annotations import AnnotationSets, read_annotations, read_for_slides
from wsi_seg.classes import ClassTable
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.rasterize import Rasterizer

SIDE = 24
WHOLE = Region(level=0, y=0, x=0, height=SIDE, width=SIDE)
BOXES = st.tuples(
    st.integers(0, SIDE - 2), st.integers(0, SIDE - 2), st.integers(1, SIDE), st.integers(1, SIDE)
).map(lambda box: (box[0], box[1], min(SIDE, box[0] + box[2]), min(SIDE, box[1] + box[3])))
PARTS = st.lists(st.tuples(BOXES, st.lists(BOXES, max_size=3)), min_size=1, max_size=4)


def ring(box, *, times=1, back=False):
    x, y, x_end, y_end = box
    corners = [[x, y], [x_end, y], [x_end, y_end], [x, y_end]] * times
    return (corners[::-1] if back else corners) + [corners[-1] if back else corners[0]]


def painted(parts):
    """Pixels of some parts, without any geometry library."""
    found = np.zeros((SIDE, SIDE), bool)
    for shell, holes in parts:
        part = np.zeros((SIDE, SIDE), bool)
        part[shell[1] : shell[3], shell[0] : shell[2]] = True
        for hole in holes:
            part[hole[1] : hole[3], hole[0] : hole[2]] = False
        found |= part
    return found


def drawn(items, *names):
    return Rasterizer(items, ClassTable.named(names)).draw(WHOLE, (1.0, 1.0))


def write(folder, document, name="a.geojson"):
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def feature(geometry, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": {"class": "T", **properties}}


@given(parts=PARTS, back=st.booleans(), times=st.sampled_from([1, 2]), split=st.booleans())
def test_rings_that_overlap_repeat_or_stick_out(tmp_path_factory, parts, back, times, split):
    """Whatever boxes are shells and holes, and whichever way round they go."""
    folder = tmp_path_factory.mktemp("rings")
    polygons = [
        [ring(shell, times=times), *(ring(hole, back=back) for hole in holes)]
        for shell, holes in parts
    ]
    if split:
        members = [{"type": "Polygon", "coordinates": rings} for rings in polygons]
        geometry = {"type": "GeometryCollection", "geometries": members}
    else:
        geometry = {"type": "MultiPolygon", "coordinates": polygons}
    found = read_annotations(write(folder, [feature(geometry)]))
    assert len(found.items) == bool(painted(parts).any())
    assert all(item.geometry.is_valid for item in found.items)
    assert np.array_equal(drawn(found.items, "T") == 1, painted(parts))
    if not painted(parts).all() and not found.items:
        assert found.repairs


@given(st.lists(BOXES, min_size=1, max_size=4), st.lists(BOXES, max_size=3))
def test_the_same_rule_in_coco_and_camelyon(tmp_path_factory, shells, holes):
    folder = tmp_path_factory.mktemp("rings")
    flat = [[value for point in ring(shell)[:-1] for value in point] for shell in shells]
    coco = {
        "images": [{"id": 1, "file_name": "a.tif", "height": SIDE, "width": SIDE}],
        "categories": [{"id": 1, "name": "T"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": flat}],
    }
    extents = {"a": Extent(height=SIDE, width=SIDE)}
    sets = read_for_slides(write(folder, coco, "c.json"), extents)
    assert isinstance(sets, AnnotationSets)
    found = sets.by_slide["a"]
    assert np.array_equal(drawn(found.items, "T") == 1, painted([(box, []) for box in shells]))
    camelyon = {
        "positive": [{"vertices": ring(shell)} for shell in shells],
        "negative": [{"vertices": ring(hole)} for hole in holes],
    }
    found = read_annotations(write(folder, camelyon, "p.json"), default_class="T")
    assert np.array_equal(drawn(found.items, "T") == 1, painted([(s, holes) for s in shells]))


def test_a_ring_that_makes_a_hole_by_going_in_and_out_keeps_it(tmp_path):
    key = [[0, 0], [20, 0], [20, 20], [0, 20], [0, 0], [5, 5], [5, 15], [15, 15], [15, 5], [5, 5]]
    (item,) = read_annotations(
        write(tmp_path, [feature({"type": "Polygon", "coordinates": [key]})])
    ).items
    assert item.geometry.area == 400 - 100


def test_a_hole_beside_its_shell_is_nothing(tmp_path):
    rings = [ring((0, 0, 10, 10)), ring((14, 14, 20, 20))]
    found = read_annotations(write(tmp_path, [feature({"type": "Polygon", "coordinates": rings})]))
    assert found.items[0].geometry.area == 100
    assert "outside shell" in found.repairs[0]


# How a class of two words may be written: QuPath's newer lists, and other programs' ways.
@pytest.mark.parametrize(
    ("properties", "name"),
    [
        ({"classification": {"names": ["Tumor", "Positive"]}}, "Tumor: Positive"),
        ({"classification": {"name": "Tumor: Positive"}}, "Tumor: Positive"),
        ({"classification": ["Tumor", "Positive"]}, "Tumor: Positive"),
        ({"classification": {"name": ["Tumor", "Positive"]}}, "Tumor: Positive"),
        ({"classification": {"names": "Tumor"}}, "Tumor"),
        ({"classification": {"names": [], "name": "Tumor"}}, "Tumor"),
        ({"classification": {"name": {"name": "Tumor"}}}, "Tumor"),
        ({"classification": "Tumor"}, "Tumor"),
        ({"classification": 3}, "3"),
        ({"classification": None, "label": "Tumor"}, "Tumor"),
        ({"classification": {"color": [1, 2, 3]}, "category": "Tumor"}, "Tumor"),
        ({"class_name": "Tumor"}, "Tumor"),
        ({"className": " Tumor "}, "Tumor"),
    ],
)
def test_classes_written_in_other_forms(tmp_path, properties, name):
    geometry = {"type": "Polygon", "coordinates": [ring((0, 0, 9, 9))]}
    path = write(tmp_path, [{"geometry": geometry, "properties": properties}])
    assert read_annotations(path, default_class="other").items[0].class_name == name


@pytest.mark.parametrize(
    "value", [True, 2.5, ["a", None, 2.5], {"name": 1.5}, {"names": [[], 0.1]}]
)
def test_a_class_that_is_no_name_is_refused_and_not_replaced(tmp_path, value):
    geometry = {"type": "Polygon", "coordinates": [ring((0, 0, 9, 9))]}
    path = write(tmp_path, [{"geometry": geometry, "properties": {"classification": value}}])
    with pytest.raises(AnnotationError, match=r"feature 0: got classification .* name of a class"):
        read_annotations(path, default_class="other")


def box_feature(name, box, **more):
    geometry = {"type": "Polygon", "coordinates": [ring(box)]}
    return {"type": "Feature", "geometry": geometry, "properties": {"class": name, **more}}


def nested(depth, holder):
    """Objects inside of objects, each one pixel smaller."""
    children: list[dict[str, object]] = []
    for level in range(depth)[::-1]:
        whole = box_feature(f"c{level}", (level, level, SIDE - level, SIDE - level))
        where = whole if holder == "feature" else whole["properties"]
        where["childObjects"] = children
        children = [whole]
    return children[0]


@pytest.mark.parametrize("holder", ["feature", "properties"])
@pytest.mark.parametrize("rootless", [False, True])
def test_children_at_any_depth_lie_over_their_parents(tmp_path, holder, rootless):
    document = nested(8, holder)
    if rootless:  # QuPath's root has no geometry of its own
        document = {"type": "Feature", "properties": {"childObjects": [document]}}
    found = read_annotations(write(tmp_path, document))
    assert [item.class_name for item in found.items] == [f"c{n}" for n in range(8)]
    assert found.repairs == ()
    ids = drawn(found.items, *(f"c{n}" for n in range(8)))
    expected = np.minimum.reduce([*np.mgrid[:SIDE, :SIDE], *np.mgrid[:SIDE, :SIDE][:, ::-1, ::-1]])
    assert np.array_equal(ids, np.minimum(expected, 7) + 1)


SQUARE = {"type": "Polygon", "coordinates": [ring((0, 0, 9, 9))]}
OTHER = {"type": "MultiPolygon", "coordinates": [[ring((10, 10, 14, 14))]]}


@pytest.mark.parametrize(
    "document",
    [
        SQUARE | {"crs": None},
        OTHER,
        feature(SQUARE),
        [feature(SQUARE), OTHER],
        [[feature(SQUARE)], {"type": "FeatureCollection", "features": [feature(OTHER)]}],
        {"type": "GeometryCollection", "geometries": [SQUARE, OTHER]},
        {"type": "GeometryCollection", "geometries": [
            {"type": "GeometryCollection", "geometries": [SQUARE]}, {"type": "Point"}, OTHER]},
        {"type": "FeatureCollection", "features": [SQUARE, feature(OTHER)]},
        {"features": [feature(SQUARE), feature(OTHER)], "type": "FeatureCollection"},
        [{"geometry": SQUARE}, {"type": "Feature", "geometry": OTHER, "properties": None}],
    ],
)  # fmt: skip
def test_polygons_are_found_wherever_geojson_may_have_them(tmp_path, document):
    found = read_annotations(write(tmp_path, document), default_class="T")
    text = json.dumps(document)
    area = 81 * text.count("[9, 9]") + 16 * text.count("[14, 14]")
    assert sum(item.geometry.area for item in found.items) == area > 0


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([feature(SQUARE), {"type": "Topology"}], "unknown format"),
        ({"type": "FeatureCollection", "features": {"a": 1}}, "got dict as features"),
        (
            {"type": "Feature", "geometry": {"type": "GeometryCollection"}, "properties": {}},
            "class",
        ),
        (feature({"type": "GeometryCollection", "geometries": 7}), "GeometryCollection"),
        (feature({"type": "GeometryCollection", "geometries": [7]}), "got int as its geometry"),
        ([feature(SQUARE) | {"crs": {"type": "name"}}], "coordinate reference system"),
    ],
)
def test_what_is_no_geojson_is_refused(tmp_path, document, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_annotations(write(tmp_path, document))


def test_nuclei_of_cells_are_reported_and_empty_objects_named(tmp_path):
    cell = box_feature("cell", (0, 0, 9, 9), objectType="cell") | {"nucleusGeometry": SQUARE}
    found = read_annotations(write(tmp_path, [cell, cell, feature(None)]))
    assert len(found.items) == 2
    assert found.repairs == (
        "feature 2: it has no geometry, skipped",
        "2 nuclei are drawn as part of their cells",
    )
