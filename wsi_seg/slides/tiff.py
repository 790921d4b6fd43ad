"""Owns reading slides in TIFF files (SVS, OME-TIFF, generic pyramids) with tifffile.

tifffile parses the metadata and decodes tiles; bytes are read with ``pread``, so threads need no
lock and a pickled slide reopens the file.
"""

import logging
import threading
from collections import OrderedDict
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_seg.codestreams.headers import ImageKind
from wsi_seg.codestreams.streams import require_sound
from wsi_seg.counts import counted
from wsi_seg.errors import SlideError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.slides.failures import translate_errors
from wsi_seg.slides.orientation import stored_region, upright, upright_extent
from wsi_seg.slides.pages import TiffLevel, read_level, tile_streams
from wsi_seg.slides.resolution import UNKNOWN, Resolution, choose_resolution, tag_resolution
from wsi_seg.slides.slide import NotCopyable, Slide, TileStreams, slide_name
from wsi_seg.slides.tiff_ifds import check_ifds
from wsi_seg.slides.tiff_images import TiffImage, main_image
from wsi_seg.slides.tiles import paste, pread
from wsi_seg.slides.vendors import (
    aperio_resolution,
    imagej_resolution,
    leica_images,
    ome_images,
    openslide_resolution,
    philips_resolution,
    ventana_resolution,
)

logger = logging.getLogger(__name__)

_Context = AbstractContextManager[None]
_CACHED_STRIP_BYTES = 64 * 2**20
# Some writers let empty tiles share one stream, but such streams are short.
_MAX_SHARED_RATIO = 10
# Compressions whose streams declare the size of their image.
_IMAGE_KINDS: dict[int, ImageKind] = {
    7: "jpeg",
    33003: "jpeg2k",
    33004: "jpeg2k",
    33005: "jpeg2k",
    33007: "jpeg",
    34712: "jpeg2k",
    50001: "webp",
    50002: "jpegxl",
    52546: "jpegxl",
}


class TiffSlide(Slide):
    """A slide in a TIFF file; see `wsi_seg.slides.Slide`.

    Parameters
    ----------
    path
        The file.
    mpp
        Micrometres per pixel of level 0; overrides the file's metadata.
    scene
        Number (from 1) or name of the image to read from a file that holds several.

    Raises
    ------
    SlideError
        If the file is not a TIFF, or is damaged.
    UnsupportedSlideError
        If its pixels cannot be converted to RGB or are not square, or if several images may be the
        slide.
    """

    def __init__(self, path: Path, *, mpp: float | None = None, scene: str | None = None) -> None:
        self.path = path
        self.name = slide_name(path)
        self._override, self._scene = mpp, scene
        self._strips: OrderedDict[tuple[int, int], NDArray[np.generic]] = OrderedDict()
        self._lock = threading.Lock()
        check_ifds(path)
        with (
            _translate_errors(path),
            tifffile.TiffFile(path) as tiff,
            tifffile.TiffFile(path) as fresh,
        ):
            image = main_image(tiff, fresh, path, scene)
            self._levels = tuple(read_level(level, image.page, path) for level in image.levels)
            self.format, self.scene = _format(tiff), image.number
            found = choose_resolution(mpp, _resolution(tiff, image), path)
            self.mpp_source = found.source
            self.pyramid = Pyramid(tuple(level.displayed for level in self._levels), found.mpp)
        _require_complete(path, self._levels)

    def read_region(self, region: Region) -> NDArray[np.uint8]:
        """Read a region; see `wsi_seg.slides.Slide.read`."""
        self.pyramid.downsample(region.level)  # raises for a level that does not exist
        level = self._levels[region.level]
        require_inside(region, level.displayed, self.name)
        stored = stored_region(region, level.extent, level.orientation)
        samples = np.empty((stored.height, stored.width, len(level.blank)), level.page.dtype)
        samples[...] = level.blank
        for number in level.touching(stored):
            self._paste(stored, number, samples)
        return np.ascontiguousarray(upright(level.colour.to_rgb(samples), level.orientation))

    def streams(self, level: int) -> TileStreams | NotCopyable:
        """Return the tile streams of a level; see `wsi_seg.slides.Slide.streams`."""
        return tile_streams(self._levels[level], self.path)

    def native_block(self, level: int) -> Extent:
        """Return the size of a tile or strip; see `wsi_seg.slides.Slide.native_block`."""
        return upright_extent(self._levels[level].segment, self._levels[level].orientation)

    def close(self) -> None:
        """Release the cached strips; no file is kept open."""
        self._strips.clear()

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self._override, self._scene)

    def _paste(self, region: Region, number: int, samples: NDArray[np.generic]) -> None:
        level = self._levels[region.level]
        rows, columns = level.grid
        plane, index = divmod(number, rows * columns)
        top = index // columns * level.segment.height
        left = index % columns * level.segment.width
        pixels = self._segment(region.level, number)
        if pixels is None:
            return
        first = plane * level.samples
        out = samples[:, :, first : first + level.samples]
        paste(pixels, top, left, region=region, out=out)

    def _segment(self, level: int, number: int) -> NDArray[np.generic] | None:
        """Decode one tile or strip, ``(H, W, S)``; return None if it is missing."""
        with self._lock:
            cached = self._strips.get((level, number))
        if cached is not None:
            return cached
        pixels = self._decode(self._levels[level], number)
        # Strips span many regions, so they are cached; tiles are not.
        if pixels is not None and not self._levels[level].page.is_tiled:
            with self._lock:
                self._strips[level, number] = pixels
                while len(self._strips) > 1 and (
                    sum(strip.nbytes for strip in self._strips.values()) > _CACHED_STRIP_BYTES
                ):
                    self._strips.popitem(last=False)
        return pixels

    def _decode(self, level: TiffLevel, number: int) -> NDArray[np.generic] | None:
        page = level.page
        size = int(level.sizes[number])
        if not size:
            return None
        data = pread(self.path, int(level.offsets[number]), size)
        with _translate_errors(
            self.path, f"tile {number} of the level of {level.extent} is damaged: "
        ):
            kind = _IMAGE_KINDS.get(int(page.compression))
            if kind is not None and not page.jpegheader:
                require_sound(data, kind, level.segment)
            return level.decode(data, number)


