"""Owns the Slide protocol that all readers implement, and the tile streams a slide may offer."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from wsi_seg.codestreams.headers import StreamKind
from wsi_seg.errors import RegionError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.notebook import LONGEST_PX, picture_png, slide_html
from wsi_seg.reading.resample import read_centred
from wsi_seg.reading.thumbnail import area_averaged, thumbnail_extent

_MEMBER = re.compile(r"z[0-9]{4,}")

# Notebooks show no thumbnail of a slide whose coarsest level has more pixels.
_MAX_THUMBNAIL_SOURCE_PX = 2**24


@dataclass(frozen=True, slots=True, eq=False)
class TileStreams:
    """Independently decodable, compressed streams of one level's tiles, in row-major order.

    Each stream decodes to a full uint8 tile; tiles at the right and bottom edges extend past the
    level.

    Parameters
    ----------
    tile
        Size of a tile.
    kind
        Compression of the streams.
    predictor
        Whether pixels are stored as differences from their left neighbours (TIFF predictor 2).
    tables
        JPEG tables shared by all streams; empty if there are no shared tables.
    jpeg_rgb
        Whether JPEG components are RGB, not YCbCr.
    files
        Files that hold the streams.
    file, offsets, sizes
        Index into ``files`` of each stream, and its offset and size in bytes, each ``(tiles,)``;
        size 0 for a missing tile.
    samples
        Samples per pixel: 1 for grey, 3 for RGB, 4 for RGBA.
    fill
        Grey value of the pixels of missing tiles, 0 to 255.
    wrapped
        Whether streams are wrapped in DICOM items, which must be removed.
    """

    tile: Extent
    kind: StreamKind
    predictor: bool
    tables: bytes
    jpeg_rgb: bool
    files: tuple[Path, ...]
    file: NDArray[np.int64]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    samples: int = 3
    fill: int = 255
    wrapped: bool = False


@dataclass(frozen=True, slots=True)
class NotCopyable:
    """A level whose streams cannot be copied, and why (the end of a sentence)."""

    reason: str


class Slide(Protocol):
    """One slide file; picklable and thread-safe.

    A custom reader subclasses it, sets the attributes and implements `read_region`; the other
    methods have defaults. `wsi_seg.check_slide` checks a reader.

    Attributes
    ----------
    path
        The file.
    name
        See `slide_name`.
    format
        Short word for the kind of file, such as ``svs`` or ``ome-tiff``.
    pyramid
        Extents of all levels, and mpp, or None if the file does not state it.
    mpp_source
        Source of mpp, such as ``aperio`` or ``option``; ``none`` if unknown.
    scene
        Number (from 1) of the image in its file, if one was requested.
    slice_mm
        Millimetres from one slice to the next, if it is a slice of a volume.

    Examples
    --------
    >>> with open_slide("slide.svs") as slide:  # doctest: +SKIP
    ...     slide.pyramid.extent, slide.thumbnail(512).shape
    """

    path: Path
    name: str
    format: str
    pyramid: Pyramid
    mpp_source: str
    scene: int | None = None
    slice_mm: float | None = None

    def read_region(self, region: Region) -> NDArray[np.uint8]:
        """Read a region as ``(H, W, 3)`` uint8 RGB.

        Raises
        ------
        RegionError
            If the level does not exist, or the region extends beyond it.
        SlideError
            If the file is damaged there.
        """
        ...

    def read(
        self,
        region: Region | None = None,
        *,
        mpp: float | None = None,
        centre_um: tuple[float, float] = (0.0, 0.0),
        size_px: tuple[int, int] = (0, 0),
        fill: int | None = None,
    ) -> NDArray[np.uint8]:
        """Read a region of a level, or a rectangle at any resolution, as ``(H, W, 3)`` uint8 RGB.

        Give either ``region``, or ``mpp`` and the other parameters, see `read_centred`.

        Examples
        --------
        >>> slide.read(Region(level=0, y=0, x=0, height=512, width=512))  # doctest: +SKIP
        >>> slide.read(mpp=1.0, centre_um=(2000, 3000), size_px=(512, 512))  # doctest: +SKIP
        """
        if (region is None) == (mpp is None):
            raise RegionError(
                f"slide {self.name!r}: got region {region} and mpp {mpp}; expected one of them"
            )
        if region is not None:
            self.pyramid.downsample(region.level)  # raises for a level that does not exist
            require_inside(region, self.pyramid.extents[region.level], self.name)
            return self.read_region(region)
        assert mpp is not None
        return read_centred(
            self, name=self.name, mpp=mpp, centre_um=centre_um, size_px=size_px, fill=fill
        )

    def thumbnail(self, longest_px: int = 1024) -> NDArray[np.uint8]:
        """Return the slide, area-averaged to at most ``longest_px`` pixels per side, (H, W, 3)."""
        size = thumbnail_extent(self.pyramid.extent, longest_px)
        return area_averaged(self.pyramid, self.read_region, size)

    def streams(self, level: int) -> TileStreams | NotCopyable:
        """Return the compressed streams of a level's tiles, or why they cannot be copied."""
        return NotCopyable(f"{self.format} without tiles")

    def native_block(self, level: int) -> Extent:
        """Return the size of the tiles or strips that are decoded one at a time; here the level."""
        return self.pyramid.extents[level]

    def close(self) -> None:
        """Release open files and caches, here none; a later read opens them again."""
        return

    def _repr_html_(self) -> str:
        facts = {"format": self.format, "mpp from": self.mpp_source}
        return slide_html(self.name, self.pyramid, facts, self._thumbnail)

    def _repr_png_(self) -> bytes | None:
        return picture_png(self._thumbnail)

    def _thumbnail(self) -> NDArray[np.uint8] | None:
        """Return a thumbnail made from the coarsest level; None if that level is too large."""
        level = len(self.pyramid.extents) - 1
        if self.pyramid.extents[level].area > _MAX_THUMBNAIL_SOURCE_PX:
            return None
        return self.thumbnail(LONGEST_PX)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def slide_name(path: Path) -> str:
    """Return the name of a slide: file name without suffix, folder name, or volume and slice.

    ``a.ome.tif`` is ``a``, the folder ``1.2.7`` is ``1.2.7``, and ``ct.nii.gz/z0012`` is
    ``ct_z0012``.
    """
    member = split_member(path)
    if member is not None:
        return f"{slide_name(member[0])}_{path.name}"
    if path.is_dir() and path.suffix != ".zarr":
        return path.name or path.resolve().name
    return path.stem.removesuffix(".ome").removesuffix(".nii")


def member_path(whole: Path, z: int) -> Path:
    """Return the path that stands for one slice of a volume or series: ``whole/z0012``."""
    return whole / f"z{z:04d}"


def split_member(path: Path) -> tuple[Path, int] | None:
    """Split the path of a slice into the volume or series and z; return None for other paths."""
    if not _MEMBER.fullmatch(path.name) or path.exists() or not path.parent.exists():
        return None
    return path.parent, int(path.name[1:])
