"""Owns slides in TIFF files (SVS, OME-TIFF, generic pyramids); the only room of tifffile here.

tifffile reads the metadata and decodes; tiles are read by position, so threads need no lock and
a pickled slide opens the file anew.
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
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent, Pyramid, Region
from wsi_seg.geometry.region import require_inside
from wsi_seg.limits import advice, limits
from wsi_seg.slides.directories import require_few
from wsi_seg.slides.failures import explained
from wsi_seg.slides.pages import TiffLevel, read_level, tile_streams
from wsi_seg.slides.resolution import UNKNOWN, Resolution, chosen, tag_resolution
from wsi_seg.slides.slide import Recode, Slide, TileStreams, slide_name
from wsi_seg.slides.tiles import paste, pread
from wsi_seg.slides.vendors import (
    aperio_resolution,
    imagej_resolution,
    leica_images,
    ome_planes,
    ome_resolution,
    openslide_resolution,
    philips_resolution,
    ventana_resolution,
)

logger = logging.getLogger(__name__)

_Context = AbstractContextManager[None]
_KEPT_STRIP_BYTES = 64 * 2**20
# Writers let empty tiles share one stream; such streams are short.
_SHARED_TIMES = 10
# Compressions whose streams say themselves how large they are.
_CLAIMING: dict[int, ImageKind] = {
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
        Micrometres per px of level 0 that replace what the file says.

    Raises
    ------
    SlideError
        If the file is not a TIFF, or is damaged.
    UnsupportedSlideError
        If its px are of a kind that has no meaning as RGB.
    """

    def __init__(self, path: Path, *, mpp: float | None = None) -> None:
        self.path = path
        self.name = slide_name(path)
        self._override = mpp
        self._kept: OrderedDict[tuple[int, int], NDArray[np.generic]] = OrderedDict()
        self._lock = threading.Lock()
        require_few(path)
        with _explained(path), tifffile.TiffFile(path) as tiff:
            series = _main_series(tiff, path)
            self._levels = tuple(read_level(level, path) for level in _all_levels(tiff, series))
            self.format = _format(tiff)
            found = chosen(mpp, _resolution(tiff, series))
            self.mpp_source = found.source
            self.pyramid = Pyramid(tuple(level.extent for level in self._levels), found.mpp)
        _require_whole(path, self._levels)

    def read(self, region: Region) -> NDArray[np.uint8]:
        """Read a region; see `wsi_seg.slides.Slide.read`."""
        self.pyramid.downsample(region.level)  # names the levels there are, if it is not one
        level = self._levels[region.level]
        require_inside(region, level.extent, self.name)
        samples = np.zeros(
            (region.height, region.width, level.samples * level.planes), level.page.dtype
        )
        for number in level.touching(region):
            self._paste(region, number, samples)
        return level.colour.to_rgb(samples)

    def streams(self, level: int) -> TileStreams | Recode:
        """Offer the tile streams of a level; see `wsi_seg.slides.Slide.streams`."""
        return tile_streams(self._levels[level])

    def piece(self, level: int) -> Extent:
        """Size of a tile or strip; see `wsi_seg.slides.Slide.piece`."""
        return self._levels[level].segment

    def close(self) -> None:
        """Release the strips that are kept; no file is held open."""
        self._kept.clear()

    def __reduce__(self) -> tuple[object, ...]:
        return _reopen, (self.path, self._override)

    def _paste(self, region: Region, number: int, samples: NDArray[np.generic]) -> None:
        level = self._levels[region.level]
        rows, columns = level.grid
        plane, place = divmod(number, rows * columns)
        top = place // columns * level.segment.height
        left = place % columns * level.segment.width
        pixels = self._segment(region.level, number)
        if pixels is None:
            return
        first = plane * level.samples
        out = samples[:, :, first : first + level.samples]
        paste(pixels, top, left, region=region, out=out)

    def _segment(self, level: int, number: int) -> NDArray[np.generic] | None:
        """Decode one tile or strip, ``(H, W, S)``; None if the file leaves it out."""
        with self._lock:
            kept = self._kept.get((level, number))
        if kept is not None:
            return kept
        pixels = self._decode(self._levels[level], number)
        # Strips span many regions; tiles are better kept as chunks of a store.
        if pixels is not None and not self._levels[level].page.is_tiled:
            with self._lock:
                self._kept[level, number] = pixels
                while len(self._kept) > 1 and (
                    sum(strip.nbytes for strip in self._kept.values()) > _KEPT_STRIP_BYTES
                ):
                    self._kept.popitem(last=False)
        return pixels

    def _decode(self, level: TiffLevel, number: int) -> NDArray[np.generic] | None:
        page = level.page
        size = int(level.sizes[number])
        if not size:
            return None
        data = pread(self.path, int(level.offsets[number]), size)
        with _explained(self.path, f"tile {number} of the level of {level.extent} is damaged: "):
            kind = _CLAIMING.get(int(page.compression))
            if kind is not None and not page.jpegheader:
                require_sound(data, kind, level.segment)
            pixels, _, _ = page.decode(
                data, number, jpegtables=page.jpegtables, jpegheader=page.jpegheader
            )
            return None if pixels is None else np.asarray(pixels[0])


def _reopen(path: Path, mpp: float | None) -> TiffSlide:
    return TiffSlide(path, mpp=mpp)


