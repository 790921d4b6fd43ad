"""Owns what tiling will do with each level of a slide, and why; made before any work."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from wsi_seg.choices import CodecName
from wsi_seg.errors import ConfigError, UnsupportedSlideError
from wsi_seg.geometry import extend_pyramid
from wsi_seg.ingest.recode import recode_layout
from wsi_seg.ingest.verbatim import mismatch, verbatim_layout
from wsi_seg.slides import NotCopyable, Slide, TileStreams
from wsi_seg.store.cache import shared_pool
from wsi_seg.store.codecs import Encoding
from wsi_seg.store.layout import LevelLayout, strip_layout

# Of the level computed right below copied JPEG: within one of 255 of the mean, on average.
_NEXT_QUALITY = 97


@dataclass(frozen=True, slots=True)
class Codec:
    """How levels are to be encoded.

    Parameters
    ----------
    name
        ``auto`` copies streams where it can and takes zstd elsewhere, but JPEG for levels computed
        below copied JPEG; ``verbatim`` insists on copies for every level the slide has; the others
        recode all levels.
    quality
        Of JPEG that we encode, 1 to 100.
    distance
        Of ``jpegxl``, 0 (lossless) to 15; 1 looks the same to most eyes.

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
    """What happens to one level.

    Parameters
    ----------
    level
        Pyramid index in the store; the slide's own where it has that level.
    layout
        How it is stored.
    streams
        Streams to copy, or None if pixels are recoded or computed.
    computed
        Whether it is computed from the level above, because the slide lacks it.
    reason
        Why it is not copied; empty if it is.
    """

    level: int
    layout: LevelLayout
    streams: TileStreams | None
    computed: bool
    reason: str

    @property
    def encoding(self) -> str:
        """Word for it: ``verbatim jpeg``, ``zstd``, or ``computed``."""
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
        How they are to be encoded.

    Raises
    ------
    UnsupportedSlideError
        If ``verbatim`` is asked for and a level's streams cannot be copied.
    """
    levels = range(len(slide.pyramid.extents))
    own = list(shared_pool().map(partial(_plan, slide, codec), levels))
    below_jpeg = own[-1].streams is not None and own[-1].streams.kind == "jpeg"
    if codec.name == "auto" and below_jpeg:  # without loss they would outgrow the slide
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
    """Levels that the slide lacks; the finest of them is what networks most often look at."""
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
