"""Owns writing predictions as DICOM segmentations and annotations, through highdicom."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray

from wsi_seg.errors import OutputError
from wsi_seg.exporting.codes import ClassCodes
from wsi_seg.exporting.holes import without_holes
from wsi_seg.exporting.instances import STRIP_PX
from wsi_seg.exporting.outlines import Outlines, read_ids
from wsi_seg.files.atomic import atomic_folder, atomic_path
from wsi_seg.store import Multiscale

if TYPE_CHECKING:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.ann import AnnotationGroup
    from pydicom import Dataset

_NAME = "wsi_seg"
_FRAME_PX = 512


def write_dicom_seg(
    path: Path, image: Multiscale, source: "Dataset", codes: Mapping[int, ClassCodes]
) -> list[Path]:
    """Write class ids or probabilities as a pyramid of DICOM segmentations.

    Class ids are of type LABELMAP; probabilities are FRACTIONAL, with a segment for each class.
    Empty frames are omitted. Pixels are memory-mapped until they are compressed, so memory holds
    the compressed frames of one level.

    Parameters
    ----------
    path
        Folder to write atomically, with one file for each level.
    image
        Label map ``(H, W)`` uint8, or probabilities ``(H, W, C)`` uint8, value / 255.
    source
        Header of the slide's finest level.
    codes
        Coded concepts by class id.

    Returns
    -------
    list[Path]
        The files, finest level first.

    Raises
    ------
    OutputError
        If the files cannot be written, or the slide's mpp is unknown.
    """
    from highdicom import UID

    series, pyramid = UID(), UID()
    names = [f"level-{level}.dcm" for level in range(len(image.pyramid.extents))]
    with atomic_folder(path) as folder:
        for level, name in enumerate(names):
            made = _segmentation(image, level, source, codes, (series, pyramid))
            made.save_as(folder / name)
    return [path / name for name in names]


def _segmentation(
    image: Multiscale,
    level: int,
    source: "Dataset",
    codes: Mapping[int, ClassCodes],
    uids: tuple[str, str],
) -> "Dataset":
    from highdicom import UID, PlanePositionSequence
    from highdicom.content import PixelMeasuresSequence, PlaneOrientationSequence
    from highdicom.seg import Segmentation
    from pydicom.uid import RLELossless

    spacing = [_mm(image) * image.pyramid.downsample(level)] * 2
    origin = source.TotalPixelMatrixOriginSequence[0]
    offset = [
        float(origin.XOffsetInSlideCoordinateSystem),
        float(origin.YOffsetInSlideCoordinateSystem),
        float(origin.get("ZOffsetInSlideCoordinateSystem", 0.0)),
    ]
    with TemporaryFile() as file:
        pixels = _pixels(file, image, level)
        made: Dataset = Segmentation(
            source_images=[source],
            pixel_array=pixels,
            segmentation_type="LABELMAP" if image.channels is None else "FRACTIONAL",
            fractional_type="PROBABILITY",
            max_fractional_value=255,
            segment_descriptions=_segments(image, codes),
            series_instance_uid=uids[0],
            sop_instance_uid=UID(),
            instance_number=level + 1,
            transfer_syntax_uid=RLELossless,
            tile_pixel_array=True,
            tile_size=(_FRAME_PX, _FRAME_PX),
            pixel_measures=PixelMeasuresSequence(spacing, _thickness(source)),
            plane_positions=[PlanePositionSequence("SLIDE", offset, (1, 1))],
            plane_orientation=PlaneOrientationSequence(
                "SLIDE", [float(x) for x in source.ImageOrientationSlide]
            ),
            pyramid_uid=uids[1],
            pyramid_label=f"{_NAME} pyramid",
            content_label="SEGMENTATION",
            content_description="classes of pixels",
            **_equipment(),
        )
    return made


def _pixels(file: IO[bytes], image: Multiscale, level: int) -> NDArray[Any]:
    """Memory-map a level: class ids ``(H, W)``, or probabilities ``(1, H, W, C)`` of 0 to 1."""
    extent = image.pyramid.extents[level]
    if image.channels is None:
        ids = np.memmap(file, np.uint8, "w+", shape=(extent.height, extent.width))
        for strip in extent.strips(STRIP_PX, level):
            ids[strip.slices] = read_ids(image, strip)
        return ids
    shape = (1, extent.height, extent.width, image.channels)
    fractions = np.memmap(file, np.float32, "w+", shape=shape)
    for strip in extent.strips(STRIP_PX, level):
        fractions[0][strip.slices] = image.read(strip, cached=False) / np.float32(255)
    return fractions


def _equipment() -> dict[str, Any]:
    from wsi_seg import __version__

    return {
        "series_number": 100,
        "manufacturer": _NAME,
        "manufacturer_model_name": _NAME,
        "software_versions": __version__,
        "device_serial_number": "1",
    }


def _mm(label: Multiscale) -> float:
    if label.pyramid.mpp is None:
        raise OutputError(f"{label.path}: its mpp is unknown; DICOM requires the pixel spacing")
    return label.pyramid.mpp / 1000


def _thickness(source: "Dataset") -> float:
    """Return the slice thickness in mm; 1 um if the header does not give it."""
    measures = source.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    return float(measures.get("SliceThickness", 0.001))


def _algorithm() -> "AlgorithmIdentificationSequence":
    from highdicom import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    from wsi_seg import __version__

    return AlgorithmIdentificationSequence(
        name=_NAME, family=codes.DCM.ArtificialIntelligence, version=__version__
    )


def _segments(image: Multiscale, codes: Mapping[int, ClassCodes]) -> list[Any]:
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription

    return [
        SegmentDescription(
            segment_number=entry.id,
            segment_label=entry.name,
            segmented_property_category=codes[entry.id].category,
            segmented_property_type=codes[entry.id].type,
            algorithm_type="AUTOMATIC",
            algorithm_identification=_algorithm(),
            display_color=CIELabColor.from_rgb(*entry.rgb),
        )
        for entry in image.classes
    ]


def write_dicom_ann(
    path: Path, objects: Outlines, source: "Dataset", codes: Mapping[int, ClassCodes]
) -> None:
    """Write outlines as DICOM annotations: a group with areas for each class that has objects.

    DICOM polygons cannot have holes. An object with holes is split into several polygons, and the
    first of them carries its area. All outlines are held in memory.

    Parameters
    ----------
    path
        File to write.
    objects
        Objects of one slide.
    source
        Header of the slide's finest level.
    codes
        Coded concepts by class id.

    Raises
    ------
    OutputError
        If the file cannot be written, or there are no outlines.
    """
    from highdicom import UID
    from highdicom.ann import MicroscopyBulkSimpleAnnotations

    drawn = _drawn(objects)
    if not drawn:
        raise OutputError(
            f"{path}: got no outlines; expected at least one, as DICOM annotations cannot be empty"
        )
    groups = [
        _group(number, objects, class_id, drawn[class_id], codes[class_id])
        for number, class_id in enumerate(sorted(drawn), 1)
    ]
    made = MicroscopyBulkSimpleAnnotations(
        source_images=[source],
        annotation_coordinate_type="2D",
        annotation_groups=groups,
        series_instance_uid=UID(),
        sop_instance_uid=UID(),
        instance_number=1,
        content_label="OUTLINES",
        content_description="outlines of objects",
        **_equipment(),
    )
    with atomic_path(path) as temporary:
        made.save_as(temporary)


@dataclass(slots=True, eq=False)
class _Drawn:
    """Polygons ``(n, 2)`` of one class, and their areas: nan except for the first of an object."""

    polygons: list[NDArray[np.float32]]
    areas: list[float]


def _drawn(objects: Outlines) -> dict[int, _Drawn]:
    found: dict[int, _Drawn] = {}
    for batch in objects.batches():
        rows = zip(
            batch.class_id.tolist(), batch.polygons, batch.figures["area"].tolist(), strict=True
        )
        for class_id, polygon, area in rows:
            group = found.setdefault(class_id, _Drawn([], []))
            for index, part in enumerate(without_holes(polygon)):
                points = shapely.get_coordinates(part.exterior)[:-1]
                group.polygons.append(points.astype(np.float32))
                group.areas.append(np.nan if index else area)
    return found


def _group(
    number: int, objects: Outlines, class_id: int, drawn: _Drawn, codes: ClassCodes
) -> "AnnotationGroup":
    from highdicom import UID
    from highdicom.ann import AnnotationGroup, Measurements
    from highdicom.color import CIELabColor
    from pydicom.sr.codedict import codes as concepts

    entry = next(entry for entry in objects.classes if entry.id == class_id)
    square = concepts.UCUM.SquareMicrometer
    measured = None  # highdicom would write an empty list, which DICOM does not allow
    if objects.label.pyramid.mpp is not None:
        measured = [Measurements(concepts.SCT.Area, np.array(drawn.areas), square)]
    return AnnotationGroup(
        number=number,
        uid=UID(),
        label=entry.name,
        annotated_property_category=codes.category,
        annotated_property_type=codes.type,
        graphic_type="POLYGON",
        graphic_data=drawn.polygons,
        algorithm_type="AUTOMATIC",
        algorithm_identification=_algorithm(),
        measurements=measured,
        display_color=CIELabColor.from_rgb(*entry.rgb),
    )