def _explained(path: Path, what: str = "cannot be read as a TIFF slide: ") -> _Context:
    return explained(path, what, "a readable TIFF", also=(tifffile.TiffFileError,))


def _main_series(tiff: Any, path: Path) -> Any:  # noqa: ANN401 (tifffile has no types)
    """Series of the slide itself, never of its label or overview."""
    if tiff.is_bif:
        raise UnsupportedSlideError(f"{path}: Ventana BIF tiles overlap, which is not read yet")
    first = tiff.pages.first
    if min(first.imagewidth, first.imagelength) < 1:  # tifffile would go on with the next page
        raise SlideError(
            f"{path}: got a first page of {first.imagewidth} x {first.imagelength} px; expected at "
            "least 1 x 1"
        )
    if tiff.is_ome and ome_planes(tiff.ome_metadata or "") > limits().ifds:
        raise SlideError(f"{path}: its OME-XML claims more planes than a slide; {advice('ifds')}")
    if not tiff.series:
        raise SlideError(f"{path}: holds no image")
    series = tiff.series[_leica_main(tiff, path) if tiff.is_scn else 0]
    if tiff.is_philips and series.kind != "philips":
        raise UnsupportedSlideError(f"{path}: the levels of this Philips slide cannot be told")
    if series.axes not in {"YX", "YXS", "SYX"}:
        raise UnsupportedSlideError(
            f"{path}: got an image of axes {series.axes} and shape {series.shape}; expected one "
            "plane of grey or colour (YX, YXS or SYX); split the file into planes"
        )
    return series


def _leica_main(tiff: Any, path: Path) -> int:  # noqa: ANN401 (tifffile has no types)
    """Find the number of the only image that is not of the whole glass."""
    images = leica_images(tiff.scn_metadata or "")
    main = [number for number, image in enumerate(images) if not image.overview]
    if len(main) != 1 or len(images) != len(tiff.series):
        raise UnsupportedSlideError(
            f"{path}: got {len(main)} scanned areas beside the overview; expected one"
        )
    return main[0]


def _all_levels(tiff: Any, series: Any) -> list[Any]:  # noqa: ANN401 (tifffile has no types)
    """Levels of the pyramid, finest first.

    tifffile joins pages that shrink by 2, 3 or 4 each time; a reduced page of any other size
    belongs to the pyramid too, if it shows the whole image. Vendors' formats are left alone.
    """
    levels = list(series.levels)
    if series.kind in {"generic", "uniform", "shaped"}:
        others = (level for other in tiff.series[1:] for level in other.levels)
        levels += [level for level in others if _is_reduction(level, series)]
        levels.sort(key=lambda level: -level.keyframe.imagewidth)
    return levels


def _is_reduction(level: Any, series: Any) -> bool:  # noqa: ANN401 (tifffile has no types)
    full, small = series.keyframe, level.keyframe
    if not small.is_reduced or (level.axes, level.dtype) != (series.axes, series.dtype):
        return False
    if not 0 < small.imagewidth < full.imagewidth:
        return False
    # Rounding moves each side by less than one px.
    height = full.imagelength * small.imagewidth / full.imagewidth
    slack = 1 + full.imagelength / full.imagewidth
    return bool(abs(height - small.imagelength) < slack)


def _require_whole(path: Path, levels: tuple[TiffLevel, ...]) -> None:
    """Refuse a file that ends before its tiles do, or whose tiles are the same bytes again."""
    total = path.stat().st_size
    named = sum(int(level.sizes.sum()) for level in levels)
    if named > _SHARED_TIMES * total:
        raise SlideError(
            f"{path}: its tiles name {named} bytes of a file of {total}, so many share the same; "
            "the file is damaged"
        )
    for number, level in enumerate(levels):
        past = (level.offsets < 0) | (level.sizes < 0) | (level.offsets > total - level.sizes)
        empty = np.flatnonzero((level.sizes == 0) & (level.offsets > 0))
        if empty.size:  # left out on purpose, a tile has no place either
            logger.warning(
                "%s: %d tiles of level %d have no bytes, the first is number %d; they read as 0",
                path, empty.size, number, empty[0],
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


def _resolution(tiff: Any, series: Any) -> Resolution:  # noqa: ANN401 (tifffile has no types)
    """Take what the vendor's own metadata say, else the resolution tags."""
    page = series.keyframe
    description, tags = tiff.pages.first.description or "", page.tags
    found = (
        aperio_resolution(page.description or ""),
        ome_resolution(tiff.ome_metadata or ""),
        philips_resolution(tiff.philips_metadata or ""),
        _leica_resolution(tiff, series),
        ventana_resolution(_text(tags.valueof(700) or b"")),
        openslide_resolution(description),
        imagej_resolution(description if tiff.is_imagej else "", _ratio(tags.valueof(282))),
        tag_resolution(tags.valueof(282), tags.valueof(283), int(tags.valueof(296, 2))),
    )
    return next((resolution for resolution in found if resolution.mpp is not None), UNKNOWN)


def _leica_resolution(tiff: Any, series: Any) -> Resolution:  # noqa: ANN401 (has no types)
    if series.kind != "scn":
        return UNKNOWN
    images = leica_images(tiff.scn_metadata or "")
    return next((image.resolution for image in images if not image.overview), UNKNOWN)


def _ratio(value: object) -> float | None:
    match value:
        case (int(numerator), int(denominator)) if denominator > 0:
            return numerator / denominator
        case _:
            return None


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else bytes(value).decode("utf-8", "replace")
