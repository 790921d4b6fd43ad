"""Owns what tiling will do with each level of a slide, and why; made before any work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from wsi_seg.errors import UnsupportedSlideError
from wsi_seg.slides import Recode, Slide, TileStreams
from wsi_seg.store.layout import LevelLayout, completed, strip_layout
from wsi_seg.store.recode import recode_layout
from wsi_seg.store.verbatim import mismatch, verbatim_layout

Codec = Literal["auto", "verbatim", "zstd"]


@dataclass(frozen=True, slots=True, eq=False)
class LevelPlan:
    """What happens to one level.

    Parameters
    ----------
    level
        Pyramid index in the store; the slide's own where it has that level.
    layout
        How it will lie on disk.
    streams
        Streams to copy, or None if px are recoded or computed.
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
        return "zstd" if self.streams is None else f"verbatim {self.streams.kind}"

    def to_json(self) -> dict[str, str]:
        """Give encoding and reason as plain JSON values."""
        return {"encoding": self.encoding} | ({"reason": self.reason} if self.reason else {})

    def __str__(self) -> str:
        because = f" ({self.reason})" if self.reason else ""
        return f"level {self.level}: {self.layout.extent}, {self.encoding}{because}"


def plan_levels(slide: Slide, codec: Codec = "auto") -> tuple[LevelPlan, ...]:
    """Plan every level of a slide's store.

    Parameters
    ----------
    slide
        The slide.
    codec
        ``auto`` copies streams where it can, ``verbatim`` insists on it for every level the
        slide has, ``zstd`` recodes all.

    Raises
    ------
    UnsupportedSlideError
        If ``verbatim`` is asked for and a level's streams cannot be copied.
    """
    own = [_plan(slide, level, codec) for level in range(len(slide.pyramid.extents))]
    return (*own, *_computed(slide))


def _plan(slide: Slide, level: int, codec: Codec) -> LevelPlan:
    extent = slide.pyramid.extents[level]
    found = Recode("--codec zstd") if codec == "zstd" else slide.streams(level)
    if isinstance(found, TileStreams):
        different = mismatch(slide, level, found)
        if not different:
            return LevelPlan(level, verbatim_layout(extent, found), found, False, "")
        found = Recode(different)
    if codec == "verbatim":
        raise UnsupportedSlideError(
            f"{slide.path}: level {level} cannot be copied verbatim: {found.reason}; use "
            "--codec auto"
        )
    layout = recode_layout(extent, slide.piece(level))
    return LevelPlan(level, layout, None, False, found.reason)


def _computed(slide: Slide) -> Sequence[LevelPlan]:
    own = len(slide.pyramid.extents)
    extents = completed(slide.pyramid.extents)
    return [
        LevelPlan(level, strip_layout(extents[level]), None, True, "not in the slide")
        for level in range(own, len(extents))
    ]
