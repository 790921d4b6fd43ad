"""ASAP, CAMELYON-style and COCO annotations, good and hostile."""

import json

import numpy as np
import pytest
import shapely

from wsi_seg.annotations import AnnotationSets, read_annotations, read_for_slides
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10]]


def write(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def asap(annotations):
    return (
        '<?xml version="1.0"?>\n<ASAP_Annotations><Annotations>'
        + annotations
        + '</Annotations><AnnotationGroups><Group Name="Tumor" PartOfGroup="None"/>'
        + "</AnnotationGroups></ASAP_Annotations>"
    )


def outline(group="Tumor", kind="Polygon", points=SQUARE):
    # In the file's order of its own: the numbers decide.
    coordinates = "".join(
        f'<Coordinate Order="{number}" X="{x}" Y="{y}"/>'
        for number, (x, y) in reversed(list(enumerate(points)))
    )
    return (
        f'<Annotation Name="a" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
        f"<Coordinates>{coordinates}</Coordinates></Annotation>"
    )


def test_groups_of_asap_are_classes(tmp_path):
    text = asap(outline() + outline("Stroma", "Spline") + outline(kind="Dot", points=[[1, 1]]))
    found = read_annotations(write(tmp_path / "a.xml", text))
    assert [item.class_name for item in found.items] == ["Tumor", "Stroma"]
    assert found.items[0].geometry.area == 100
    assert "without area" in found.repairs[0]
    bare = write(tmp_path / "b.xml", asap(outline("None")))
    assert read_annotations(bare, default_class="thing").items[0].class_name == "thing"
    with pytest.raises(AnnotationError, match="has no class"):
        read_annotations(bare)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<ASAP_Annotations><Annotations>", "is not XML"),
        ("<html></html>", "expected ASAP_Annotations"),
        ('<!DOCTYPE a [<!ENTITY b "bb">]><ASAP_Annotations>&b;</ASAP_Annotations>', "entities"),
        (asap(outline(points=[["x", 1], [2, 3], [4, 5]])), "vertex 0"),
        (asap(outline(points=[["nan", 1], [2, 3], [4, 5]])), "finite"),
        (asap(outline(kind="Cube")), "'Cube'"),
    ],
)
def test_hostile_xml_gives_one_sentence(tmp_path, text, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_annotations(write(tmp_path / "a.xml", text))


def test_negative_outlines_are_cut_out(tmp_path):
    inner = [[2, 2], [2, 5], [5, 5], [5, 2]]
    document = {
        "positive": [{"name": "_0", "vertices": SQUARE}],
        "negative": [{"name": "_1", "vertices": inner}],
    }
    found = read_annotations(write(tmp_path / "a.json", document), default_class="tumour")
    assert found.items[0].geometry.area == 100 - 9
    assert shapely.get_num_interior_rings(found.items[0].geometry) == 1


def test_real_camelyon_outlines(shared_data):
    """All 73 outlines of 8 files are read; the 6 that cross themselves are repaired."""
    files = sorted((shared_data / "camelyon16-polygons").glob("*.json"))
    found = [read_annotations(path, default_class="tumour") for path in files]
    stated = [json.loads(path.read_text()) for path in files]
    assert sum(len(a.items) for a in found) == sum(len(d["positive"]) for d in stated)
    assert all(item.geometry.is_valid for a in found for item in a.items)
    assert max(item.geometry.bounds[3] for a in found for item in a.items) > 170_000


def coco(segmentation, **entry):
    return {
        "images": [{"id": 7, "file_name": "images/S1.jpg", "height": 6, "width": 9}],
        "categories": [{"id": 2, "name": "nucleus"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 2, "segmentation": segmentation} | entry
        ],
    }


def packed(counts):
    """Pack counts as COCO's own tools do."""
    letters = []
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            letters.append(chr((bits | 32 if more else bits) + 48))
    return "".join(letters)


def test_every_kind_of_coco_segmentation(tmp_path):
    mask = np.zeros((6, 9), bool)
    mask[1:4, 2:7] = True
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    borders = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff([0, *borders, mask.size]).tolist()
    rings = [[2, 1, 7, 1, 7, 4, 2, 4]]
    for kind in (rings, {"size": [6, 9], "counts": counts}, {"size": [6, 9],
                                                           "counts": packed(counts)}):  # fmt: skip
        path = write(tmp_path / "a.json", coco(kind))
        sets = read_for_slides(path, {"S1": Extent(height=6, width=9)})
        assert isinstance(sets, AnnotationSets)
        found = sets.by_slide["S1"]
        assert found.extent == Extent(height=6, width=9)
        assert found.items[0].class_name == "nucleus"
        assert found.items[0].geometry.equals(found.items[0].geometry.envelope)
        assert found.items[0].geometry.bounds == (2, 1, 7, 4)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (coco([[1, 2, 3]]), "x, y pairs"),
        (coco({"size": [9, 6], "counts": [1]}), "size"),
        (coco({"size": [6, 9], "counts": [50, 9]}), "pixel 59"),
        (coco({"size": [6, 9], "counts": [-1, 9]}), "below 0"),
        (coco({"size": [6, 9], "counts": "\u00e9"}), "COCO's characters"),
        (coco([[0, 0, 1, 0, 1, 1]], image_id=8), "got image 8"),
        (coco([[0, 0, 1, 0, 1, 1]], category_id=9), "category 9"),
        ({"images": [1], "annotations": []}, "no list of images"),
    ],
)
def test_hostile_coco_gives_one_sentence(tmp_path, document, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_for_slides(write(tmp_path / "a.json", document), {})


def grouped(outlines, groups):
    """ASAP's XML of outlines, and of pairs of a group and the one it belongs to."""
    listed = "".join(f'<Group Name="{name}" PartOfGroup="{of}"/>' for name, of in groups)
    return (
        '<?xml version="1.0"?>\n<ASAP_Annotations><Annotations>' + "".join(outlines)
        + f"</Annotations><AnnotationGroups>{listed}</AnnotationGroups></ASAP_Annotations>"
    )  # fmt: skip


SMALL = [[2, 2], [5, 2], [5, 5], [2, 5]]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("_2", []), ("Exclusion", []), ("exclusions", []), ("EXCLUDE", []), ("excluded", []),
        ("fold", [("Exclusion", "None"), ("artefact", "Exclusion"), ("fold", "artefact")]),
    ],
)  # fmt: skip
def test_groups_that_exclude_are_cut_out_of_all_others(tmp_path, name, groups, first):
    outlines = [outline("_0"), outline("_1"), outline(name, points=SMALL)]
    text = grouped(outlines[::-1] if first else outlines, groups)
    found = read_annotations(write(tmp_path / "a.xml", text))
    areas = {item.class_name: item.geometry.area for item in found.items}
    assert areas == {"_0": 91, "_1": 91, name: 9}
    assert found.repairs == ()


