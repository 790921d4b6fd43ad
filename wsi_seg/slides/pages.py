"""Owns what one TIFF page says: sizes, tiles, colours, and whether its streams can be copied."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from wsi_seg.codestreams.headers import StreamKind
from wsi_seg.codestreams.metadata import without_comments
from wsi_seg.errors import SlideError, UnsupportedSlideError
from wsi_seg.geometry import Extent, Region
from wsi_seg.limits import advice, limits
from wsi_seg.slides.colour import Colour, Model
from wsi_seg.slides.slide import Recode, TileStreams

_APERIO_YCBCR = 33003
_IMAGE_STREAMS = {7, 33005, 34712, 50001, 50002, 52546}
# Old-style JPEG is converted to RGB as well.
_CONVERTING = _IMAGE_STREAMS | {6}

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
_MODELS: dict[int, Model] = {
    0: "white-is-zero",
    1: "grey",
    2: "rgb",
    3: "palette",
    6: "rgb",  # decoders of JPEG and JPEG 2000 convert
}


# Samples per px of the streams that can be copied, by colour model.
_SAMPLES: dict[Model, tuple[int, ...]] = {
    "rgb": (3, 4),
    "grey": (1,),
    "white-is-zero": (),
    "palette": (),
    "ycbcr": (),
}


@dataclass(frozen=True, slots=True, eq=False)
class TiffLevel:
    """One level: its page, and where each tile or strip lies in the file.

    Parameters
    ----------
    page
        tifffile's page, which decodes.
    extent
        Size of the level.
    segment
        Size of a tile, or of a strip.
    samples, planes
        Samples per px within a tile, and number of planes that are stored one after another.
    offsets, sizes
        Place and length of each tile or strip in the file, in bytes.
    colour
        What the samples mean.
    """

    page: Any
    extent: Extent
    segment: Extent
    samples: int
    planes: int
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    colour: Colour

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles or strips."""
        rows = -(-self.extent.height // self.segment.height)
        return rows, -(-self.extent.width // self.segment.width)

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


def tile_streams(level: TiffLevel) -> TileStreams | Recode:
    """Offer the tile streams of a level, or the reason why they cannot be copied."""
    reason = _recode_reason(level)
    if reason:
        return Recode(reason)
    page, compression = level.page, int(level.page.compression)
    return TileStreams(
        tile=level.segment,
        kind=_KINDS[compression],
        predictor=int(page.predictor) == 2 and compression not in _IMAGE_STREAMS,
        tables=without_comments(page.jpegtables or b"", "jpeg"),
        jpeg_rgb=int(page.photometric) == 2 and not page.is_jfif,
        offsets=level.offsets,
        sizes=level.sizes,
        samples=level.samples,
    )


def read_level(series: Any, path: Path) -> TiffLevel:  # noqa: ANN401 (tifffile has no types)
    """Read one level of a tifffile series.

    Raises
    ------
    SlideError
        If its tags contradict each other; tifffile's own errors pass through.
    UnsupportedSlideError
        If its px have no meaning as RGB, or its tiles are too large to be decoded one by one.
    """
    page = series.keyframe
    planes, _, height, width, samples = page.shaped
    if min(height, width, samples, planes) < 1:
        raise SlideError(f"{path}: got a level of {width} x {height} px; expected at least 1 x 1")
    extent = Extent(height=height, width=width)
    segment = (
        Extent(height=page.tilelength, width=page.tilewidth)
        if page.is_tiled
        else Extent(height=min(page.rowsperstrip, height), width=width)
    )
    _require_sizes(path, extent, segment, samples * (page.dtype.itemsize if page.dtype else 1))
    rows, columns = -(-height // segment.height), -(-width // segment.width)
    expected = rows * columns * planes
    offsets = np.array(page.dataoffsets[:expected], dtype=np.int64)
    sizes = np.array(page.databytecounts[:expected], dtype=np.int64)
    if min(len(offsets), len(sizes)) < expected:
        raise SlideError(
            f"{path}: got places of {min(len(offsets), len(sizes))} tiles or strips; "
            f"expected {expected}; the file is damaged"
        )
    level = TiffLevel(
        page=page,
        extent=extent,
        segment=segment,
        samples=samples,
        planes=planes,
        offsets=offsets,
        sizes=sizes,
        colour=_colour(page, path),
    )
    page.decode  # noqa: B018 (builds the decoder now: the file's types are checked on opening)
    return level


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
            f"{path}: got tiles or strips of {segment} and {pixel_bytes} bytes a px; "
            f"{advice('chunk_bytes')}, or save it as a tiled TIFF"
        )


def _colour(page: Any, path: Path) -> Colour:  # noqa: ANN401 (tifffile has no types)
    photometric, compression = int(page.photometric), int(page.compression)
    if photometric not in _MODELS:
        raise UnsupportedSlideError(
            f"{path}: got {_word(page.photometric)} colours; expected grey, palette, RGB or YCbCr; "
            "convert it to RGB"
        )
    model = _MODELS[photometric]
    if compression == _APERIO_YCBCR or (photometric == 6 and compression not in _CONVERTING):
        model = "ycbcr"
    if compression not in tifffile.TIFF.DECOMPRESSORS:
        raise UnsupportedSlideError(
            f"{path}: got compression {compression}, which is not known; convert it"
        )
    dtype, bits = page.dtype, page.bitspersample
    if dtype is None or dtype.kind not in "bu" or not isinstance(bits, int) or bits > 16:
        raise UnsupportedSlideError(
            f"{path}: got samples of {dtype}, {bits} bits; expected unsigned integers of 1 to 16 "
            "bits; convert it"
        )
    palette = None
    if model == "palette":
        palette = (np.asarray(page.colormap).T >> 8).astype(np.uint8)
    elif model in {"rgb", "ycbcr"} and page.samplesperpixel < 3:
        raise SlideError(f"{path}: got {page.samplesperpixel} samples per px; expected 3")
    return Colour(model, bits, palette)


def _word(value: int) -> str:
    """Name of a TIFF enumeration's member, or the bare number of an unknown one."""
    return str(getattr(value, "name", value))


def _recode_reason(level: TiffLevel) -> str:
    """Why a level's streams cannot be copied; empty if they can."""
    page = level.page
    compression, predictor = int(page.compression), int(page.predictor)
    reasons = (
        (not page.is_tiled, "strips"),
        (level.planes != 1, "separate colour planes"),
        (level.colour.bits != 8, f"{level.colour.bits} bits per sample"),
        (not _SAMPLES[level.colour.model], f"{_word(page.photometric)} colours"),
        (level.samples not in _SAMPLES[level.colour.model], f"{level.samples} samples per px"),
        (level.samples == 4 and compression == 7, "JPEG with alpha"),
        (compression not in _KINDS, f"compression {_word(page.compression)}"),
        (predictor not in {1, 2}, f"predictor {predictor}"),
        (int(page.fillorder) != 1 and compression not in _IMAGE_STREAMS, "reversed bit order"),
        (bool(page.jpegheader), "a JPEG header shared by the tiles"),
        (int(page.photometric) == 6 and compression != 7, f"{_word(page.compression)} in YCbCr"),
    )
    return next((reason for applies, reason in reasons if applies), "")
