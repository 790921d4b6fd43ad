"""Owns the layout of one TIFF page: sizes, tiles, colours, and whether streams can be copied."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_seg.codestreams.headers import StreamKind
from wsi_seg.codestreams.lengths import trim_stream
from wsi_seg.codestreams.metadata import without_comments
from wsi_seg.counts import counted
from wsi_seg.errors import SlideError
from wsi_seg.geometry import Extent, Region
from wsi_seg.limits import advice, limits
from wsi_seg.slides.colour import Colour, Model
from wsi_seg.slides.orientation import upright_extent
from wsi_seg.slides.slide import NotCopyable, TileStreams
from wsi_seg.slides.tiff_colours import IMAGE_STREAMS, blank_samples, read_colour, word
from wsi_seg.slides.tiff_images import Planes

_ORIENTATION = 274

_KINDS: dict[int, StreamKind] = {
    1: "raw",
    5: "lzw",
    7: "jpeg",
    8: "deflate",
    32946: "deflate",
    33005: "jpeg2k",
    34712: "jpeg2k",
    34926: "zstd",
    50000: "zstd",
    50001: "webp",
    50002: "jpegxl",
    52546: "jpegxl",
}
# Samples per pixel of the streams that can be copied, by colour model.
_SAMPLES: dict[Model, tuple[int, ...]] = {
    "rgb": (3, 4),
    "grey": (1,),
    "white-is-zero": (),
    "palette": (),
    "ycbcr": (),
}


@dataclass(frozen=True, slots=True, eq=False)
class TiffLevel:
    """One pyramid level: its page, and the offset of each tile or strip in the file.

    Parameters
    ----------
    page
        The tifffile page, which decodes tiles.
    extent
        Size of the level.
    segment
        Size of a tile or strip.
    samples, planes
        Samples per pixel in a tile, and number of planes stored one after another.
    offsets, sizes
        Byte offset and byte count of each tile or strip in the file, ``(planes * tiles,)``.
    colour
        Colour model of the samples.
    blank
        Samples of a pixel in a tile that is not stored, ``(samples * planes,)``.
    orientation
        Value of the Orientation tag; see `wsi_seg.slides.orientation`.
    sources
        Page of each plane where every plane has its own page; otherwise only the page.
    """

    page: Any
    extent: Extent
    segment: Extent
    samples: int
    planes: int
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    colour: Colour
    blank: NDArray[np.generic]
    orientation: int
    sources: tuple[Any, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Number of rows and columns of tiles or strips."""
        rows = -(-self.extent.height // self.segment.height)
        return rows, -(-self.extent.width // self.segment.width)

    @property
    def displayed(self) -> Extent:
        """Size of the level after its orientation is applied."""
        return upright_extent(self.extent, self.orientation)

    def decode(self, data: bytes, number: int) -> NDArray[np.generic] | None:
        """Decode the bytes of a tile or strip to ``(H, W, S)``; return None if they are empty."""
        rows, columns = self.grid
        plane, place = divmod(number, rows * columns)
        inside = number if self.page.shaped[0] > 1 else place
        source = self.sources[plane] if len(self.sources) > 1 else self.page
        more = {"jpegtables": source.jpegtables, "jpegheader": self.page.jpegheader}
        try:
            pixels, _, _ = self.page.decode(data, inside, **more)
        except (ValueError, RuntimeError):
            cut = self._cut(data)
            if cut == data:
                raise
            pixels, _, _ = self.page.decode(cut, inside, **more)
        return None if pixels is None else np.asarray(pixels[0])

    def _cut(self, data: bytes) -> bytes:
        """Drop the bytes that follow the last pixel; see `wsi_seg.codestreams.lengths`."""
        kind = _KINDS.get(int(self.page.compression))
        size = self.segment.area * self.samples * self.page.dtype.itemsize
        return data if kind is None else trim_stream(data, kind, size)

    def touching(self, region: Region) -> Iterator[int]:
        """Yield the numbers of the tiles or strips of all planes that intersect a region."""
        rows, columns = self.grid
        for plane in range(self.planes):
            for row in range(
                region.y // self.segment.height, -(-region.y_end // self.segment.height)
            ):
                for column in range(
                    region.x // self.segment.width, -(-region.x_end // self.segment.width)
                ):
                    yield (plane * rows + row) * columns + column


def tile_streams(level: TiffLevel, path: Path) -> TileStreams | NotCopyable:
    """Return the tile streams of a level, or the reason why they cannot be copied."""
    reason = _recode_reason(level)
    if reason:
        return NotCopyable(reason)
    page, compression = level.page, int(level.page.compression)
    blank = level.colour.to_rgb(level.blank.astype(page.dtype)[None, None])[0, 0]
    return TileStreams(
        tile=level.segment,
        kind=_KINDS[compression],
        predictor=int(page.predictor) == 2 and compression not in IMAGE_STREAMS,
        tables=without_comments(page.jpegtables or b"", "jpeg"),
        jpeg_rgb=int(page.photometric) == 2 and not page.is_jfif,
        files=(path,),
        file=np.zeros_like(level.offsets),
        offsets=level.offsets,
        sizes=level.sizes,
        samples=level.samples,
        fill=int(blank[0]),
    )


def read_level(planes: Planes, main: Any, path: Path) -> TiffLevel:  # noqa: ANN401 (no types)
    """Read one level.

    Parameters
    ----------
    planes
        Pages of the level.
    main
        Page of level 0; its orientation and nodata value apply to levels that do not state their
        own.
    path
        The file.

    Raises
    ------
    SlideError
        If its tags contradict each other; errors of tifffile propagate.
    UnsupportedSlideError
        If its pixels cannot be converted to RGB, or its tiles are too large to decode.
    """
    page = planes.pages[0]
    own, _, height, width, samples = page.shaped
    if min(height, width, samples, own) < 1:
        raise SlideError(f"{path}: got a level of {width} x {height} px; expected at least 1 x 1")
    extent = Extent(height=height, width=width)
    segment = (
        Extent(height=page.tilelength, width=page.tilewidth)
        if page.is_tiled
        else Extent(height=min(page.rowsperstrip, height), width=width)
    )
    _require_sizes(path, extent, segment, samples * (page.dtype.itemsize if page.dtype else 1))
    count = own * max(len(planes.pages), planes.joined)
    tiles = own * -(-height // segment.height) * -(-width // segment.width)
    offsets, sizes = _tile_offsets(planes, tiles, path)
    colour = read_colour(page, path, planes=count // own)
    level = TiffLevel(
        page=page,
        extent=extent,
        segment=segment,
        samples=samples,
        planes=count,
        offsets=offsets,
        sizes=sizes,
        colour=colour,
        blank=blank_samples(page, main, colour, samples * count),
        orientation=int(page.tags.valueof(_ORIENTATION) or main.tags.valueof(_ORIENTATION, 1)),
        sources=planes.pages,
    )
    page.decode  # noqa: B018 (builds the decoder, so that unsupported types fail on opening)
    return level


def _tile_offsets(
    planes: Planes, tiles: int, path: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the byte offset and byte count of each tile or strip, page by page."""
    found = []
    for page in planes.pages:
        offsets = np.array(page.dataoffsets[:tiles], dtype=np.int64)
        sizes = np.array(page.databytecounts[:tiles], dtype=np.int64)
        if min(len(offsets), len(sizes)) < tiles:
            raise SlideError(
                f"{path}: got offsets of {min(len(offsets), len(sizes))} tiles or strips; "
                f"expected {tiles}; the file is damaged"
            )
        found += [(offsets + plane * page.nbytes, sizes) for plane in range(planes.joined)]
    return np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found])


def _require_sizes(path: Path, extent: Extent, segment: Extent, pixel_bytes: int) -> None:
    """Check the sizes that a level declares against the limits; see `wsi_seg.limits`."""
    bound = limits()
    if extent.area > bound.level_pixels:
        raise SlideError(f"{path}: got a level of {extent}; {advice('level_pixels')}")
    if segment.area > bound.tile_pixels:
        raise SlideError(
            f"{path}: got tiles or strips of {segment}; {advice('tile_pixels')}, or save it as "
            "a tiled TIFF"
        )
    if segment.area * pixel_bytes > bound.chunk_bytes:
        raise SlideError(
            f"{path}: got tiles or strips of {segment} and {pixel_bytes} bytes a pixel; "
            f"{advice('chunk_bytes')}, or save it as a tiled TIFF"
        )


def _recode_reason(level: TiffLevel) -> str:
    """Return why a level's streams cannot be copied; empty if they can."""
    page = level.page
    compression, predictor = int(page.compression), int(page.predictor)
    missing = bool((level.sizes == 0).any())
    white = level.colour.to_rgb(level.blank.astype(page.dtype)[None, None])
    reasons = (
        (not page.is_tiled, "strips"),
        (level.orientation in range(2, 9), f"orientation {level.orientation}"),
        (missing and len(set(white.flat)) > 1, "missing tiles that are not grey"),
        (level.planes != 1, "separate colour planes"),
        (level.colour.bits != 8, f"{level.colour.bits}-bit samples"),
        (not _SAMPLES[level.colour.model], f"{word(page.photometric)} colours"),
        (
            level.samples not in _SAMPLES[level.colour.model],
            f"{counted(level.samples, 'sample')} per pixel",
        ),
        (level.samples == 4 and compression == 7, "JPEG with alpha"),
        (compression not in _KINDS, f"compression {word(page.compression)}"),
        (predictor not in {1, 2}, f"predictor {predictor}"),
        (int(page.fillorder) != 1 and compression not in IMAGE_STREAMS, "reversed bit order"),
        (bool(page.jpegheader), "a JPEG header shared by the tiles"),
        (int(page.photometric) == 6 and compression != 7, f"{word(page.compression)} in YCbCr"),
    )
    return next((reason for applies, reason in reasons if applies), "")
