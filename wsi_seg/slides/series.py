"""Owns which DICOM files of a folder belong together: levels of a slide, slices of a series."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsi_seg.errors import SlideError
from wsi_seg.slides.instances import dicom_explained, is_dicom, read_header

MICROSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
_NO_LEVEL = {"LABEL", "OVERVIEW", "THUMBNAIL"}
_TAGS = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "ImageType",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "Rows",
)


@dataclass(frozen=True, slots=True)
class Brief:
    """What decides where a DICOM file belongs.

    Parameters
    ----------
    path
        The file.
    series
        Its series' UID.
    microscopy
        Whether it is of a whole slide.
    level
        Whether it is a level of it: no label, overview or thumbnail.
    area
        Px of the whole level.
    place
        Position along the axis of a stack of slices in mm, or None.
    """

    path: Path
    series: str
    microscopy: bool
    level: bool
    area: int
    place: float | None


def read_brief(path: Path) -> Brief | None:
    """Read what decides where a file belongs; None if it is no DICOM picture."""
    try:
        if not path.is_file() or not is_dicom(path):
            return None
        header = read_header(path, _TAGS)
        with dicom_explained(path):
            return _brief(path, header)
    except (SlideError, OSError):
        return None  # opening it says what is wrong


def levels_of_series(path: Path) -> tuple[Path, ...]:
    """Files with the levels of the slide that a file or folder holds; empty if it is no slide.

    Files of the same folder and series belong together.

    Raises
    ------
    SlideError
        If the file itself is a label, overview or thumbnail, or a folder holds several slides.
    """
    if path.is_dir():
        briefs = [brief for file in sorted(path.iterdir()) if (brief := read_brief(file))]
        levels = [brief for brief in briefs if brief.microscopy and brief.level]
        if len({brief.series for brief in levels}) != 1:
            raise SlideError(
                f"{path}: got a folder with {len({b.series for b in levels})} DICOM slides; "
                "expected one; name one of its files"
            )
        return tuple(brief.path for brief in levels)
    own = read_brief(path)
    if own is None or not own.microscopy:
        return ()
    if not own.level:
        raise SlideError(
            f"{path}: is the label, overview or thumbnail of a slide; expected one of its levels"
        )
    beside = [brief for file in sorted(path.parent.iterdir()) if (brief := read_brief(file))]
    same = [b.path for b in beside if b.microscopy and b.level and b.series == own.series]
    return tuple(same)


def _brief(path: Path, header: Any) -> Brief | None:  # noqa: ANN401 (pydicom's type)
    if "Rows" not in header:
        return None
    kind = {str(word) for word in header.get("ImageType") or ()}
    rows, columns = header.get("TotalPixelMatrixRows"), header.get("TotalPixelMatrixColumns")
    return Brief(
        path=path,
        series=str(header.get("SeriesInstanceUID", "")),
        microscopy=str(header.get("SOPClassUID", "")) == MICROSCOPY,
        level=not kind & _NO_LEVEL,
        area=int(rows or 0) * int(columns or 0),
        place=_place(header),
    )


def _place(header: Any) -> float | None:  # noqa: ANN401 (pydicom's type)
    """Distance along the normal of the slice, by DICOM PS3.3 C.7.6.2.1.1."""
    position, axes = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    if not position or not axes or len(position) != 3 or len(axes) != 6:
        return None
    rows, columns = np.array(axes[:3], float), np.array(axes[3:], float)
    return float(np.cross(rows, columns) @ np.array(position, float))
