"""What is together in a folder: annotations, the pictures they belong to, and other files."""

import json
import unicodedata

import numpy as np
import pytest
import shapely
from PIL import Image

from wsi_seg.errors import AnnotationError, BatchError, OutputError
from wsi_seg.geometry import Region
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.reading import Reading
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection

BOX = (10, 10, 50, 50)


def geojson(*boxes, name="T"):
    return json.dumps(
        [
            {"type": "Feature", "geometry": shapely.geometry.mapping(shapely.box(*box)),
             "properties": {"class": name}}
            for box in boxes
        ]
    )  # fmt: skip


def labelme(*shapes):
    return json.dumps(
        {"version": "5.4.1", "imageHeight": 128, "imageWidth": 160, "shapes": [
            {"label": label, "points": [[x, y], [x_end, y_end]], "shape_type": "rectangle"}
            for label, (x, y, x_end, y_end) in shapes
        ]}
    )  # fmt: skip


def coco(*names):
    ring = [[10, 10, 50, 10, 50, 50, 10, 50]]
    return json.dumps(
        {
            "images": [
                {"id": n, "file_name": name, "height": 128, "width": 160}
                for n, name in enumerate(names)
            ],
            "categories": [{"id": 1, "name": "T"}],
            "annotations": [
                {"image_id": n, "category_id": 1, "segmentation": ring} for n in range(len(names))
            ],
        }
    )


def write_pictures(folder, *names, kind="grey16"):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 9, (128, 160), np.uint16) * 200
        grey = pixels.astype(np.uint8)
        colour = np.repeat(grey[..., None], 3, axis=2)
        picture = {"grey16": pixels, "grey8": grey, "colour8": colour}[kind]
        Image.fromarray(picture).save(folder / f"{name}.png")


def tiled(folder, out):
    tile_slides([folder], out, progress=Silent())
    return open_collection(out)


def pixels(slides, name, label="annotations"):
    found = slides[name].label(label).read(Region(level=0, y=0, x=0, height=128, width=160))
    return {int(value): int((found == value).sum()) for value in np.unique(found) if value}


@pytest.mark.parametrize("kind", ["grey16", "grey8", "colour8"])
@pytest.mark.parametrize("make", ["labelme", "geojson", "coco", "csv"])
def test_annotations_next_to_their_pictures(tmp_path, kind, make):
    write_pictures(tmp_path / "d", "x1", "x2", kind=kind)
    text = {
        "labelme": ("x1.json", labelme(("T", BOX))), "geojson": ("X1.GEOJSON", geojson(BOX)),
        "coco": ("all.json", coco("x1.png")), "csv": ("all.csv", "id,rle\nx1.png,1291 40 1419 40\n")
    }[make]  # fmt: skip
    (tmp_path / "d" / text[0]).write_text(text[1])
    slides = tiled(tmp_path / "d", tmp_path / "s.zarr")
    reading = Reading(class_names=("T",), default_class="T", dialect="absolute")
    report = annotate(slides, [tmp_path / "d"], reading=reading, progress=Silent())
    assert set(report.objects) == {"x1"}
    assert pixels(slides, "x1") == {1: 80 if make == "csv" else 1600}
    reported = "\n".join(report.lines())
    assert f"x1.png is not read as a mask: {text[0]} annotates it" in reported
    assert "x2.png is not read as a mask: it is slide 'x2' itself" in reported
    assert report.without == ("x2",)


def test_a_slide_is_never_its_own_mask(tmp_path):
    write_pictures(tmp_path / "d", "x1")
    slides = tiled(tmp_path / "d", tmp_path / "s.zarr")
    with pytest.raises(BatchError, match=r"x1\.png is slide 'x1' itself; expected a mask"):
        annotate(slides, [tmp_path / "d" / "x1.png"], progress=Silent()).require_whole()
    (tmp_path / "d" / "x1.json").write_text(labelme(("T", BOX)))
    files = sorted((tmp_path / "d").iterdir())
    report = annotate(slides, files, progress=Silent())
    assert report.objects == {"x1": 1}


