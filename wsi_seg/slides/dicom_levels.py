"""Owns the levels of a DICOM slide: the frame at each grid cell, and whether frames are copied."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_seg.codestreams.headers import StreamKind
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent
from wsi_seg.limits import advice, limits
from wsi_seg.slides.colour import Colour, cielab_to_rgb
from wsi_seg.slides.dicom_colours import FAMILIES, Family, needs_conversion, states_rgb
from wsi_seg.slides.instances import Instance, Samples, translate_dicom_errors
from wsi_seg.slides.slide import NotCopyable, TileStreams

# Compressions of frames that are copied. Uncompressed frames become smaller when we encode them.
_COPIED: dict[Family, StreamKind] = {"jpeg": "jpeg", "jpeg 2000": "jpeg2k"}


@dataclass(frozen=True, slots=True, eq=False)
class DicomLevel:
    """One level: its files, and the frame at each cell of the tile grid.

    ``cells`` is ``(rows, columns, 2)`` int64: the number of the file (-1 where no frame is stored)
    and of the frame in it. ``absent`` is the RGB colour of cells without a frame, ``(3,)`` uint8:
    the value the file states, or white.
    """

    extent: Extent
    tile: Extent
    instances: tuple[Instance, ...]
    cells: NDArray[np.int64]
    absent: NDArray[np.uint8]


def read_levels(instances: Sequence[Instance]) -> tuple[DicomLevel, ...]:
    """Combine the files of each level; finest level first."""
    parts: dict[tuple[int, int], list[Instance]] = {}
    for instance in instances:
        with translate_dicom_errors(instance.path):
            extent = _full_extent(instance)
            parts.setdefault((extent.height, extent.width), []).append(instance)
    order = sorted(parts, key=lambda size: -size[0] * size[1])
    return tuple(_level(Extent.of(size), parts[size]) for size in order)


def _full_extent(instance: Instance) -> Extent:
    header = instance.header
    several = max(
        int(header.get("NumberOfOpticalPaths", 1)),
        int(header.get("TotalPixelMatrixFocalPlanes", 1)),
    )
    if several > 1:
        raise UnsupportedSlideError(
            f"{instance.path}: got {several} focal planes or optical paths; expected one; export "
            "one of them"
        )
    return Extent(
        height=int(header.TotalPixelMatrixRows), width=int(header.TotalPixelMatrixColumns)
    )


def _level(extent: Extent, instances: Sequence[Instance]) -> DicomLevel:
    first = instances[0]
    if extent.area > limits().level_pixels:
        raise SlideError(f"{first.path}: got a level of {extent}; {advice('level_pixels')}")
    grid = -(-extent.height // first.frame.height), -(-extent.width // first.frame.width)
    if grid[0] * grid[1] > limits().tiles:
        raise SlideError(f"{first.path}: got {grid[0] * grid[1]} tiles; {advice('tiles')}")
    level = np.full((*grid, 2), -1, np.int64)
    for number, instance in enumerate(instances):
        if instance.frame != first.frame:
            raise UnsupportedSlideError(
                f"{instance.path}: got frames of {instance.frame}; expected {first.frame} as in "
                f"{first.path}, which shows the same level"
            )
        with translate_dicom_errors(instance.path):
            cells = _cells(instance, grid)
        if (level[cells[:, 0], cells[:, 1], 0] >= 0).any() or len(np.unique(cells, axis=0)) < len(
            cells
        ):
            raise UnsupportedSlideError(
                f"{instance.path}: got two frames at one position in the level of {extent}; "
                "expected one; keep one slide per series"
            )
        level[cells[:, 0], cells[:, 1], 0] = number
        level[cells[:, 0], cells[:, 1], 1] = np.arange(len(cells))
    return DicomLevel(extent, first.frame, tuple(instances), level, _absent(first.header))


def _absent(header: Any) -> NDArray[np.uint8]:  # noqa: ANN401 (pydicom's type)
    stated = header.get("RecommendedAbsentPixelCIELabValue")
    if stated is None or len(stated) != 3:
        return np.full(3, 255, np.uint8)
    return cielab_to_rgb([int(value) for value in stated])


def _cells(instance: Instance, grid: tuple[int, int]) -> NDArray[np.int64]:
    """Return the grid row and column of each frame, ``(frames, 2)`` int64."""
    header, frames = instance.header, len(instance.starts)
    if header.get("DimensionOrganizationType") == "TILED_FULL":
        first = int(header.get("ConcatenationFrameOffsetNumber", 0))
        numbers = np.arange(first, first + frames)
        cells = np.stack(np.divmod(numbers, grid[1]), axis=1)
    else:
        cells = _stated_cells(instance)
    if frames and ((cells < 0) | (cells >= np.array(grid))).any():
        raise SlideError(
            f"{instance.path}: has frames outside its {grid[0]} x {grid[1]} tiles (rows x "
            "columns); the file is damaged"
        )
    return cells.astype(np.int64)


def _stated_cells(instance: Instance) -> NDArray[np.int64]:
    groups = instance.header.get("PerFrameFunctionalGroupsSequence")
    if not groups or "PlanePositionSlideSequence" not in groups[0]:
        raise UnsupportedSlideError(
            f"{instance.path}: does not state the positions of its frames (neither TILED_FULL nor "
            "a position per frame); export it again with positions"
        )
    if len(groups) != len(instance.starts):
        raise SlideError(
            f"{instance.path}: has positions of {len(groups)} frames; expected "
            f"{len(instance.starts)}; the file is damaged"
        )
    positions = [group.PlanePositionSlideSequence[0] for group in groups]
    corners = np.array(
        [
            (plane.RowPositionInTotalImagePixelMatrix, plane.ColumnPositionInTotalImagePixelMatrix)
            for plane in positions
        ],
        dtype=np.int64,
    )
    cells, rest = np.divmod(corners - 1, (instance.frame.height, instance.frame.width))
    if rest.any():
        raise UnsupportedSlideError(
            f"{instance.path}: got frames that are not on a grid of {instance.frame}; export "
            "it as TILED_FULL"
        )
    return cells


def colour_of(instance: Instance) -> Colour:
    """Return the colour model of a file's stored samples."""
    samples = instance.samples
    if samples.colours == "MONOCHROME1":
        return Colour("white-is-zero", samples.stored)
    return Colour("grey" if samples.per_pixel == 1 else "rgb", samples.stored)


