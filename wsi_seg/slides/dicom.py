"""Owns reading DICOM slides: tiled whole-slide microscopy, and plain images (CR, DX, CT, US ...).

Grey images are converted to uint8 in these steps: rescale slope and intercept; then the window that
the caller gives, else the file's first window (linear, DICOM PS3.3 C.11.2.1.2.1), else -1,200 to
600 Hounsfield units for CT, else the full range of the stored bits; last, MONOCHROME1 is inverted.
Lookup tables (VOI LUT) are not applied.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.slides.dicom_levels import colour_of, frame_streams, read_levels
from wsi_seg.slides.instances import Instance, read_instance, translate_dicom_errors
from wsi_seg.slides.picture import SingleLevelSlide
from wsi_seg.slides.resolution import UNKNOWN, Resolution, choose_resolution, spacing_resolution
from wsi_seg.slides.series import levels_of_series, slice_distance, slice_file
from wsi_seg.slides.slide import NotCopyable, Slide, TileStreams, member_path, slide_name
from wsi_seg.slides.tiles import paste
from wsi_seg.slides.window import HOUNSFIELD, Window, grey_rgb


def open_dicom(path: Path, *, mpp: float | None = None, window: Window | None = None) -> Slide:
    """Open a DICOM file: a whole slide with all levels of its series, or one plain image.

    Parameters
    ----------
    path
        A file, or a folder that holds the files of one slide.
    mpp
        Micrometres per pixel of level 0; overrides the file's metadata.
    window
        Values shown as black and as white, after rescaling; grey images only.

    Raises
    ------
    SlideError
        If it is not DICOM, or is damaged.
    UnsupportedSlideError
        If it is of an unsupported kind.
    """
    files = levels_of_series(path)
    if files:
        return DicomSlide(path, files, mpp=mpp)
    return _open_plain(path, path, mpp, window)


def open_dicom_slice(
    folder: Path, z: int, *, mpp: float | None = None, window: Window | None = None
) -> Slide:
    """Open slice ``z`` of the series in a folder; slices are ordered by position.

    See `open_dicom`.
    """
    slide = _open_plain(member_path(folder, z), slice_file(folder, z), mpp, window)
    slide.slice_mm = slice_distance(folder)
    return slide


def _open_plain(
    named: Path, path: Path, mpp: float | None, window: Window | None
) -> SingleLevelSlide:
    instance = read_instance(path)
    if len(instance.starts) > 1:
        raise UnsupportedSlideError(
            f"{path}: got {len(instance.starts)} frames; expected one, or a whole slide; save the "
            "frames one by one"
        )
    with translate_dicom_errors(path):
        found = _plain_resolution(instance.header)
        _plain_window(instance, window)  # raises for an unusable one
    return SingleLevelSlide(
        named,
        "dicom",
        extent=instance.frame,
        resolution=choose_resolution(mpp, found, path, microscope=False),
        decode=partial(_decode_plain, path, window),
    )


class DicomSlide(Slide):
    """A whole slide in DICOM files, one or more per level; see `wsi_seg.slides.Slide`.

    Labels, overviews and thumbnails of the series are never read. Reading a region decodes only the
    frames that it intersects.

    Parameters
    ----------
    path
        The path that was opened: a file or a folder.
    files
        The files with the levels of this slide.
    mpp
        Micrometres per pixel of level 0; overrides the metadata.

    Raises
    ------
    SlideError
        If a file is damaged.
    UnsupportedSlideError
        If frames are not on a grid, or have several focal planes or channels.
    """

    format = "dicom"

    def __init__(self, path: Path, files: Sequence[Path], *, mpp: float | None = None) -> None:
        self.path = path
        self.name = slide_name(path)
        self._files, self._override = tuple(files), mpp
        instances = [read_instance(file) for file in files]
        self._levels = read_levels(instances)
        base = self._levels[0].instances[0]
        with translate_dicom_errors(base.path):  # names the file, not the folder
            found = choose_resolution(mpp, _tiled_resolution(base.header), base.path)
            self.mpp_source = found.source
            self.pyramid = Pyramid(tuple(level.extent for level in self._levels), found.mpp)

    def read_region(self, region: Region) -> NDArray[np.uint8]:
        """Read a region; see `wsi_seg.slides.Slide.read`."""
        self.pyramid.downsample(region.level)  # raises for a level that does not exist
        level = self._levels[region.level]
        require_inside(region, level.extent, self.name)
        out = np.empty((region.height, region.width, 3), np.uint8)
        out[...] = level.absent
        tile = level.tile
        for row in range(region.y // tile.height, -(-region.y_end // tile.height)):
            for column in range(region.x // tile.width, -(-region.x_end // tile.width)):
                file, frame = level.cells[row, column]
                if file < 0:
                    continue
                instance = level.instances[file]
                pixels = colour_of(instance).to_rgb(instance.decode(int(frame)))
                paste(pixels, row * tile.height, column * tile.width, region=region, out=out)
        return out

    def streams(self, level: int) -> TileStreams | NotCopyable:
        """Return the frames of a level; see `wsi_seg.slides.Slide.streams`."""
        return frame_streams(self._levels[level])

    def native_block(self, level: int) -> Extent:
        """Return the size of a frame."""
        return self._levels[level].tile

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self._files, self._override)


def _reopen(path: Path, files: tuple[Path, ...], mpp: float | None) -> DicomSlide:
    return DicomSlide(path, files, mpp=mpp)


def _tiled_resolution(header: Any) -> Resolution:  # noqa: ANN401 (pydicom's type)
    shared = header.get("SharedFunctionalGroupsSequence")
    measures = shared[0].get("PixelMeasuresSequence") if shared else None
    spacing = measures[0].get("PixelSpacing") if measures else None
    if spacing:
        return spacing_resolution(spacing, "dicom")
    height, width = header.get("ImagedVolumeHeight"), header.get("ImagedVolumeWidth")
    if not height or not width:
        return UNKNOWN
    sizes = height / header.TotalPixelMatrixRows, width / header.TotalPixelMatrixColumns
    return spacing_resolution(sizes, "dicom")


def _plain_resolution(header: Any) -> Resolution:  # noqa: ANN401 (pydicom's type)
    """Return the calibrated spacing in the patient if stated, else that at the detector."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = header.get(name)
        if spacing:
            return spacing_resolution(spacing, "dicom")
    return _tiled_resolution(header)


