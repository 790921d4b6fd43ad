"""Owns reading volumes (mhd, mha, nii, nrrd) with SimpleITK as one slide per z slice.

A slice is named as if the volume were a folder: ``ct.nii.gz/z0012`` is the slide ``ct_z0012``.
Axial volumes are reoriented so that columns run to the patient's left, rows to the back and slices
to the head (LPS), as viewers show them, whatever the order in the file; others are read as stored.
Values other than uint8 are converted with an intensity window: the one that the caller gives, else
the file's display range (NIfTI cal_min and cal_max), else the full range of unsigned integers, else
Hounsfield units from -1,200 to 600.
Only the requested slice is read into memory, unless the whole file is compressed as one stream:
then the last volume of up to 512 MB is cached, because any slice requires decompressing all.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.extras import naming_extra
from wsi_seg.geometry import Extent
from wsi_seg.slides.failures import translate_errors
from wsi_seg.slides.picture import SingleLevelSlide
from wsi_seg.slides.resolution import Resolution, choose_resolution, spacing_resolution
from wsi_seg.slides.slide import member_path
from wsi_seg.slides.window import HOUNSFIELD, Window, grey_rgb

logger = logging.getLogger(__name__)

# Suffixes of files that are, or may be, one compressed stream.
_COMPRESSED = (".gz", ".nrrd")

# Largest cached volume in bytes: 1,000 slices of 512 x 512 px with 2 bytes per voxel.
_MAX_CACHED_BYTES = 2**29

# Threads that need the same volume wait for one of them to decompress it.
_decompressing = Lock()


def depth(volume: Path) -> int:
    """Return the number of z slices of a volume, from its header.

    Raises
    ------
    SlideError
        If it cannot be read as a volume.
    UnsupportedSlideError
        If it has more axes than x, y and z, or SimpleITK is not installed.
    """
    return _size(volume, _reader(volume))[2]


def list_slices(volume: Path) -> list[Path]:
    """List the paths of all z slices; warn if the intensity window has to be assumed.

    Raises
    ------
    SlideError
        See `depth`.
    """
    reader = _reader(volume)
    count = _size(volume, reader)[2]
    if _stated_window(reader) is None and not _is_unsigned(volume, reader):
        logger.warning(
            "%s: states no display range; values from %g to %g are shown, as for CT, unless "
            "another window is given",
            volume, HOUNSFIELD.low, HOUNSFIELD.high,
        )  # fmt: skip
    return [member_path(volume, z) for z in range(count)]


def open_slice(
    volume: Path, z: int, *, mpp: float | None = None, window: Window | None = None
) -> SingleLevelSlide:
    """Open one z slice of a volume as a slide.

    Parameters
    ----------
    volume
        The file.
    z
        Index of the slice, from 0.
    mpp
        Micrometres per pixel; overrides the spacing in the file.
    window
        Values shown as black and as white.

    Raises
    ------
    SlideError
        If the volume cannot be read or has no such slice.
    UnsupportedSlideError
        If it is of an unsupported kind, or SimpleITK is not installed.
    """
    reader = _reader(volume)
    orientation = _orientation(reader)
    width, height, slices = orientation.ordered(_size(volume, reader))
    if not 0 <= z < slices:
        raise SlideError(f"{volume}: got slice {z}; expected 0 to {slices - 1}")
    return SingleLevelSlide(
        member_path(volume, z),
        volume.suffixes[-1].lstrip(".") if volume.suffix != ".gz" else "nii",
        extent=Extent(height=height, width=width),
        resolution=choose_resolution(
            mpp, _resolution(reader, orientation), volume, microscope=False
        ),
        decode=partial(_decode, volume, z, window),
        slice_mm=reader.GetSpacing()[2] if reader.GetDimension() > 2 else None,
    )


def _resolution(reader: Any, orientation: "_Orientation") -> Resolution:  # noqa: ANN401 (no types)
    x, y, *_ = orientation.ordered(reader.GetSpacing())
    return spacing_resolution((y, x), "spacing")


@dataclass(frozen=True, slots=True)
class _Orientation:
    """How a stored volume is reoriented: columns and rows are swapped first, then axes reversed.

    ``reversed_axes`` are axes of the reoriented volume: columns, rows, slices.
    """

    swapped: bool = False
    reversed_axes: tuple[bool, bool, bool] = (False, False, False)

    def ordered[T](self, of_axes: Sequence[T]) -> tuple[T, ...]:
        """Reorder values of the stored columns, rows and slices like the reoriented axes."""
        x, y, *z = of_axes
        return (y, x, *z) if self.swapped else (x, y, *z)

    def plane(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Reorient one slice, ``(y, x)``."""
        plane = stored.T if self.swapped else stored
        steps = [-1 if back else 1 for back in self.reversed_axes]
        return plane[:: steps[1], :: steps[0]]

    def stored_z(self, z: int, slices: int) -> int:
        """Return the index of a slice in the file."""
        return slices - 1 - z if self.reversed_axes[2] else z