def test_what_is_wholly_excluded_is_reported_and_circles_of_groups_end(tmp_path):
    text = grouped([outline("_0", points=SMALL), outline("_2")], [("a", "b"), ("b", "a")])
    found = read_annotations(write(tmp_path / "a.xml", text))
    assert [item.class_name for item in found.items] == ["_2"]
    assert "is inside a hole" in found.repairs[0]
    plain = grouped([outline("normal"), outline("excluder", points=SMALL)], [])
    found = read_annotations(write(tmp_path / "b.xml", plain))
    assert [item.geometry.area for item in found.items] == [100, 9]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ("UTF-8", "utf-8"), ("utf-8", "utf-8-sig"), ("UTF-16", "utf-16"), ("UTF-16", "utf-16-le"),
        ("UTF-16", "utf-16-be"), ("ISO-8859-1", "latin-1"), ("windows-1252", "cp1252"),
        ("ISO-8859-15", "iso8859-15"), ("utf-32", "utf-32"),
    ],
)  # fmt: skip
def test_xml_is_read_in_the_encoding_that_it_declares(tmp_path, declared, encoding):
    head = f'<?xml version="1.0" encoding="{declared}"?>'
    text = asap(outline("Tumör")).replace('<?xml version="1.0"?>', head)
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    assert read_annotations(tmp_path / "a.xml").items[0].class_name == "Tumör"


@pytest.mark.parametrize("declared", ["klingon", "hex", "unicode_escape", "idna", "utf-7", "rot13"])
def test_xml_in_other_encodings_is_refused_naming_them(tmp_path, declared):
    head = f'<?xml version="1.0" encoding="{declared}"?>'
    text = asap(outline()).replace('<?xml version="1.0"?>', head)
    with pytest.raises(AnnotationError, match=f"the encoding '{declared}'; save it in UTF-8"):
        read_annotations(write(tmp_path / "a.xml", text))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_entities_are_refused_in_any_encoding(tmp_path, encoding):
    text = '<!DOCTYPE a [<!ENTITY b "bb">]><ASAP_Annotations>&b;</ASAP_Annotations>'
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    with pytest.raises(AnnotationError, match=r"got XML entities|is not text|is not JSON"):
        read_annotations(tmp_path / "a.xml")