def _decode_plain(path: Path, window: Window | None) -> NDArray[np.uint8]:
    instance = read_instance(path)
    stored = instance.decode(0)
    if instance.samples.per_pixel == 3:
        return colour_of(instance).to_rgb(stored)
    with translate_dicom_errors(path):
        slope, intercept = _rescale(instance)
        values = stored[:, :, 0].astype(np.float32) * np.float32(slope) + np.float32(intercept)
        pixels = _plain_window(instance, window).to_uint8(values)
    inverted = instance.samples.colours == "MONOCHROME1"
    return grey_rgb(255 - pixels if inverted else pixels)


def _rescale(instance: Instance) -> tuple[float, float]:
    header = instance.header
    if "ModalityLUTSequence" in header:
        raise UnsupportedSlideError(
            f"{instance.path}: got a modality lookup table; expected a rescale slope; convert it"
        )
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    return float(1 if slope is None else slope), float(0 if intercept is None else intercept)


def _plain_window(instance: Instance, window: Window | None) -> Window:
    """Choose the intensity window by the rule in the module docstring."""
    if window is not None or instance.samples.per_pixel == 3:
        return window or Window(0, 255)
    header = instance.header
    centre, width = _first(header.get("WindowCenter")), _first(header.get("WindowWidth"))
    slope, intercept = _rescale(instance)
    if centre is not None and width is not None and width > 1:
        half = (width - 1) / 2
        return Window(centre - 0.5 - half, centre - 0.5 + half)
    if header.get("Modality") == "CT":
        return HOUNSFIELD
    low, high = sorted(value * slope + intercept for value in instance.samples.full_range)
    if not low < high:
        raise SlideError(
            f"{instance.path}: got a rescale slope of {slope}; expected a value other than 0"
        )
    return Window(low, high)


def _first(value: Any) -> float | None:  # noqa: ANN401 (a number, several, or None)
    if value is None:
        return None
    try:
        return float(value)
    except TypeError:
        return float(value[0]) if len(value) else None