@pytest.fixture
def slides(tmp_path):
    write_pictures(tmp_path / "slides", "a", "A", "B", unicodedata.normalize("NFD", "Prüfung"))
    return tiled(tmp_path / "slides", tmp_path / "s.zarr")


def test_two_files_of_one_folder_for_one_slide_are_refused(slides, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.geojson").write_text(geojson(BOX))
    (tmp_path / "d" / "a.json").write_text(labelme(("T", BOX)))
    (tmp_path / "d" / "B.json").write_text(labelme(("T", BOX)))
    with pytest.raises(BatchError, match=r"a\.geojson and a\.json both annotate it") as caught:
        annotate(slides, [tmp_path / "d"], progress=Silent()).require_whole()
    assert set(caught.value.failures) == {"a"}
    assert pixels(slides, "B") == {1: 1600}
    (tmp_path / "d" / "a.json").unlink()
    (tmp_path / "d" / "all.json").write_text(coco("B.tif", "a.tif"))
    with pytest.raises(BatchError, match="both annotate it"):
        annotate(slides, [tmp_path / "d"], progress=Silent()).require_whole()
    files = [tmp_path / "d" / name for name in ("all.json", "a.geojson")]
    report = annotate(slides, files, progress=Silent())
    assert report.objects == {"B": 1, "a": 2}


def test_names_of_files_fit_slides_by_the_one_rule(slides, tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a.geojson", "A.tif.json", "b.SVS.geojson", "Prüfung.JSON"):
        (tmp_path / "d" / name).write_text(geojson(BOX))
    report = annotate(slides, [tmp_path / "d"], progress=Silent())
    assert report.objects == dict.fromkeys(slides.names(), 1)
    (tmp_path / "d" / "B.geojson").write_text(geojson(BOX, BOX))
    report = annotate(slides, [tmp_path / "d"], progress=Silent())
    assert report.objects["B"] == 2
    assert report.unused == ("b.SVS.geojson",)
    report = annotate(slides, [tmp_path / "d" / "a.geojson"], name="alone", progress=Silent())
    assert report.objects == {"a": 1}
    assert "alone" not in slides["A"].label_names()


def test_what_is_not_drawn_is_reported(slides, tmp_path):
    (tmp_path / "d" / "more").mkdir(parents=True)
    (tmp_path / "d" / "notes.txt").write_text("x")
    (tmp_path / "d" / "a.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "d" / "b.JPG").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "d" / ".DS_Store").write_bytes(b"x")
    far = (1000, 1000, 1040, 1040), (-500, -20, -460, 20), (160, 0, 170, 10), (-50, -50, 10, -1)
    (tmp_path / "d" / "a.geojson").write_text(geojson(BOX, *far))
    (tmp_path / "d" / "B.geojson").write_text(geojson(BOX, name="other"))
    (tmp_path / "d" / "all.json").write_text(coco("A.tif", "c.tif", "d.tif"))
    reading = Reading(class_names=("T",))
    report = annotate(slides, [tmp_path / "d"], reading=reading, progress=Silent())
    assert report.objects == {"A": 1, "a": 1, "B": 0}
    reported = report.lines()
    assert f"not read in {tmp_path / 'd'}: 2 .jpg, 1 folders, 1 .txt" in reported
    assert "a.geojson: 4 of 5 objects outside slide 'a' (160 x 128 px), skipped" in reported
    assert "all.json: 2 images without a slide: c.tif, d.tif" in reported
    assert "objects of classes that are not kept: other (1)" in reported


def test_an_outline_around_a_corner_of_the_slide_lies_outside(slides, tmp_path):
    around = shapely.Polygon([(150, -10), (200, -10), (200, 60), (165, 60), (165, -5), (150, -5)])
    feature = {"type": "Feature", "geometry": shapely.geometry.mapping(around),
               "properties": {"class": "T"}}  # fmt: skip
    (tmp_path / "a.geojson").write_text(json.dumps([feature]))
    report = annotate(slides, [tmp_path / "a.geojson"], progress=Silent())
    assert report.objects == {"a": 0}
    assert "1 of 1 object outside" in "\n".join(report.lines())


SMALL = (20, 20, 30, 30)
LAST = (22, 22, 24, 24)


@pytest.mark.parametrize(
    ("name", "value"),
    [("__ignore__", 255), ("Ignore*", 255), ("ignore*", 255), ("Ignore*: Positive", 255),
     ("ignore", 255), ("_background_", 0), ("__background__", 0)],
)  # fmt: skip
@pytest.mark.parametrize("make", ["labelme", "geojson", "coco"])
def test_names_that_programs_keep_for_their_own_use(slides, tmp_path, name, value, make):
    shapes = [("T", BOX), (name, SMALL), ("T", LAST)]
    boxes = [json.loads(geojson(box, name=label))[0] for label, box in shapes]
    text = labelme(*shapes) if make == "labelme" else json.dumps(boxes)
    if make == "coco":
        document = json.loads(coco("a"))
        document["categories"] = [{"id": 1, "name": "T"}, {"id": 0, "name": name}]
        document["annotations"] = [
            {"image_id": 0, "category_id": int(label == "T"),
             "segmentation": [shapely.get_coordinates(shapely.box(*box)).ravel().tolist()]}
            for label, box in shapes
        ]  # fmt: skip
        text = json.dumps(document)
    (tmp_path / "a.json").write_text(text)
    report = annotate(slides, [tmp_path / "a.json"], progress=Silent())
    assert report.classes == ("T",)
    assert report.objects == {"a": 2}
    expected = {1: 1600 - 100 + 4} | ({255: 96} if value else {})
    assert pixels(slides, "a") == expected
    asked = Reading(class_names=("T", name), merged={"T": "T", name: name})
    report = annotate(slides, [tmp_path / "a.json"], name="asked", reading=asked, progress=Silent())
    assert pixels(slides, "a", "asked") == {1: 1504, 2: 96}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "/x", "a/b", ".partial", "zarr.json", "x" * 256, "ü" * 128]
)
def test_labels_have_names_of_folders(slides, tmp_path, name):
    (tmp_path / "a.geojson").write_text(geojson(BOX))
    before = sorted(path for path in tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="got the label name"):
        annotate(slides, [tmp_path / "a.geojson"], name=name, progress=Silent())
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a#b", "a?b", "x" * 255, "ü", "a b", "%41", "s3:x"])
def test_labels_may_have_any_other_name(slides, tmp_path, name):
    (tmp_path / "a.geojson").write_text(geojson(BOX))
    for _ in range(2):
        annotate(slides, [tmp_path / "a.geojson"], name=name, progress=Silent())
    assert pixels(slides, "a", name) == {1: 1600}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xd8\xff\xe0", "JPEG image, whose lossy compression changes class ids"),
        (b"\x93NUMPY\x01", "NumPy array"), (b"PK\x03\x04", "ZIP archive"),
        (b"GIF89a", "GIF image"), (b"BM\x00", "BMP image"), (b"RIFF\0\0", "WebP image"),
        (b"\x89HDF\r\n", "HDF5"), (b"\x80\x04\x95", "pickle"), (b"%PDF-1.4", "PDF"),
    ],
)  # fmt: skip
def test_files_that_are_no_annotation_are_called_by_their_kind(slides, tmp_path, content, said):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(BatchError, match=said):
        annotate(slides, [tmp_path / "a.bin"], progress=Silent()).require_whole()


def test_a_file_that_fits_nothing_names_what_it_holds(slides, tmp_path):
    (tmp_path / "all.json").write_text(coco("c.tif", "d.tif"))
    with pytest.raises(AnnotationError, match=r"matches no slide .*names in it \(c.tif, d.tif\)"):
        annotate(slides, [tmp_path / "all.json"], progress=Silent())
