"""Owns what exports in DICOM take from the slide: its header, with all that highdicom asks for."""

from pathlib import Path
from typing import TYPE_CHECKING

from wsi_seg.errors import OutputError
from wsi_seg.slides import search_slides, slide_name

if TYPE_CHECKING:
    from pydicom import Dataset

_NEEDED = (
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "NumberOfFrames",
    "TotalPixelMatrixOriginSequence",
    "ImageOrientationSlide",
    "SharedFunctionalGroupsSequence",
)
# What every file has by the standard, though it may be empty (type 2); converters leave it out.
_MAY_BE_EMPTY = (
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
    """Read the header of the finest level of a DICOM slide; what may be empty in it is there.

    Parameters
    ----------
    folder
        Where the slides are: a file, a folder of one slide, or one of several.
    name
        Of the slide.

    Raises
    ------
    OutputError
        If the slide is not there, or does not say what its exports need.
    """
    import pydicom

    from wsi_seg.slides.series import levels_of_series  # needs pydicom as it is loaded

    for path in search_slides([folder]).slides:
        files = levels_of_series(path) if slide_name(path) == name else ()
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
        if headers:
            return _completed(max(headers, key=lambda h: int(h.TotalPixelMatrixRows)), path)
    raise OutputError(
        f"slide {name!r} is not among the DICOM slides of {folder}; expected the slides that were "
        "predicted, with their names"
    )


def _completed(header: "Dataset", path: Path) -> "Dataset":
    """Add what may be empty and is left out."""
    missing = [keyword for keyword in _NEEDED if keyword not in header]
    if missing:
        raise OutputError(
            f"{path}: its header lacks {', '.join(missing)}; expected a DICOM slide that says "
            "where it is, so that what is found can be placed on it"
        )
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, None)
    for keyword in _EMPTY_SEQUENCES:
        if keyword not in header:
            setattr(header, keyword, [])
    for specimen in header.get("SpecimenDescriptionSequence", []):
        if "IssuerOfTheSpecimenIdentifierSequence" not in specimen:
            specimen.IssuerOfTheSpecimenIdentifierSequence = []
    return header