def _orientation(reader: Any) -> _Orientation:  # noqa: ANN401 (SimpleITK has no types)
    """Return how to reorient an axial volume to the patient's axes; identity for other volumes."""
    if reader.GetDimension() != 3:
        return _Orientation()
    columns = np.array(reader.GetDirection()).reshape(3, 3)
    nearest = np.abs(columns).argmax(axis=0)
    if nearest[2] != 2 or sorted(nearest.tolist()) != [0, 1, 2]:
        return _Orientation()
    swapped = bool(nearest[0] == 1)
    along = columns[:, [1, 0, 2]] if swapped else columns
    x, y, z = (bool(along[axis, axis] < 0) for axis in range(3))
    return _Orientation(swapped, (x, y, z))


@dataclass(frozen=True, slots=True)
class VolumeGrid:
    """Mapping between voxels of a volume, in the order in which slices show them, and world mm.

    Parameters
    ----------
    size
        Numbers of columns, rows and slices.
    spacing
        Distance of voxels along columns, rows and slices, in mm.
    origin
        World coordinates of the centre of the first voxel, x, y, z in mm.
    direction
        Unit vectors of columns, rows and slices: the columns of a 3 x 3 matrix.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[tuple[float, float, float], ...]

    def voxels(self, points_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert world coordinates (x, y, z) in mm to voxels (column, row, slice), ``(n, 3)``."""
        steps = np.array(self.direction) * np.array(self.spacing)
        voxels: NDArray[np.float64] = (points_mm - np.array(self.origin)) @ np.linalg.inv(steps).T
        return voxels

    def world(self, voxels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert voxels (column, row, slice) to world coordinates (x, y, z) in mm, ``(n, 3)``."""
        steps = np.array(self.direction) * np.array(self.spacing)
        points_mm: NDArray[np.float64] = voxels @ steps.T + np.array(self.origin)
        return points_mm


def volume_grid(volume: Path) -> VolumeGrid:
    """Read the mapping between voxels and world coordinates of a volume.

    Raises
    ------
    SlideError
        If it cannot be read as a volume.
    UnsupportedSlideError
        If it has more axes than x, y and z, or SimpleITK is not installed.
    """
    reader = _reader(volume)
    size = _size(volume, reader)
    if reader.GetDimension() != 3:
        raise SlideError(f"{volume}: got {reader.GetDimension()} axes; expected x, y and z")
    orientation = _orientation(reader)
    columns = np.array(reader.GetDirection()).reshape(3, 3).T
    ends = columns * (np.array(reader.GetSpacing()) * (np.array(size) - 1))[:, None]
    origin, axes = np.array(reader.GetOrigin()), []
    for axis, end, back in zip(
        orientation.ordered(list(columns)),
        orientation.ordered(list(ends)),
        orientation.reversed_axes,
        strict=True,
    ):
        axes.append(-axis if back else axis)
        origin = origin + end if back else origin
    width, height, slices = orientation.ordered(size)
    x, y, z = orientation.ordered(tuple(map(float, reader.GetSpacing())))
    rows = tuple((float(a), float(b), float(c)) for a, b, c in np.array(axes).T)
    first = float(origin[0]), float(origin[1]), float(origin[2])
    return VolumeGrid((width, height, slices), (x, y, z), first, rows)


def _simpleitk(volume: Path) -> Any:  # noqa: ANN401 (SimpleITK has no types)
    with naming_extra(str(volume)):
        import SimpleITK
    return SimpleITK


def _reader(volume: Path) -> Any:  # noqa: ANN401 (SimpleITK has no types)
    reader = _simpleitk(volume).ImageFileReader()
    with _translate_errors(volume):
        reader.SetFileName(str(volume))
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1:
            raise UnsupportedSlideError(
                f"{volume}: got {reader.GetNumberOfComponents()} values per pixel; expected one; "
                "split the volume"
            )
    return reader


def _size(volume: Path, reader: Any) -> tuple[int, int, int]:  # noqa: ANN401 (has no types)
    size = [*reader.GetSize(), 1][: max(3, reader.GetDimension())]
    if max(size[3:], default=1) > 1:
        raise UnsupportedSlideError(
            f"{volume}: got a volume of {' x '.join(map(str, size))}; expected x, y and z only; "
            "split it along the others"
        )
    return size[0], size[1], size[2]


def _decode(volume: Path, z: int, window: Window | None) -> NDArray[np.uint8]:
    reader = _reader(volume)
    orientation = _orientation(reader)
    with _translate_errors(volume):
        values = _values(volume, reader, orientation.stored_z(z, _size(volume, reader)[2]))
        grey = (window or _window(reader, values.dtype)).to_uint8(values)
        return grey_rgb(orientation.plane(grey))


def _values(volume: Path, reader: Any, z: int) -> NDArray[Any]:  # noqa: ANN401 (has no types)
    """Read the values of one stored slice, ``(y, x)``."""
    width, height, slices = _size(volume, reader)
    itk = _simpleitk(volume)
    if volume.suffix in _COMPRESSED:
        voxel = itk.Image([1, 1, 1], reader.GetPixelID()).GetSizeOfPixelComponent()
        if width * height * slices * voxel <= _MAX_CACHED_BYTES:
            with _decompressing:
                plane: NDArray[Any] = _decompressed(volume, volume.stat().st_mtime_ns)[z]
                return plane
    dimension = reader.GetDimension()
    reader.SetExtractIndex([0, 0, z, *[0] * dimension][:dimension])
    reader.SetExtractSize([width, height, *[1] * dimension][:dimension])
    values: NDArray[Any] = itk.GetArrayFromImage(reader.Execute()).reshape(height, width)
    return values


@lru_cache(maxsize=1)
def _decompressed(volume: Path, changed: int) -> NDArray[Any]:
    """Cache the values of a volume, ``(z, y, x)``; ``changed`` (mtime) invalidates the entry."""
    del changed
    reader = _reader(volume)
    width, height, slices = _size(volume, reader)
    values = _simpleitk(volume).GetArrayFromImage(reader.Execute())
    whole: NDArray[Any] = values.reshape(slices, height, width)
    return whole


def _window(reader: Any, dtype: np.dtype[Any]) -> Window:  # noqa: ANN401 (SimpleITK has no types)
    """Choose the intensity window by the rule in the module docstring."""
    if dtype == np.uint8:
        return Window(0, 255)
    full = Window(0, float(np.iinfo(dtype).max)) if dtype.kind == "u" else HOUNSFIELD
    return _stated_window(reader) or full


def _stated_window(reader: Any) -> Window | None:  # noqa: ANN401 (SimpleITK has no types)
    """Return the display range of a NIfTI file, if it states one."""
    low, high = (
        float(reader.GetMetaData(key)) if reader.HasMetaDataKey(key) else 0.0
        for key in ("cal_min", "cal_max")
    )
    return Window(low, high) if low < high else None


def _is_unsigned(volume: Path, reader: Any) -> bool:  # noqa: ANN401 (SimpleITK has no types)
    itk = _simpleitk(volume)
    return reader.GetPixelIDValue() in {itk.sitkUInt8, itk.sitkUInt16, itk.sitkUInt32}


def _translate_errors(volume: Path) -> AbstractContextManager[None]:
    return translate_errors(
        volume, "cannot be read as a volume: ", "a whole mhd, mha, nrrd or NIfTI file"
    )
