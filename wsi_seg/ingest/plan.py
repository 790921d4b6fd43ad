"""Owns the plan of tiling: what to do with each level of a slide, and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from wsi_seg.choices import CodecName
from wsi_seg.errors import ConfigError, UnsupportedSlideError
from wsi_seg.geometry import extend_pyramid
from wsi_seg.ingest.recode import recode_layout
from wsi_seg.ingest.verbatim import mismatch, verbatim_layout
from wsi_seg.slides import NotCopyable, Slide, TileStreams
from wsi_seg.store.cache import pool_map
from wsi_seg.store.codecs import Encoding
from wsi_seg.store.layout import LevelLayout, strip_layout

# JPEG quality of the level computed from copied JPEG: its mean error is below 1 of 255.
_NEXT_QUALITY = 97


@dataclass(frozen=True, slots=True)
class Codec:
    """How to encode levels.

    Parameters
    ----------
    name
        ``auto`` copies streams if possible and otherwise encodes zstd, or JPEG for levels computed
        from copied JPEG; ``verbatim`` requires copies of every level of the slide; others recode
        all levels.
    quality
        JPEG quality of recoded levels, 1 to 100.
    distance
        JPEG XL distance, 0 (lossless) to 15; 1 is visually lossless.

    Raises
    ------
    ConfigError
        If quality or distance are out of range.
    """

    name: CodecName = "auto"
    quality: int = 90
    distance: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise ConfigError(f"got JPEG quality {self.quality}; expected 1 to 100")
        if not 0 <= self.distance <= 15:
            raise ConfigError(f"got JPEG XL distance {self.distance:g}; expected 0 to 15")

    @property
    def encoding(self) -> Encoding:
        """Encoding of the levels that are not copied."""
        if self.name == "jpeg":
            return Encoding("jpeg", loss=self.quality)
        if self.name == "jpegxl":
            return Encoding("jpegxl", loss=self.distance)
        return Encoding()

    def __str__(self) -> str:
        loss = self.encoding.loss
        return self.name if loss is None else f"{self.name} {loss:g}"


AUTO = Codec()


@dataclass(frozen=True, slots=True, eq=False)
class LevelPlan:
    """How to make one level of a store.

    Parameters
    ----------
    level
        Index of the level in the store; that of the slide if it has the level.
    layout
        Layout in the store.
    streams
        Streams to copy; None if pixels are recoded or computed.
    computed
        Whether the level is computed from the finer one, because the slide does not have it.
    reason
        Why the level is not copied; empty if it is.
    """

    level: int
    layout: LevelLayout
    streams: TileStreams | None
    computed: bool
    reason: str

    @property
    def encoding(self) -> str:
        """Short description: ``verbatim jpeg``, ``zstd``, or ``computed``."""
        if self.computed:
            return "computed"
        kind = self.layout.encoding.kind
        return kind if self.streams is None else f"verbatim {kind}"

    def __str__(self) -> str:
        because = f" ({self.reason})" if self.reason else ""
        return f"level {self.level}: {self.layout.extent}, {self.encoding}{because}"


def plan_levels(slide: Slide, codec: Codec = AUTO) -> tuple[LevelPlan, ...]:
    """Plan every level of a slide's store.

    Parameters
    ----------
    slide
        The slide.
    codec
        How to encode levels.

    Raises
    ------
    UnsupportedSlideError
        If the codec is ``verbatim``, and the streams of a level cannot be copied.
    """
    levels = range(len(slide.pyramid.extents))
    own = pool_map(partial(_plan, slide, codec), levels)
    below_jpeg = own[-1].streams is not None and own[-1].streams.kind == "jpeg"
    if codec.name == "auto" and below_jpeg:  # lossless levels would be larger than the slide
        finest, coarser = (Encoding("jpeg", loss=loss) for loss in (_NEXT_QUALITY, codec.quality))
        return (*own, *_computed(slide, finest, coarser))
    return (*own, *_computed(slide, codec.encoding, codec.encoding))


def _plan(slide: Slide, codec: Codec, level: int) -> LevelPlan:
    extent = slide.pyramid.extents[level]
    copies = codec.name in {"auto", "verbatim"}
    found = slide.streams(level) if copies else NotCopyable(f"--codec {codec.name}")
    if isinstance(found, TileStreams) and found.samples != 3 and found.kind != "jpeg":
        found = NotCopyable(f"{found.samples} samples per pixel, not 3")  # JPEG decodes grey to RGB
    if isinstance(found, TileStreams):
        different = mismatch(slide, level, found)
        if not different:
            return LevelPlan(level, verbatim_layout(extent, found), found, False, "")
        found = NotCopyable(different)
    if codec.name == "verbatim":
        raise UnsupportedSlideError(
            f"{slide.path}: level {level} cannot be copied verbatim: {found.reason}; use "
            "--codec auto"
        )
    layout = recode_layout(extent, slide.native_block(level), codec.encoding)
    return LevelPlan(level, layout, None, False, found.reason)


def _computed(slide: Slide, finest: Encoding, coarser: Encoding) -> Sequence[LevelPlan]:
    """Plan levels that the slide does not have; networks most often read the finest of them."""
    own = len(slide.pyramid.extents)
    extents = extend_pyramid(slide.pyramid.extents)
    return [
        LevelPlan(
            level,
            strip_layout(extents[level], encoding=finest if level == own else coarser),
            None,
            True,
            "not in the slide",
        )
        for level in range(own, len(extents))
    ]