def frame_streams(level: DicomLevel) -> TileStreams | NotCopyable:
    """Return the encoded frames of a level, or the reason why they cannot be copied."""
    encoded = [_encoded(instance) for instance in level.instances]
    first = encoded[0]
    reason = "files with frames of several encodings" if len(set(encoded)) > 1 else first.reason
    files, frames = level.cells[..., 0].ravel(), level.cells[..., 1].ravel()
    if not reason and (files < 0).any() and len(set(level.absent.tolist())) > 1:
        reason = "missing frames that are not grey"
    if reason:
        return NotCopyable(reason)
    offsets, sizes = np.zeros_like(files), np.zeros_like(files)
    for number, instance in enumerate(level.instances):
        own = files == number
        offsets[own] = instance.starts[frames[own]]
        sizes[own] = instance.ends[frames[own]] - offsets[own]
    return TileStreams(
        tile=level.tile,
        kind=_COPIED[first.family],
        predictor=False,
        tables=b"",
        jpeg_rgb=first.rgb,
        files=tuple(instance.path for instance in level.instances),
        file=files,
        offsets=offsets,
        sizes=sizes,
        samples=first.samples.per_pixel,
        fill=int(level.absent[0]),
        wrapped=True,
    )


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Encoding of a file's frames, read from its header and first frame.

    ``converted``: the codec's output must be converted to RGB. ``rgb``: JPEG components are RGB,
    though no marker in the stream says so.
    """

    family: Family
    samples: Samples
    converted: bool
    rgb: bool

    @property
    def reason(self) -> str:
        """Reason why frames cannot be copied; empty if they can."""
        samples = self.samples
        reasons = (
            (self.family == "plain", "uncompressed frames"),
            (self.family not in _COPIED, f"{self.family} frames"),
            (samples.stored != 8, f"{samples.stored} bits per sample"),
            (samples.signed, "signed samples"),
            (samples.colours == "MONOCHROME1", "grey where 0 is white"),
            (self.converted, f"{self.family} in {samples.colours}"),
        )
        return next((reason for applies, reason in reasons if applies), "")


def _encoded(instance: Instance) -> _Encoded:
    family, samples, stream = FAMILIES[instance.syntax], instance.samples, instance.stream(0)
    return _Encoded(
        family,
        samples,
        converted=needs_conversion(family, samples.colours, stream),
        rgb=states_rgb(family, samples.colours, stream),
    )
