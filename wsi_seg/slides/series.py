"""Owns which DICOM files of a folder belong together: levels of a slide, slices of a series."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wsi_seg.errors import SlideError
from wsi_seg.slides.instances import is_dicom, read_header, translate_dicom_errors
from wsi_seg.slides.slide import member_path

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
class DicomSummary:
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
        Pixels of the whole level.
    place
        Position along the axis of a stack of slices in mm, or None.
    """

    path: Path
    series: str
    microscopy: bool
    level: bool
    area: int
    place: float | None


def read_summary(path: Path) -> DicomSummary | None:
    """Read what decides where a file belongs; None if it is not a DICOM picture."""
    try:
        if not path.is_file() or not is_dicom(path):
            return None
        header = read_header(path, _TAGS)
        with translate_dicom_errors(path):
            return _summary(path, header)
    except (SlideError, OSError):
        return None  # opening it says what is wrong


def levels_of_series(path: Path) -> tuple[Path, ...]:
    """Files with the levels of the slide that a file or folder holds; empty if it is not a slide.

    Files of the same folder and series belong together.

    Raises
    ------
    SlideError
        If the file itself is a label, overview or thumbnail, or a folder holds no slide or
        several.
    """
    if path.is_dir():
        levels = [summary for summary in _summaries(path) if summary.microscopy and summary.level]
        series = {summary.series for summary in levels}
        if len(series) != 1:
            raise SlideError(
                f"{path}: got a folder with {len(series) or 'no'} DICOM slides; expected one; "
                "name one of its files, or a slice as FOLDER/z0000"
            )
        return tuple(summary.path for summary in levels)
    own = read_summary(path)
    if own is None or not own.microscopy:
        return ()
    if not own.level:
        raise SlideError(
            f"{path}: is the label, overview or thumbnail of a slide; expected one of its levels"
        )
    siblings = _summaries(path.parent)
    return tuple(b.path for b in siblings if b.microscopy and b.level and b.series == own.series)


def slice_file(folder: Path, z: int) -> Path:
    """File with one slice of the series in a folder; slices are counted by their position.

    Raises
    ------
    SlideError
        If the folder has no such slice.
    """
    slices = tuple(path for _, path in _slices(folder, folder.stat().st_mtime_ns))
    if not 0 <= z < len(slices):
        raise SlideError(
            f"{folder}: got slice {z}; expected one of {len(slices)} DICOM slices of one series"
        )
    return slices[z]


def slice_distance(folder: Path) -> float | None:
    """Millimetres from slice to slice of the series in a folder, the median of all; None of one."""
    places = [place for place, _ in _slices(folder, folder.stat().st_mtime_ns)]
    return float(np.median(np.diff(places))) or None if len(places) > 1 else None


@dataclass(frozen=True, slots=True)
class Series:
    """What the DICOM files of a folder are: slides, and pictures that are not."""

    slides: tuple[Path, ...]
    no_levels: tuple[Path, ...]


def find_series(folder: Path, files: Sequence[Path]) -> Series:
    """Sort DICOM files of one folder into slides.

    The files of a whole slide are one slide, and the folder stands for it if it is the only one and
    has several files; otherwise its file with most pixels does. A series of slices, if it is alone
    in the folder, is listed by position as ``folder/z0000``. Every other file is a slide of its
    own.
    """
    summaries = [summary for file in files if (summary := read_summary(file))]
    levels = [summary for summary in summaries if summary.microscopy and summary.level]
    largest: dict[str, DicomSummary] = {}
    for summary in levels:
        if summary.series not in largest or summary.area > largest[summary.series].area:
            largest[summary.series] = summary
    slides = [folder]
    if len(largest) != 1 or len(levels) == 1:
        slides = [summary.path for summary in largest.values()]
    stack = _stack(summaries)
    others = [summary.path for summary in summaries if not summary.microscopy]
    slides += [member_path(folder, z) for z in range(len(stack))] or others
    # Damaged files are slides too: opening them says what is wrong.
    known = {summary.path for summary in summaries}
    slides += [file for file in files if file.suffix and file not in known]
    return Series(tuple(slides), tuple(b.path for b in summaries if b.microscopy and not b.level))


def _summaries(folder: Path) -> list[DicomSummary]:
    return [summary for file in sorted(folder.iterdir()) if (summary := read_summary(file))]


def _stack(summaries: Sequence[DicomSummary]) -> list[tuple[float, Path]]:
    """Places and files of a series of slices, in order; empty if these are not such a series."""
    places = [(summary.place, summary.path) for summary in summaries if summary.place is not None]
    one_series = len({summary.series for summary in summaries}) == 1
    alone = one_series and len(places) == len(summaries) > 1
    return sorted(places) if alone else []


@lru_cache(maxsize=16)
def _slices(folder: Path, changed: int) -> tuple[tuple[float, Path], ...]:
    """Keep the order of a folder's slices; ``changed`` makes a changed folder another one."""
    del changed
    return tuple(_stack(_summaries(folder)))


def _summary(path: Path, header: Any) -> DicomSummary | None:  # noqa: ANN401 (pydicom's type)
    if "Rows" not in header:
        return None
    kind = {str(word) for word in header.get("ImageType") or ()}
    rows, columns = header.get("TotalPixelMatrixRows"), header.get("TotalPixelMatrixColumns")
    return DicomSummary(
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
