"""COCO's images fit slides by the one rule, and none is passed over in silence."""

import json

import pytest

from wsi_seg.annotations import read_for_slides
from wsi_seg.errors import AnnotationError
from wsi_seg.geometry import Extent

EXTENTS = {name: Extent(height=30, width=40) for name in ("slide", "slide2", "Prüfung")}
RING = [[1, 1, 9, 1, 9, 9, 1, 9]]


def coco(*names, size=(30, 40), **more):
    return {
        "images": [
            {"id": n, "file_name": name, "height": size[0], "width": size[1]}
            for n, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "T"}],
        "annotations": [
            {"image_id": n, "category_id": 1, "segmentation": RING} for n in range(len(names))
        ],
    } | more


def read(folder, document):
    path = folder / "x.json"
    path.write_text(json.dumps(document))
    return read_for_slides(path, EXTENTS)


@pytest.mark.parametrize(
    "name",
    ["slide", "slide.tif", "Slide.TIF", "slide.ome.tif", "images\\train\\slide.tif", "a/slide.png",
     "https://example.org/a/slide.tif?x=1"],
)  # fmt: skip
def test_images_by_any_spelling(tmp_path, name):
    sets = read(tmp_path, coco(name, "img\\slide2.tif", "Pru\u0308fung.svs", "slide.7"))
    assert sets.unmatched == ("slide.7",)
    assert {slide: len(found.items) for slide, found in sets.by_slide.items()} == {
        "slide": 1, "slide2": 1, "Prüfung": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (coco("a/slide.tif", "b/slide.tif"), r"'a/slide.tif' and 'b/slide.tif'"),
        (coco("slide.tif", "slide.tif"), r"lists the image 'slide.tif' twice"),
        (coco("slide", images=[{"id": 1, "height": 3, "width": 3}]), "image 1 has no file_name"),
        (coco("slide", images=coco("slide")["images"] * 2), "the id 0 twice in images"),
        (coco("slide", categories=[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]), "the id 1"),
        (coco("slide", size=("x", 3)), "image 'slide': got height 'x', width '3'"),
        (coco("slide", size=(0, 3)), "whole numbers above 0"),
        (coco("slide", size=(2.5, 3)), "whole numbers above 0"),
    ],
)
def test_what_is_not_sure_is_refused(tmp_path, document, reason):
    with pytest.raises(AnnotationError, match=reason):
        read(tmp_path, document)


@pytest.mark.parametrize("size", [(30, 40), (30.0, 40.0), ("30", "40"), ("30.0", "40.0")])
def test_sizes_in_any_spelling(tmp_path, size):
    sets = read(tmp_path, coco("slide", size=size))
    assert sets.by_slide["slide"].extent == EXTENTS["slide"]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([0, 30, 1170], ""),
        ([0, 30], "ends at pixel 30 of 1200"),
        ([], "ends at pixel 0 of 1200"),
    ],
)
def test_run_lengths_that_end_before_their_image_are_reported(tmp_path, counts, said):
    document = coco("slide")
    document["annotations"][0]["segmentation"] = {"size": [30, 40], "counts": counts}
    found = read(tmp_path, document).by_slide["slide"]
    assert sum(item.geometry.area for item in found.items) == sum(counts[1:2])
    assert said in " ".join(found.repairs)
    assert bool(found.repairs) == bool(said)
