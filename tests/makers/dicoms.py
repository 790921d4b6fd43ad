"""Owns made-up DICOM files: whole slides in tiles, and plain images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from wsi_seg.geometry import Extent

_MICROSCOPY = "1.2.840.10008.5.1.4.1.1.77.1.6"
_ROOT = "1.2.826.0.1.3680043.8.498."

# Size of the frames of made-up slides.
DICOM_TILE = Extent(height=48, width=64)

Frames = Literal["raw", "jpeg", "jpeg2000"]
_SYNTAX: dict[Frames, UID] = {
    "raw": ExplicitVRLittleEndian,
    "jpeg": JPEGBaseline8Bit,
    "jpeg2000": JPEG2000Lossless,
}


def new_dicom(sop_class: str, number: int, *, series: int = 1) -> FileDataset:
    """Make a data set with what every DICOM file has; ``number`` is of the file in its series."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(f"{_ROOT}{series}.{number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID = meta.MediaStorageSOPClassUID
    header.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    header.StudyInstanceUID = UID(f"{_ROOT}9")
    header.SeriesInstanceUID = UID(f"{_ROOT}{series}")
    header.InstanceNumber = number
    return header


def write_dicom_level(
    path: Path,
    pixels: NDArray[np.uint8],
    *,
    number: int,
    frames: Frames = "raw",
    sparse: Sequence[int] | None = None,
    flavour: str = "VOLUME",
    mpp: float = 0.5,
    series: int = 1,
) -> None:
    """Write one level of a whole slide as a DICOM file.

    Parameters
    ----------
    path
        File to write.
    pixels
        The level, ``(H, W, 3)`` uint8.
    number
        Of the file in its series.
    frames
        How frames are compressed.
    sparse
        Numbers of the frames to keep, in the order to write them; None writes TILED_FULL.
    flavour
        Third word of the image type: ``VOLUME``, ``LABEL``, ``OVERVIEW`` or ``THUMBNAIL``.
    mpp
        Micrometres per pixel of this level.
    series
        Number of the series.
    """
    header = new_dicom(_MICROSCOPY, number, series=series)
    header.ImageType = ["ORIGINAL", "PRIMARY", flavour, "NONE"]
    header.Modality = "SM"
    height, width = pixels.shape[:2]
    header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns = height, width
    header.ImagedVolumeHeight, header.ImagedVolumeWidth = height * mpp / 1000, width * mpp / 1000
    header.ImagedVolumeDepth = 0.001
    measures = Dataset()
    measures.PixelSpacing = [mpp / 1000, mpp / 1000]
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    tiles, corners = _tiles(pixels, DICOM_TILE)
    kept = list(range(len(tiles))) if sparse is None else list(sparse)
    header.DimensionOrganizationType = "TILED_FULL" if sparse is None else "TILED_SPARSE"
    if sparse is not None:
        header.PerFrameFunctionalGroupsSequence = [_placed(*corners[index]) for index in kept]
    _describe(header, DICOM_TILE, samples=3, bits=8, colours="RGB")
    header.NumberOfFrames = len(kept)
    _set_frames(header, [tiles[index] for index in kept], frames)
    header.save_as(path, enforce_file_format=True)


def write_dicom_image(
    path: Path,
    stored: NDArray[Any],
    *,
    sop_class: str = "1.2.840.10008.5.1.4.1.1.1",
    colours: str = "MONOCHROME2",
    bits: int | None = None,
    attributes: Mapping[str, object] | None = None,
    number: int = 1,
    series: int = 1,
) -> None:
    """Write a plain grey DICOM image, uncompressed.

    Parameters
    ----------
    path
        File to write.
    stored
        Samples ``(H, W)``, 8 or 16 bits, signed or not.
    sop_class
        Kind of image; computed radiography unless given.
    colours
        Photometric interpretation.
    bits
        Bits that count; all of the samples' own unless given.
    attributes
        More of the header by DICOM keyword, such as ``{"WindowCenter": 40}``.
    number, series
        Number of the file in its series, and of the series.
    """
    header = new_dicom(sop_class, number, series=series)
    allocated = stored.dtype.itemsize * 8
    _describe(header, Extent.of(stored.shape), samples=1, bits=allocated, colours=colours)
    header.BitsStored = bits or allocated
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    for keyword, value in (attributes or {}).items():
        setattr(header, keyword, value)
    header.PixelData = stored.tobytes()
    header["PixelData"].VR = "OW" if allocated > 8 else "OB"
    header.save_as(path, enforce_file_format=True)


def _describe(header: Dataset, frame: Extent, *, samples: int, bits: int, colours: str) -> None:
    header.Rows, header.Columns = frame.height, frame.width
    header.SamplesPerPixel = samples
    header.PhotometricInterpretation = colours
    header.BitsAllocated = header.BitsStored = bits
    header.HighBit, header.PixelRepresentation = bits - 1, 0
    if samples > 1:
        header.PlanarConfiguration = 0


def _tiles(
    pixels: NDArray[np.uint8], tile: Extent
) -> tuple[list[NDArray[np.uint8]], list[tuple[int, int]]]:
    """Cut full tiles, left to right, row by row; those that stick out are black there."""
    tiles, corners = [], []
    for y in range(0, pixels.shape[0], tile.height):
        for x in range(0, pixels.shape[1], tile.width):
            part = pixels[y : y + tile.height, x : x + tile.width]
            full = np.zeros((tile.height, tile.width, 3), np.uint8)
            full[: part.shape[0], : part.shape[1]] = part
            tiles.append(full)
            corners.append((y, x))
    return tiles, corners


def _placed(y: int, x: int) -> Dataset:
    position = Dataset()
    position.RowPositionInTotalImagePixelMatrix = y + 1
    position.ColumnPositionInTotalImagePixelMatrix = x + 1
    group = Dataset()
    group.PlanePositionSlideSequence = [position]
    return group


def _set_frames(header: FileDataset, tiles: list[NDArray[np.uint8]], frames: Frames) -> None:
    header.file_meta.TransferSyntaxUID = _SYNTAX[frames]
    if frames == "raw":
        header.PixelData = b"".join(tile.tobytes() for tile in tiles)
        header["PixelData"].VR = "OB"
        return
    if frames == "jpeg":
        header.PhotometricInterpretation = "YBR_FULL_422"
        streams = [bytes(imagecodecs.jpeg8_encode(tile, level=95)) for tile in tiles]
    else:
        streams = [bytes(imagecodecs.jpeg2k_encode(tile, codecformat="J2K")) for tile in tiles]
    header.PixelData = encapsulate(streams)
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
