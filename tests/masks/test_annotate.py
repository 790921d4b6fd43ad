"""Annotation files and masks of every kind reach the slides they belong to."""

import json
import shutil

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image

from tests.makers.coordinates import write_coordinate_tiff
from wsi_seg.annotations import Annotation, Annotations
from wsi_seg.annotations.rle import encode_rle
from wsi_seg.classes import ClassTable
from wsi_seg.errors import AnnotationError, BatchError, OutputError
from wsi_seg.geometry import Extent, Region
from wsi_seg.ingest.run import tile_slides
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.labels import write_labels
from wsi_seg.masks.objects import read_objects
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.masks.reading import Reading
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, writer

EXTENT = Extent(height=90, width=140)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for name in ("a", "B"):
        write_coordinate_tiff(folder / f"{name}.tif", extents=[EXTENT], mpp=0.5)
    tile_slides([folder], folder / "s.zarr", progress=Silent())
    return open_collection(folder / "s.zarr")


def whole():
    return EXTENT.region()


def blocks():
    """Label map of two classes, with a hole and a pixel at the border."""
    labels = np.zeros((EXTENT.height, EXTENT.width), np.uint8)
    labels[10:40, 20:60] = 1
    labels[20:25, 30:35] = 0
    labels[50:90, 100:140] = 2
    return labels


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_label_image_comes_back_pixel_for_pixel(slides, tmp_path, suffix):
    if suffix == "png":
        Image.fromarray(blocks()).save(tmp_path / "A.PNG")
    else:
        tifffile.imwrite(tmp_path / "a.tif", blocks(), tile=(32, 32), compression="zlib")
    reading = Reading(class_names=("first", "second"))
    report = annotate(slides, [tmp_path], name="m", reading=reading, progress=Silent())
    assert report.objects == {"a": 2}
    assert report.without == ("B",)
    assert np.array_equal(slides["a"].label("m").read(whole()), blocks())
    table = read_objects(slides["a"], "m")
    assert table.class_name.tolist() == ["first", "second"]
    assert table.area.tolist() == [(30 * 40 - 25) / 4, 1600 / 4]


def test_a_binary_mask_of_half_the_size_is_one_class(slides, tmp_path):
    mask = (blocks()[::2, ::2] > 0).astype(np.uint8) * 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    failed = annotate(slides, [tmp_path], name="b", progress=Silent())
    assert failed.without == ("B",)  # a slide that failed is no candidate for --unlisted-empty
    with pytest.raises(BatchError, match="has no class"):
        failed.require_whole()
    reading = Reading(default_class="tumour")
    annotate(slides, [tmp_path], name="b", reading=reading, progress=Silent())
    expected = mask.repeat(2, 0).repeat(2, 1) > 0
    assert np.array_equal(slides["a"].label("b").read(whole()) > 0, expected)
    Image.fromarray(mask[:-9]).save(tmp_path / "a.png")
    with pytest.raises(BatchError, match="140 x 90 px"):
        annotate(slides, [tmp_path], name="b", reading=reading, progress=Silent()).require_whole()


def test_numbered_objects_keep_their_numbers(slides, tmp_path):
    numbers = np.zeros((EXTENT.height, EXTENT.width), np.uint16)
    numbers[5:20, 5:20] = 300
    numbers[5:20, 20:40] = 301  # touches the one before
    numbers[60:70, 60:70] = 301  # a second part of it
    Image.fromarray(numbers).save(tmp_path / "b.png")
    reading = Reading(default_class="nucleus", source="hand", weight=0.25)
    report = annotate(slides, [tmp_path], name="n", reading=reading, progress=Silent())
    assert report.objects == {"B": 2}
    table = read_objects(slides["B"], "n")
    assert table.area.tolist() == [225 / 4, 400 / 4]
    assert set(table.source) == {"hand"}
    assert table.weight.tolist() == [0.25, 0.25]


def test_255_is_ignore_among_class_ids_and_unknown_ids_are_named(slides, tmp_path):
    labels = blocks()
    labels[70:80, 5:15] = 255
    Image.fromarray(labels).save(tmp_path / "a.png")
    reading = Reading(class_names=("first", "second"))
    annotate(slides, [tmp_path], name="i", reading=reading, progress=Silent())
    assert np.array_equal(slides["a"].label("i").read(whole()), labels)
    few = Reading(class_names=("first",))
    with pytest.raises(BatchError, match=r"class ids \[2\]"):
        annotate(slides, [tmp_path], name="i", reading=few, progress=Silent()).require_whole()


def test_a_csv_and_a_coco_file_name_their_slides(slides, tmp_path):
    mask = blocks() == 2
    csv = tmp_path / "train.csv"
    csv.write_text(f"id,rle\nb,{encode_rle(mask, dialect='absolute')}\nother,1 4 9 2\n")
    reading = Reading(default_class="second")
    report = annotate(slides, [csv], name="r", reading=reading, progress=Silent())
    assert report.objects == {"B": 1}
    assert np.array_equal(slides["B"].label("r").read(whole()) > 0, mask)
    coco = tmp_path / "instances.json"
    image = {"id": 1, "file_name": "a.tif", "height": 90, "width": 140}
    outline = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}
    document = {
        "images": [image],
        "annotations": [outline],
        "categories": [{"id": 1, "name": "x"}],
    }
    coco.write_text(json.dumps(document))
    report = annotate(slides, [coco], name="r", progress=Silent())
    assert report.objects == {"a": 1}


