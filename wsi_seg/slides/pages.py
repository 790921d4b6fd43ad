"""Owns what one TIFF page says: sizes, tiles, colours, and whether its streams can be copied."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_seg.codestreams.headers import StreamKind
from wsi_seg.codestreams.lengths import exactly
from wsi_seg.codestreams.metadata import without_comments
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
    """One level: its page, and where each tile or strip is in the file.

    Parameters
    ----------
    page
        tifffile's page, which decodes.
    extent
        Size of the level.
    segment
        Size of a tile, or of a strip.
    samples, planes
        Samples per pixel within a tile, and number of planes that are stored one after another.
    offsets, sizes
        Place and length of each tile or strip in the file, in bytes.
    colour
        What the samples mean.
    blank
        Samples of a pixel that the file leaves out, ``(samples * planes,)``.
    orientation
        How the level is turned upright; see `wsi_seg.slides.orientation`.
    sources
        Page of each plane, where these are pages of their own; else the page alone.
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
        """Rows and columns of tiles or strips."""
        rows = -(-self.extent.height // self.segment.height)
        return rows, -(-self.extent.width // self.segment.width)

    @property
    def shown(self) -> Extent:
        """Size of the level when it is upright."""
        return upright_extent(self.extent, self.orientation)

    def decode(self, data: bytes, number: int) -> NDArray[np.generic] | None:
        """Decode the bytes of a tile or strip, ``(H, W, S)``; None if there is nothing in them."""
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
        """Leave out what a stream holds after its last pixel; see `wsi_seg.codestreams.lengths`."""
        kind = _KINDS.get(int(self.page.compression))
        size = self.segment.area * self.samples * self.page.dtype.itemsize
        return data if kind is None else exactly(data, kind, size)

    def touching(self, region: Region) -> Iterator[int]:
        """Numbers of the tiles or strips that touch a region, of all planes."""
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
    """Offer the tile streams of a level of a file, or the reason why they cannot be copied."""
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
        Page of level 0, which counts for levels that do not state an orientation or a value of
        pixels that are left out.
    path
        The file.

    Raises
    ------
    SlideError
        If its tags contradict each other; tifffile's own errors pass through.
    UnsupportedSlideError
        If its pixels have no meaning as RGB, or its tiles are too large to be decoded one by one.
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
    offsets, sizes = _places(planes, tiles, path)
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
    page.decode  # noqa: B018 (builds the decoder now: the file's types are checked on opening)
    return level


def _places(planes: Planes, tiles: int, path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place and length of each tile or strip, page by page."""
    found = []
    for page in planes.pages:
        offsets = np.array(page.dataoffsets[:tiles], dtype=np.int64)
        sizes = np.array(page.databytecounts[:tiles], dtype=np.int64)
        if min(len(offsets), len(sizes)) < tiles:
            raise SlideError(
                f"{path}: got places of {min(len(offsets), len(sizes))} tiles or strips; "
                f"expected {tiles}; the file is damaged"
            )
        found += [(offsets + plane * page.nbytes, sizes) for plane in range(planes.joined)]
    return np.concatenate([one for one, _ in found]), np.concatenate([one for _, one in found])


def _require_sizes(path: Path, extent: Extent, segment: Extent, pixel_bytes: int) -> None:
    """Hold the sizes that a level claims against the limits; see `wsi_seg.limits`."""
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
    """Why a level's streams cannot be copied; empty if they can."""
    page = level.page
    compression, predictor = int(page.compression), int(page.predictor)
    left_out = bool((level.sizes == 0).any())
    white = level.colour.to_rgb(level.blank.astype(page.dtype)[None, None])
    reasons = (
        (not page.is_tiled, "strips"),
        (level.orientation in range(2, 9), f"orientation {level.orientation}"),
        (left_out and len(set(white.flat)) > 1, "tiles left out that are not grey"),
        (level.planes != 1, "separate colour planes"),
        (level.colour.bits != 8, f"{level.colour.bits} bits per sample"),
        (not _SAMPLES[level.colour.model], f"{word(page.photometric)} colours"),
        (level.samples not in _SAMPLES[level.colour.model], f"{level.samples} samples per pixel"),
        (level.samples == 4 and compression == 7, "JPEG with alpha"),
        (compression not in _KINDS, f"compression {word(page.compression)}"),
        (predictor not in {1, 2}, f"predictor {predictor}"),
        (int(page.fillorder) != 1 and compression not in IMAGE_STREAMS, "reversed bit order"),
        (bool(page.jpegheader), "a JPEG header shared by the tiles"),
        (int(page.photometric) == 6 and compression != 7, f"{word(page.compression)} in YCbCr"),
    )
    return next((reason for applies, reason in reasons if applies), "")
