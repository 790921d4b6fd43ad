"""Owns reading DICOM segmentations of whole slides as label images, with pydicom."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder

from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits
from wsi_seg.slides.instances import read_header, translate_dicom_errors

# Segmentation Storage and Label Map Segmentation Storage.
_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """A segmentation of a whole slide, made by `read_segmentation`.

    Parameters
    ----------
    path
        The file.
    extent
        Size of the total pixel matrix.
    names
        Segment labels by segment number.
    """

    path: Path
    extent: Extent
    names: dict[int, str]
    _data: pydicom.Dataset

    def planes(self) -> Iterator[NDArray[Any]]:
        """Yield planes of segment numbers, ``(H, W)`` uint16, 0 for background, as memory maps.

        A label map has one plane for all segments; otherwise there is one per segment, because
        segments may overlap.

        Raises
        ------
        SlideError
            If frames are damaged, or outside the image.
        """
        corners, segments = _corners(self), _segments(self)
        kinds: list[int | None] = [*self.names]
        if self._data.SegmentationType == "LABELMAP":
            kinds = [None]
        for number in kinds:
            indices = [i for i, one in enumerate(segments) if number is None or one == number]
            with TemporaryFile() as file:
                shape = self.extent.height, self.extent.width
                plane = np.memmap(file, np.uint16, "w+", shape=shape)
                with translate_dicom_errors(self.path):
                    for index, frame in zip(indices, self._frames(indices), strict=True):
                        y, x = corners[index]
                        part = plane[y : y + frame.shape[0], x : x + frame.shape[1]]
                        if not part.size or min(y, x) < 0:
                            raise SlideError(
                                f"{self.path}: frame {index} is at y={y} x={x}, outside "
                                f"{self.extent}; the file is damaged"
                            )
                        values = frame[: part.shape[0], : part.shape[1]]
                        part[...] = values if number is None else number * self._is_in(values)
                yield plane

    def _frames(self, indices: list[int]) -> Iterator[NDArray[Any]]:
        syntax = self._data.file_meta.TransferSyntaxUID
        if self._data.BitsAllocated == 1 and not syntax.is_encapsulated:
            yield from (self._bits(index) for index in indices)
        elif indices:
            decoded = get_decoder(syntax).iter_array(self._data, indices=indices, raw=True)
            yield from (frame for frame, _ in decoded)

    def _bits(self, index: int) -> NDArray[np.uint8]:
        """Unpack a 1-bit frame that may start within a byte, which pydicom does not support."""
        rows, columns = int(self._data.Rows), int(self._data.Columns)
        first = index * rows * columns
        packed = self._data.PixelData[first // 8 : -(-(first + rows * columns) // 8)]
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")
        frame: NDArray[np.uint8] = bits[first % 8 : first % 8 + rows * columns]
        return frame.reshape(rows, columns)

    def _is_in(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which pixels of a frame are in its segment; fractional values from one half up."""
        if self._data.SegmentationType == "FRACTIONAL":
            inside: NDArray[np.bool_] = values >= 0.5 * int(self._data.MaximumFractionalValue)
            return inside
        return values > 0


def segmented_extent(path: Path) -> Extent | None:
    """Return the image size of a DICOM segmentation; None for any other DICOM file."""
    tags = ("SOPClassUID", "TotalPixelMatrixRows", "TotalPixelMatrixColumns")
    header = read_header(path, tags)
    if header.get("SOPClassUID") not in _CLASSES or "TotalPixelMatrixRows" not in header:
        return None
    with translate_dicom_errors(path):
        return Extent(
            height=int(header.TotalPixelMatrixRows), width=int(header.TotalPixelMatrixColumns)
        )


def read_segmentation(path: Path) -> Segmentation:
    """Read a DICOM segmentation of a whole slide, with its compressed frames in memory.

    Parameters
    ----------
    path
        A tiled file of type BINARY, FRACTIONAL or LABELMAP.

    Raises
    ------
    SlideError
        If it is damaged, or exceeds one of the `wsi_seg.limits`.
    UnsupportedSlideError
        If it is not a segmentation of a slide.

    Examples
    --------
    >>> read_segmentation(Path("seg/slide/level-0.dcm")).names  # doctest: +SKIP
    {1: 'gland'}
    """
    extent = segmented_extent(path)
    if extent is None:
        raise UnsupportedSlideError(
            f"{path}: is not a DICOM segmentation of a slide; expected a tiled one"
        )
    if extent.area > limits().level_pixels:
        raise SlideError(f"{path}: got a segmentation of {extent}; {advice('level_pixels')}")
    with translate_dicom_errors(path):
        data = pydicom.dcmread(path)
        if int(data.Rows) * int(data.Columns) > limits().level_pixels:
            raise SlideError(f"{path}: got frames of {data.Columns} x {data.Rows} px")
        names = {int(one.SegmentNumber): str(one.SegmentLabel) for one in data.SegmentSequence}
        # A label map may also describe its background.
        names.pop(0, None)
    return Segmentation(path, extent, names, data)


def _corners(found: Segmentation) -> NDArray[np.int64]:
    """Return the first row and column of each frame, ``(frames, 2)`` int64, from 0."""
    data = found._data
    frames, rows, columns = int(data.NumberOfFrames), int(data.Rows), int(data.Columns)
    if data.get("DimensionOrganizationType") == "TILED_FULL":
        across, down = -(-found.extent.width // columns), -(-found.extent.height // rows)
        at = np.divmod(np.arange(frames) % (across * down), across)
        return np.stack(at, axis=1).astype(np.int64) * np.array([rows, columns], np.int64)
    with translate_dicom_errors(found.path):
        positions = [one.PlanePositionSlideSequence[0] for one in _groups(found)]
        return (
            np.array(
                [
                    (
                        one.RowPositionInTotalImagePixelMatrix,
                        one.ColumnPositionInTotalImagePixelMatrix,
                    )
                    for one in positions
                ],
                dtype=np.int64,
            ).reshape(-1, 2)
            - 1
        )


def _segments(found: Segmentation) -> list[int]:
    """List the segment number of each frame; 0 in a label map, whose frames hold all segments."""
    data = found._data
    frames = int(data.NumberOfFrames)
    if data.SegmentationType == "LABELMAP":
        return [0] * frames
    if data.get("DimensionOrganizationType") == "TILED_FULL":  # ordered by segment
        tiles = max(1, frames // max(1, len(found.names)))
        numbers = sorted(found.names)
        return [numbers[min(i // tiles, len(numbers) - 1)] for i in range(frames)]
    with translate_dicom_errors(found.path):
        return [
            int(one.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            for one in _groups(found)
        ]


def _groups(found: Segmentation) -> list[pydicom.Dataset]:
    groups = list(found._data.PerFrameFunctionalGroupsSequence)
    if len(groups) != int(found._data.NumberOfFrames):
        raise SlideError(
            f"{found.path}: states the positions of {len(groups)} frames; expected "
            f"{found._data.NumberOfFrames}; the file is damaged"
        )
    return groups