def square(name, side, source):
    ring = [[0, 0], [side, 0], [side, side], [0, side], [0, 0]]
    geometry = {"type": "Polygon", "coordinates": [ring]}
    properties = {"classification": {"name": name}, "source": source, "weight": 0.5}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def test_sets_of_one_slide_are_drawn_over_each_other(slides, tmp_path):
    for folder, feature in (("one", square("x", 20, "expert")), ("two", square("y", 10, "pseudo"))):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.geojson").write_text(json.dumps([feature]))
    folders = [tmp_path / "one", tmp_path / "two"]
    annotate(slides, folders, name="sets", progress=Silent())
    drawn = slides["a"].label("sets").read(whole())
    assert drawn[5, 5] == 2
    assert drawn[15, 15] == 1
    table = read_objects(slides["a"], "sets")
    assert table.source.tolist() == ["expert", "pseudo"]
    assert table.weight.tolist() == [0.5, 0.5]


def test_a_file_that_fits_no_slide_is_named(slides, tmp_path):
    (tmp_path / "c.geojson").write_text("[]")
    with pytest.raises(AnnotationError, match=r"c\.geojson matches no slide .* a, B|B, a"):
        annotate(slides, [tmp_path], progress=Silent())
    with pytest.raises(AnnotationError, match=r"c\.geojson matches no slide"):
        annotate(slides, [tmp_path / "c.geojson"], progress=Silent())
    (tmp_path / "a.geojson").write_text("[]")
    report = annotate(slides, [tmp_path], progress=Silent())
    assert report.unused == ("c.geojson",)
    assert "files that match no slide: c.geojson" in report.lines()
    (tmp_path / "a.geojson").unlink()
    colour = np.zeros((EXTENT.height, EXTENT.width, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    (tmp_path / "c.geojson").unlink()
    with pytest.raises(BatchError, match="3 channels"):
        annotate(slides, [tmp_path], progress=Silent()).require_whole()
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(BatchError, match="cannot be read as a mask"):
        annotate(slides, [tmp_path], progress=Silent()).require_whole()


def test_touching_objects_are_separated_by_a_boundary(slides, tmp_path):
    def box(x, side=20):
        ring = [[x, 10], [x + side, 10], [x + side, 40], [x, 40], [x, 10]]
        return {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"classification": {"name": "cell"}},
        }

    (tmp_path / "a.geojson").write_text(json.dumps([box(10), box(30), box(80)]))
    reading = Reading(boundary_um=2.0)  # 4 px
    report = annotate(slides, [tmp_path], name="p", reading=reading, progress=Silent())
    assert report.objects == {"a": 3}
    assert report.classes == ("boundary", "cell")
    drawn = slides["a"].label("p").read(whole())
    assert (drawn[20, 28:32] == 1).all()
    assert (drawn[20, 10:28] == 2).all()
    assert (drawn[20, 32:50] == 2).all()
    assert (drawn[20, 80:100] == 2).all()


def test_areas_are_true_at_low_levels_with_samples():
    """Stripes of a third of a pixel: one point at its centre sees none, or all of them."""
    stripes = [Annotation(shapely.box(x + 5, 0, x + 9.6, 64), "a") for x in range(0, 64, 8)]
    rasterizer = Rasterizer(stripes, ClassTable.named(["a"]))
    region = Region(level=1, y=0, x=0, height=8, width=8)
    assert (rasterizer.draw(region, (8.0, 8.0)) == 0).sum() >= 56
    assert (rasterizer.draw(region, (8.0, 8.0), samples=8)[:, 1:] == 1).all()


def test_slides_that_no_file_names_may_be_empty(slides, tmp_path):
    (tmp_path / "t.csv").write_text("ImageId,EncodedPixels\na,1 5\n")
    reading = Reading(default_class="gland", dialect="absolute", unlisted_empty=True)
    report = annotate(slides, [tmp_path / "t.csv"], name="e", reading=reading, progress=Silent())
    assert report.objects == {"a": 1, "B": 0}
    assert report.without == ()
    assert not slides["B"].label("e").read(whole()).any()
    assert len(read_objects(slides["B"], "e")) == 0


def test_labels_drawn_earlier_are_not_emptied(slides, tmp_path):
    (tmp_path / "first.csv").write_text("ImageId,EncodedPixels\nB,1 5\n")
    (tmp_path / "second.csv").write_text("ImageId,EncodedPixels\na,1 5\n")
    for file in ("first.csv", "second.csv"):
        reading = Reading(
            default_class="gland", dialect="absolute", unlisted_empty=file == "second.csv"
        )
        report = annotate(
            slides, [tmp_path / file], name="kept", reading=reading, progress=Silent()
        )
    assert report.objects == {"a": 1}
    assert slides["B"].label("kept").read(whole()).any()
    assert len(read_objects(slides["B"], "kept")) == 1


def test_slides_annotated_earlier_are_not_reported_as_missing(slides, tmp_path):
    for slide, without in (("a", ("B",)), ("B", ())):
        (tmp_path / "t.csv").write_text(f"ImageId,EncodedPixels\n{slide},1 5\n")
        report = annotate(
            slides,
            [tmp_path / "t.csv"],
            name="later",
            reading=Reading(default_class="gland", dialect="absolute"),
            progress=Silent(),
        )
        assert report.without == without


def test_a_label_stays_until_the_next_one_is_complete(slides, monkeypatch):
    square = Annotation(shapely.box(10, 10, 40, 40), "x", "expert")
    classes = ClassTable.named(["x"])
    write_labels(slides["a"], Annotations((square,), ()), classes, "late")

    def fail(*_, **__):
        raise OutputError("the disk is full")

    with monkeypatch.context() as context:
        context.setattr(writer, "write_digests", fail)
        with pytest.raises(OutputError):
            write_labels(slides["a"], Annotations((), ()), classes, "late")
    assert slides["a"].label("late").read(whole()).sum() == 30 * 30
    write_labels(slides["a"], Annotations((), ()), classes, "late")
    assert not slides["a"].label("late").read(whole()).any()
    assert not (slides["a"].path / ".wsi_seg/partial").exists()


def test_names_are_merged_by_the_command(slides, tmp_path):
    from typer.testing import CliRunner

    from wsi_seg.cli.app import app

    rows = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(shapely.box(x, 10, x + 20, 40)),
         "properties": {"classification": {"name": name}}}
        for x, name in ((10, "gn"), (40, "gs"), (70, "vessel"), (100, "nerve"))
    ]  # fmt: skip
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": rows}))
    words = ["annotate", str(slides.path), str(tmp_path / "a.geojson"), "--name", "merged"]
    words += ["--classes", "vessel,glomerulus=gn,gs", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.output.splitlines()[-1])["classes"] == ["vessel", "glomerulus"]
    drawn = slides["a"].label("merged").read(whole())
    assert drawn[20, [20, 50, 80, 110]].tolist() == [2, 2, 1, 0]
    assert set(read_objects(slides["a"], "merged").class_name) == {"vessel", "glomerulus"}