def _reopen(path: Path, mpp: float | None, scene: str | None) -> TiffSlide:
    return TiffSlide(path, mpp=mpp, scene=scene)


def _translate_errors(path: Path, what: str = "cannot be read as a TIFF slide: ") -> _Context:
    return translate_errors(path, what, "a readable TIFF", also=(tifffile.TiffFileError,))


def _require_complete(path: Path, levels: tuple[TiffLevel, ...]) -> None:
    """Refuse a truncated file, or one whose tiles share the same bytes many times."""
    total = path.stat().st_size
    declared = sum(int(level.sizes.sum()) for level in levels)
    if declared > _MAX_SHARED_RATIO * total:
        raise SlideError(
            f"{path}: its tiles declare {declared} bytes in a file of {total}, so many share the "
            "same bytes; the file is damaged"
        )
    for number, level in enumerate(levels):
        past = (level.offsets < 0) | (level.sizes < 0) | (level.offsets > total - level.sizes)
        empty = np.flatnonzero((level.sizes == 0) & (level.offsets > 0))
        if empty.size:  # a tile that is missing on purpose has offset 0, too
            logger.warning(
                "%s: %s without bytes in level %d, shown blank; the first is number %d",
                path, counted(empty.size, "tile"), number, empty[0],
            )  # fmt: skip
        cut = past & (level.sizes != 0)
        if cut.any():
            first = int(cut.argmax())
            raise SlideError(
                f"{path}: level {number} has a tile at byte {int(level.offsets[first])} of "
                f"{int(level.sizes[first])} bytes, but the file ends at {total}; it is truncated; "
                "copy it again"
            )


def _format(tiff: Any) -> str:  # noqa: ANN401 (tifffile has no types)
    for kind in ("svs", "ndpi", "scn", "philips"):
        if getattr(tiff, f"is_{kind}"):
            return kind
    return "ome-tiff" if tiff.is_ome else "tiff"


def _resolution(tiff: Any, image: TiffImage) -> Resolution:  # noqa: ANN401 (has no types)
    """Return the resolution in the vendor's metadata, or else in the resolution tags."""
    page = image.page
    description, tags = tiff.pages.first.description or "", page.tags
    x, y, unit = tags.valueof(282), tags.valueof(283), int(tags.valueof(296, 2))
    imagej = description if tiff.is_imagej else ""
    found = (
        aperio_resolution(page.description or ""),
        _ome_resolution(tiff, image),
        philips_resolution(tiff.philips_metadata or ""),
        _leica_resolution(tiff),
        ventana_resolution(_text(tags.valueof(700) or b"")),
        openslide_resolution(description),
        imagej_resolution(imagej, _ratio(x), _ratio(y)),
        tag_resolution(x, y, unit),
    )
    return next((resolution for resolution in found if resolution.mpp is not None), found[-1])


def _ome_resolution(tiff: Any, image: TiffImage) -> Resolution:  # noqa: ANN401 (has no types)
    if image.ome is not None:
        return image.ome.resolution
    described = ome_images(tiff.ome_metadata or "")
    return described[0].resolution if described else UNKNOWN


def _leica_resolution(tiff: Any) -> Resolution:  # noqa: ANN401 (has no types)
    images = leica_images(tiff.scn_metadata or "") if tiff.is_scn else ()
    return next((image.resolution for image in images if not image.overview), UNKNOWN)


def _ratio(value: object) -> float | None:
    match value:
        case (int(numerator), int(denominator)) if denominator > 0:
            return numerator / denominator
        case _:
            return None


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else bytes(value).decode("utf-8", "replace")
