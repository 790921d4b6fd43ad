"""Owns the inference plan: which tiles of a slide are predicted, at which level, in which strips.

A plan is plain data, computed before any work starts. Executing it in one process, in many, or
resuming it after a crash gives the same bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_seg.choices import Blend
from wsi_seg.errors import ConfigError, ResolutionError
from wsi_seg.files.object_path import object_path
from wsi_seg.geometry import Extent, Pyramid, TileGrid
from wsi_seg.inference.blend import axis_weights
from wsi_seg.inference.options import InferOptions
from wsi_seg.models.card import ModelCard
from wsi_seg.reading.boxes import Spans, box_sums
from wsi_seg.reading.readable import Readable
from wsi_seg.reading.resample import COARSEST_SLIDE, Scale
from wsi_seg.reading.view import View
from wsi_seg.store import LabelInfo, Multiscale
from wsi_seg.store.names import TISSUE

# Rows of chunks higher than this are read in parts, through the cache of decoded chunks.
UNIT_ROWS = 1024

# Columns that one thread reads at a time; more in an object store, where a read of neighbouring
# chunks of a shard is one request.
_READ_PX, _REMOTE_READ_PX = 1024, 4096

# A plan with more tiles would not fit into memory.
_MAX_TILES = 2**24

# Tile that could not be read: first row, first column, reason.
Quarantined = tuple[int, int, str]


class PlannedSlide(Protocol):
    """The part of a slide that planning and prediction use: a `SlideStore`, or an array."""

    @property
    def name(self) -> str:
        """Name of the slide."""

    @property
    def pyramid(self) -> Pyramid:
        """Levels of the image."""

    @property
    def image(self) -> Readable:
        """Pixels."""

    def label_names(self) -> tuple[str, ...]:
        """Names of the labels."""

    def label(self, name: str) -> Multiscale:
        """Open a label."""

    @property
    def slice_mm(self) -> float | None:
        """Distance to the next slice in millimetres; None if unknown."""

    def sibling(self, name: str) -> "PlannedSlide | None":
        """Return another slide of the same collection, or None if there is no such slide."""


@dataclass(frozen=True, slots=True, eq=False)
class FirstPass:
    """Result of an earlier run without overlap, which replaces some tiles of a plan.

    Parameters
    ----------
    image
        Its probabilities; same extent as the plan.
    keep
        Tiles of the plan that it replaces, ``(len(ys), len(xs))`` bool.
    skipped
        Number of tiles with tissue that neither run predicts.
    """

    image: Multiscale
    keep: NDArray[np.bool_]
    skipped: int


@dataclass(frozen=True, slots=True, eq=False)
class SlidePlan:
    """All decisions about one slide.

    Parameters
    ----------
    slide
        Name of the slide.
    level
        Level of the store to read.
    source
        Size of that level.
    extent
        Size of the output: the size of the level, or another one if the level is resampled.
    downsample
        Level-0 pixels per output pixel.
    mpp
        Micrometres per output pixel; None if unknown.
    tile_px
        Side of a tile in output pixels.
    ys, xs
        First pixel row of each row of tiles, first pixel column of each column of tiles.
    blend
        How overlapping tiles are merged.
    keep
        Tiles to predict, ``(len(ys), len(xs))`` bool.
    strip_px
        Rows of the output per strip.
    shard_px
        Rows of the output per file; equals ``strip_px`` unless ``native`` is given.
    chunk
        Size of the chunks of the level.
    view
        Resolution and size at which the model sees the slide.
    native
        Size to which the result of a resized slide is scaled back, that of its level 0; None if
        the result is stored at the size at which it was predicted.
    notes
        Overrides and repairs, one sentence each.
    first_pass
        The earlier run with adaptive overlap, otherwise None. See `adaptive.merged`.
    read_px
        Columns of the level that one thread reads at a time.
    """

    slide: str
    level: int
    source: Extent
    extent: Extent
    downsample: float
    mpp: float | None
    tile_px: int
    ys: tuple[int, ...]
    xs: tuple[int, ...]
    blend: Blend
    keep: NDArray[np.bool_]
    strip_px: int
    shard_px: int
    chunk: Extent
    view: View
    native: Extent | None = None
    notes: tuple[str, ...] = field(default=())
    first_pass: FirstPass | None = None
    read_px: int = _READ_PX

    @property
    def strips(self) -> tuple[tuple[int, int], ...]:
        """First row of each strip of the output, and the row after its last one."""
        return tuple((strip.y, strip.y_end) for strip in self.extent.strips(self.strip_px))

    @property
    def resampled(self) -> bool:
        """Whether the size of the output differs from that of the level that is read."""
        return self.source != self.extent

    @property
    def unit_px(self) -> int:
        """Rows of the level to read at a time: a row of chunks, or part of a high one."""
        return min(self.chunk.height, UNIT_ROWS, self.source.height)

    @property
    def reduction(self) -> float:
        """Pixels of the level per pixel of the output, along a row."""
        return self.source.width / self.extent.width

    @property
    def row_weights(self) -> NDArray[np.int32]:
        """Blend weights along y, ``(len(ys), tile_px)`` int32; not cached: plans are pickled."""
        return axis_weights(self.ys, self.tile_px, length=self.extent.height, blend=self.blend)

    @property
    def column_weights(self) -> NDArray[np.int32]:
        """Blend weights along x, ``(len(xs), tile_px)`` int32; not cached: plans are pickled."""
        return axis_weights(self.xs, self.tile_px, length=self.extent.width, blend=self.blend)

    def with_strips(self, strip_px: int) -> "SlidePlan":
        """Return the plan with another strip and shard height; a resized slide stays one strip."""
        strips = self.strip_px if self.native is not None else strip_px
        return replace(self, strip_px=strips, shard_px=strip_px)

    def rows_for(self, strips: frozenset[int]) -> tuple[int, ...]:
        """Return the rows of tiles that overlap any of these strips, ascending."""
        bounds = [self.strips[index] for index in sorted(strips)]
        tops = np.asarray(self.ys)
        touched = np.zeros(len(tops), dtype=bool)
        for y, y_end in bounds:
            touched |= (tops < y_end) & (tops + self.tile_px > y)
        return tuple(int(row) for row in np.flatnonzero(touched))

    def columns_for(self, rows: Sequence[int]) -> range:
        """Return the pixel columns covered by the tiles to predict in ``rows``; may be empty."""
        tiles = np.flatnonzero(self.keep[list(rows)].any(axis=0))
        if not len(tiles):
            return range(0)
        return range(self.xs[tiles[0]], self.xs[tiles[-1]] + self.tile_px)

    def tiles_in(self, strips: frozenset[int]) -> int:
        """Count the tiles to predict for these strips."""
        return int(self.keep[list(self.rows_for(strips))].sum())


def finest(plans: Sequence[SlidePlan]) -> SlidePlan:
    """Return the plan with the largest output, the first of several equal ones."""
    return max(plans, key=lambda plan: plan.extent.area)


def plan_slide(
    store: PlannedSlide, card: ModelCard, options: InferOptions, *, strip_px: int
) -> SlidePlan:
    """Choose the level, tiles and strips of one slide.

    Raises
    ------
    ResolutionError
        If the slide has no mpp but the model needs one, or if the slide is too coarse.
    ConfigError
        If there are too many tiles, or the model resizes slides and options set a resolution.
    """
    view = card.view(options.tile_px)
    if options.mpp is not None or options.level is not None:
        view, scale, notes = _asked_for(store, view, options)
    else:
        scale, notes = _scale(store, view, options)
    level, extent, pyramid = scale.level, scale.extent, store.pyramid
    tile_px, shard_px = view.side, strip_px
    downsample = pyramid.downsample(level)
    if card.resize is not None:
        # The result of a resized slide is small, and is scaled back as a whole.
        downsample, strip_px = 1.0, extent.height
    elif extent != pyramid.extents[level] and view.mpp is not None and pyramid.mpp is not None:
        downsample = view.mpp / pyramid.mpp
    # Rounded up, so that the overlap never exceeds the requested one.
    stride = math.ceil(tile_px * (1 - options.fraction) - 1e-9)
    grid = TileGrid(extent, tile_px, stride)
    ys, xs = grid.ys, grid.xs
    if len(ys) * len(xs) > _MAX_TILES:
        smallest = math.ceil(tile_px * math.sqrt(len(ys) * len(xs) / _MAX_TILES))
        raise ConfigError(
            f"slide {store.name!r}: got {len(ys) * len(xs):,} tiles of {tile_px} px; expected at "
            f"most {_MAX_TILES:,}: set --tile to {smallest} or more, or a smaller --overlap"
        )
    keep = np.ones((len(ys), len(xs)), dtype=bool)
    if options.skip_background and TISSUE in store.label_names():
        tissue = store.label(TISSUE)
        keep = _tiles_with_tissue(tissue, extent, grid)
        if not keep.any() and not LabelInfo.from_json(tissue.attributes, tissue.path).trusted:
            keep = ~keep
            notes = (*notes, "the tissue mask is empty, so every tile was predicted")
    if options.inside is not None:
        tile = Extent(height=tile_px, width=tile_px)
        keep &= options.inside.touched(store, pyramid.extent, extent, ys, xs, tile)
        notes = (*notes, f"only what is inside {options.inside.description} was predicted")
    if view.mpp is None and view.resize is None:
        notes = (*notes, f"the model states no um per pixel: level {level} was read as it is")
    return SlidePlan(
        slide=store.name,
        level=level,
        source=pyramid.extents[level],
        extent=extent,
        downsample=downsample,
        mpp=None if pyramid.mpp is None else pyramid.mpp * downsample,
        tile_px=tile_px,
        ys=ys,
        xs=xs,
        blend=options.blend,
        keep=keep,
        strip_px=strip_px,
        shard_px=shard_px,
        chunk=store.image.chunk(level),
        view=view,
        native=None if card.resize is None else pyramid.extent,
        notes=notes,
        read_px=_read_px(store.image),
    )


def _read_px(image: Readable) -> int:
    is_remote = isinstance(image, Multiscale) and object_path(image.path) is not None
    return _REMOTE_READ_PX if is_remote else _READ_PX


def _scale(store: PlannedSlide, view: View, options: InferOptions) -> tuple[Scale, tuple[str, ...]]:
    """Level and output size by the rule that training uses, and a note if it is overridden."""
    try:
        return view.scale(store.pyramid, name=store.name), ()
    except ResolutionError as error:
        if options.allow_mpp_mismatch:
            return Scale(0, store.pyramid.extent), (f"read at level 0 as it is, though {error}",)
        raise ResolutionError(
            f"{error}, or accept level 0 as it is with --allow-mpp-mismatch"
        ) from error


def _asked_for(
    store: PlannedSlide, view: View, options: InferOptions
) -> tuple[View, Scale, tuple[str, ...]]:
    """View, level and size for an mpp or a level that the user set."""
    if view.resize is not None:
        raise ConfigError(
            f"slide {store.name!r}: got --mpp or --level, but the model resizes every slide to "
            f"{view.side} px; leave them out"
        )
    pyramid, level = store.pyramid, options.level
    if level is None:
        mpp = options.mpp
        seen = replace(view, mpp=mpp)
        scale, notes = _scale(store, seen, options)
    else:
        if not 0 <= level < len(pyramid.extents):
            raise ConfigError(
                f"slide {store.name!r}: got level {level}; expected 0 to {len(pyramid.extents) - 1}"
            )
        mpp = pyramid.level_mpp(level)
        seen, scale, notes = view, Scale(level, pyramid.extents[level]), ()
    if view.mpp is None or (mpp is not None and _like(mpp, view.mpp)):
        return seen, scale, notes
    found = "unknown" if mpp is None else f"{mpp:.4g}"
    what = f"slide {store.name!r} would be read at {found} um per pixel, and the model has seen "
    what += f"{view.mpp:.4g}"
    if not options.allow_mpp_mismatch:
        raise ResolutionError(
            f"{what}; expected within {COARSEST_SLIDE - 1:.0%}: leave out --mpp and --level, or "
            "accept it with --allow-mpp-mismatch"
        )
    return seen, scale, (*notes, what)


def _like(mpp: float, other: float) -> bool:
    """Whether two resolutions are close enough for a model trained at one to read the other."""
    return max(mpp / other, other / mpp) <= COARSEST_SLIDE


def _tiles_with_tissue(tissue: Multiscale, extent: Extent, grid: TileGrid) -> NDArray[np.bool_]:
    """Whether each tile contains tissue, from box sums over the low-resolution tissue mask."""
    size = tissue.pyramid.extent
    mask = tissue.read(size.region()) > 0

    def bounds(starts: tuple[int, ...], full: int, small: int) -> Spans:
        first = np.asarray(starts, dtype=np.int64)
        after = np.minimum(first + grid.tile, full)
        return first * small // full, np.minimum(small, -(-after * small // full))

    rows = bounds(grid.ys, extent.height, size.height)
    columns = bounds(grid.xs, extent.width, size.width)
    found: NDArray[np.bool_] = box_sums(mask, rows, columns) > 0
    return found