def polygons(path, *names):
    """GeoJSON with one square of each of these classes."""
    square = shapely.to_geojson(shapely.box(10, 10, 40, 40))
    features = [
        {
            "type": "Feature",
            "geometry": json.loads(square),
            "properties": {"classification": {"name": name}},
        }
        for name in names
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_classes_that_no_file_has_are_an_error_and_the_label_is_kept(slides, tmp_path):
    annotate(slides, [polygons(tmp_path / "a.geojson", "epidermis")], name="skin")
    other = polygons(tmp_path / "a.geojson", "Tumour")
    with pytest.raises(
        AnnotationError, match=r"files have no object.*Tumour \(1\).*epidermis=Tumour"
    ):
        annotate(slides, [other], name="skin", reading=Reading(class_names=("epidermis",)))
    assert len(read_objects(slides["a"], "skin")) == 1


def test_a_class_that_no_file_has_is_said(slides, tmp_path):
    reading = Reading(class_names=("gland", "vessel"))
    report = annotate(
        slides, [polygons(tmp_path / "a.geojson", "gland")], name="g", reading=reading
    )
    assert "no file has an object of class vessel" in report.lines()
    assert report.objects == {"a": 1}


@pytest.mark.parametrize("names", [(), ("Tumour",)])
def test_a_label_with_objects_is_not_emptied(slides, tmp_path, names):
    for slide in ("a", "B"):
        polygons(tmp_path / f"{slide}.geojson", "gland")
    annotate(slides, [tmp_path], name="full")
    polygons(tmp_path / "B.geojson", *names)
    reading = Reading(class_names=("gland",))
    report = annotate(slides, [tmp_path], name="full", reading=reading)
    assert report.objects == {"a": 1}
    assert "is unchanged" in report.failures["B"]
    assert len(read_objects(slides["B"], "full")) == 1
    with pytest.raises(BatchError):
        report.require_whole()
    shutil.rmtree(slides["B"].path / "labels" / "full")  # as the sentence says
    report = annotate(slides, [tmp_path], name="full", reading=reading)
    assert report.objects == {"a": 1, "B": 0}


def test_a_slide_with_nothing_on_it_is_drawn_again_and_again(slides, tmp_path):
    polygons(tmp_path / "a.geojson", "gland")
    polygons(tmp_path / "B.geojson")
    for _ in range(2):
        report = annotate(slides, [tmp_path], name="again")
        assert report.objects == {"a": 1, "B": 0}
        assert not report.failures
