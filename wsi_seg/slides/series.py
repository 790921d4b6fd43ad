"""Owns grouping the DICOM files of a folder into levels of a slide and slices of a series."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from wsi_seg.errors import SlideError
from wsi_seg.slides.containers import is_dicom
from wsi_seg.slides.instances import read_header, translate_dicom_errors
from wsi_seg.slides.slide import member_path

MICROSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.6"  # VL Whole Slide Microscopy Image Storage
_ASSOCIATED = {"LABEL", "OVERVIEW", "THUMBNAIL"}
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
    """Header values by which DICOM files are grouped.

    Parameters
    ----------
    path
        The file.
    series
        Series instance UID.
    microscopy
        Whether it is a VL Whole Slide Microscopy image.
    level
        Whether it is a pyramid level, not a label, overview or thumbnail.
    area
        Number of pixels of the level.
    position_mm
        Position along the normal of the slice in mm, or None.
    """

    path: Path
    series: str
    microscopy: bool
    level: bool
    area: int
    position_mm: float | None


def read_summary(path: Path) -> DicomSummary | None:
    """Read a file's summary; return None if it is not a DICOM image."""
    try:
        if not path.is_file() or not is_dicom(path):
            return None
        header = read_header(path, _TAGS)
        with translate_dicom_errors(path):
            return _summary(path, header)
    except (SlideError, OSError):
        return None  # opening the file will report the error


def levels_of_series(path: Path) -> tuple[Path, ...]:
    """Return the files with the levels of the slide in a file or folder; empty if not a slide.

    Files of one series in one folder form a slide.

    Raises
    ------
    SlideError
        If the file is a label, overview or thumbnail, or the folder does not hold exactly one
        slide.
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
    """Return the file of slice ``z`` of the series in a folder; slices are ordered by position.

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
    """Return the median distance in mm of the slices in a folder; None for a single slice."""
    positions = [position for position, _ in _slices(folder, folder.stat().st_mtime_ns)]
    return float(np.median(np.diff(positions))) or None if len(positions) > 1 else None


@dataclass(frozen=True, slots=True)
class Series:
    """DICOM files of a folder, sorted into slides and associated images."""

    slides: tuple[Path, ...]
    associated: tuple[Path, ...]


def find_series(folder: Path, files: Sequence[Path]) -> Series:
    """Group the DICOM files of one folder into slides.

    The files of a whole slide form one slide. It is listed as the folder if it is the only slide
    there and has several files, else as its file with the most pixels. The slices of a series that
    is alone in the folder are listed by position as ``folder/z0000``. Any other file is a slide.
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
    # Damaged files are listed, too: opening them will report the error.
    known = {summary.path for summary in summaries}
    slides += [file for file in files if file.suffix and file not in known]
    return Series(tuple(slides), tuple(b.path for b in summaries if b.microscopy and not b.level))


def _summaries(folder: Path) -> list[DicomSummary]:
    return [summary for file in sorted(folder.iterdir()) if (summary := read_summary(file))]


def _stack(summaries: Sequence[DicomSummary]) -> list[tuple[float, Path]]:
    """Return positions and files of a series of slices in order; empty if it is not a series."""
    slices = [(b.position_mm, b.path) for b in summaries if b.position_mm is not None]
    one_series = len({summary.series for summary in summaries}) == 1
    alone = one_series and len(slices) == len(summaries) > 1
    return sorted(slices) if alone else []


@lru_cache(maxsize=16)
def _slices(folder: Path, changed: int) -> tuple[tuple[float, Path], ...]:
    """Cache the order of a folder's slices; ``changed`` (mtime) invalidates the cache entry."""
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
        level=not kind & _ASSOCIATED,
        area=int(rows or 0) * int(columns or 0),
        position_mm=_position_mm(header),
    )


def _position_mm(header: Any) -> float | None:  # noqa: ANN401 (pydicom's type)
    """Return the position along the normal of the slice (DICOM PS3.3 C.7.6.2.1.1)."""
    position, axes = header.get("ImagePositionPatient"), header.get("ImageOrientationPatient")
    if not position or not axes or len(position) != 3 or len(axes) != 6:
        return None
    rows, columns = np.array(axes[:3], float), np.array(axes[3:], float)
    return float(np.cross(rows, columns) @ np.array(position, float))
