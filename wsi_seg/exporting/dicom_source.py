"""Owns the header of the source slide for DICOM exports, completed as highdicom requires."""

from pathlib import Path
from typing import TYPE_CHECKING

from wsi_seg.errors import OutputError
from wsi_seg.slides import search_slides, slide_name

if TYPE_CHECKING:
    from pydicom import Dataset

_REQUIRED = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "NumberOfFrames",
    "TotalPixelMatrixOriginSequence",
    "ImageOrientationSlide",
    "SharedFunctionalGroupsSequence",
)
# Type 2 attributes: required by the standard, but may be empty. Some converters omit them.
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_EMPTY_SEQUENCES = ("IssuerOfTheContainerIdentifierSequence", "ContainerTypeCodeSequence")


def source_header(folder: Path, name: str) -> "Dataset":
    """Read the header of the finest level of a DICOM slide, and add missing type 2 attributes.

    Parameters
    ----------
    folder
        A file, a folder of one slide, or a folder of several.
    name
        Name of the slide.

    Raises
    ------
    OutputError
        If the slide is not found, or its header lacks required attributes.
    """
    import pydicom

    from wsi_seg.slides.series import levels_of_series  # imports pydicom

    for path in search_slides([folder]).slides:
        files = levels_of_series(path) if slide_name(path) == name else ()
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
        if headers:
            return _completed(max(headers, key=lambda h: int(h.TotalPixelMatrixRows)), path)
    raise OutputError(
        f"slide {name!r} is not among the DICOM slides of {folder}; expected the slides that were "
        "predicted, under the same names"
    )


def _completed(header: "Dataset", path: Path) -> "Dataset":
    """Add missing type 2 attributes as empty values."""
    missing = [keyword for keyword in _REQUIRED if keyword not in header]
    if missing:
        raise OutputError(
            f"{path}: its header lacks {', '.join(missing)}; expected a DICOM slide with its "
            "identity, origin and orientation, which segmentations and annotations refer to"
        )
    for keyword in _TYPE_2:
        if keyword not in header:
            setattr(header, keyword, None)
    for keyword in _EMPTY_SEQUENCES:
        if keyword not in header:
            setattr(header, keyword, [])
    for specimen in header.get("SpecimenDescriptionSequence", []):
        if "IssuerOfTheSpecimenIdentifierSequence" not in specimen:
            specimen.IssuerOfTheSpecimenIdentifierSequence = []
    return header
