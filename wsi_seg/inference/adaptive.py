"""Owns adaptive overlap: which tiles of the half-overlapping grid are predicted.

First every tile is predicted without overlap. What it got wrong for want of context is at the
borders of tiles, and shows there as a jump: neighbours disagree. So a tile across a border is
predicted only where the first pass jumps; everywhere else the first pass stays as it is. Which
tiles that are depends on the first prediction alone, not on workers, strips or restarts.

An error that is the same on both sides of a border does not show; only a fixed overlap repairs it.
Pixels near borders that are merely unsure were tried as a second sign: on the demo's slide they
asked for a quarter more tiles and changed no score. Against half overlap this predicts half the
tiles; a fixed overlap of 0.25 predicts as few and, with the models tried, scores as well. Only
slides where few borders of tiles cross anything gain over that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_seg.errors import BatchError, ConfigError
from wsi_seg.geometry import Region
from wsi_seg.inference.blend import axis_weights
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import FirstPass, PlannedSlide, Quarantined, SlidePlan, plan_slide
from wsi_seg.inference.report import InferReport
from wsi_seg.predict.ensemble import Model
from wsi_seg.store import Multiscale, SlideStore, delete, open_predictions
from wsi_seg.store.names import PARTIAL

# Neighbouring pixels of 255 that differ by more across a border disagree: 0.2.
_JUMP = 51

# Pixels that have to, for a tile to be predicted, as a share of the tile's side.
_ENOUGH = 1 / 32

_BAND_PX = 512
_BLOCK = 2**20


def infer_twice(
    run: Callable[..., InferReport],
    model: Model,
    stores: Sequence[SlideStore],
    out: Path,
    options: InferOptions,
    *,
    overwrite: bool,
) -> InferReport:
    """Predict without overlap, then again where tiles disagree.

    The first pass is a collection of its own next to the output, so it resumes as any other; it is
    removed at the end.

    Parameters
    ----------
    run
        Predicts in one pass: takes stores, output, options and, by name, ``refine``.
    model, stores, out, options, overwrite
        See `run.infer_with`.

    Raises
    ------
    ConfigError
        If there are several models, or one that resizes slides.
    BatchError
        If no slide could be predicted.
    """
    require_adaptable(model)
    first_out = out.with_name(f".{out.name}.first")
    plain = first_options(options)
    left = [
        store
        for store in stores
        if overwrite or not (out / store.name).exists() or (out / PARTIAL / store.name).exists()
    ]
    failures: Mapping[str, str] = {}
    first: InferReport | None = None
    if left:
        try:
            first = run(left, first_out, plain)
            failures = first.failures
        except BatchError as error:
            failures = error.failures
            if len(left) == len(stores):
                if not len(open_predictions(first_out)):  # the first settings can still continue it
                    _drop(first_out)
                raise
    known = open_predictions(first_out) if first_out.exists() else None

    def refine(store: PlannedSlide, plan: SlidePlan) -> SlidePlan:
        if known is None or store.name not in known:
            return plan  # it is complete
        own = plan_slide(store, model.card, plain, strip_px=plan.strip_px)
        return refined(plan, own, known[store.name].probabilities)

    try:
        found = [store for store in stores if store.name not in failures]
        report = run(found, out, options, refine=refine)
    except BatchError as error:
        # The first settings can continue it where slides are unfinished.
        if not any((out / PARTIAL / store.name).exists() for store in stores):
            _drop(first_out)
        raise BatchError({**failures, **error.failures}, done=0) from error
    if not report.failures or not any((out / PARTIAL / store.name).exists() for store in stores):
        _drop(first_out)
    report = replace(report, failures={**failures, **report.failures})
    return report if first is None else report.after(first)


def _drop(first_out: Path) -> None:
    """Remove the first pass, unless slides of it are unfinished and can be continued."""
    if first_out.exists() and not open_predictions(first_out).unfinished():
        delete(first_out)


def require_adaptable(model: Model) -> None:
    """Refuse a model that does not work with adaptive overlap.

    Raises
    ------
    ConfigError
        If there are several models, or one that resizes slides.
    """
    if len(model.members) > 1 or model.card.resize is not None:
        what = "several models" if len(model.members) > 1 else "a model that resizes slides"
        raise ConfigError(f"got adaptive overlap and {what}; expected a number such as 0.5")


def require_even_tile(plan: SlidePlan) -> None:
    """Refuse a tile without a middle.

    Raises
    ------
    ConfigError
        If the tile has an odd side, so that the grids of the two passes do not fit.
    """
    if plan.tile_px % 2:
        raise ConfigError(
            f"slide {plan.slide!r}: got a tile of {plan.tile_px} px and adaptive overlap; expected "
            "an even number of pixels"
        )


def first_options(options: InferOptions) -> InferOptions:
    """Options of the first pass: the same without overlap."""
    return replace(options, overlap=0.0, save="both")


def refined(plan: SlidePlan, first: SlidePlan, image: Multiscale) -> SlidePlan:
    """Plan of the second run: the tiles that are needed beyond the first.

    Parameters
    ----------
    plan
        The slide at half overlap.
    first
        The slide without overlap.
    image
        What the first pass predicted, complete.

    Raises
    ------
    ConfigError
        If the tile has an odd side.
    """
    require_even_tile(plan)
    known = np.zeros_like(plan.keep)
    rows, columns = (np.searchsorted(own, of_first) for own, of_first in _axes(plan, first))
    known[np.ix_(rows, columns)] = first.keep
    for y, x, _ in image.quarantined:
        known[plan.ys.index(y), plan.xs.index(x)] = False
    # Tiles of the first run are known, or could not be read: they are not tried again.
    again = plan.keep & (_disagreements(plan, first, image) >= max(1, plan.tile_px * _ENOUGH))
    again[np.ix_(rows, columns)] = False
    skipped = plan.keep & ~again
    skipped[np.ix_(rows, columns)] = False
    return replace(plan, keep=again, first_pass=FirstPass(image, known, int(skipped.sum())))


def merged(
    plan: SlidePlan, y: int, rows: NDArray[np.uint8], quarantined: Sequence[Quarantined] = ()
) -> NDArray[np.uint8]:
    """Blend rows of the second run with those of the first, each as its tiles weigh there.

    Parameters
    ----------
    plan
        Of the second run; without a first one the rows are returned as they are.
    y, rows
        First row, and probabilities ``(H, W, C)`` uint8 of the tiles of this plan alone.
    quarantined
        Tiles of this plan that could not be read, and weigh nothing.
    """
    first = plan.first_pass
    if first is None:
        return rows
    keep = plan.keep.copy()
    for top, left, _ in quarantined:
        keep[plan.ys.index(top), plan.xs.index(left)] = False
    out = np.empty_like(rows)
    portion = max(1, _BLOCK // rows[0].size)
    for top in range(0, len(rows), portion):
        part = rows[top : top + portion]
        span = range(y + top, y + top + len(part))
        region = Region(level=0, y=span.start, x=0, height=len(part), width=plan.extent.width)
        known = first.image.read(region, cached=False)
        ours, theirs = (_weights(plan, tiles, span)[:, :, None] for tiles in (keep, first.keep))
        total = ours + theirs
        mixed = ours * part + theirs * known + total // 2
        out[top : top + portion] = mixed // np.maximum(total, 1)
    return out


def _weights(plan: SlidePlan, tiles: NDArray[np.bool_], span: range) -> NDArray[np.int64]:
    """Weight sum of some tiles over rows of the output, ``(len(span), width)``."""
    width, along_y, along_x = plan.extent.width, plan.row_weights, plan.column_weights
    total = np.zeros((len(span), width), dtype=np.int64)
    for row, y in enumerate(plan.ys):
        first, after = max(span.start, y), min(span.stop, y + plan.tile_px)
        if first >= after or not tiles[row].any():
            continue
        across = np.zeros(max(width, plan.tile_px), dtype=np.int64)
        for tile in np.flatnonzero(tiles[row]):
            across[plan.xs[tile] : plan.xs[tile] + plan.tile_px] += along_x[tile]
        down = along_y[row, first - y : after - y]
        total[first - span.start : after - span.start] += down[:, None] * across[:width]
    return total


def _axes(plan: SlidePlan, first: SlidePlan) -> tuple[tuple[Sequence[int], Sequence[int]], ...]:
    return (plan.ys, first.ys), (plan.xs, first.xs)


def _disagreements(plan: SlidePlan, first: SlidePlan, image: Multiscale) -> NDArray[np.int64]:
    """Count pixels that jump at borders of the first tiles, by the tile whose middle is nearest.

    Returns
    -------
    NDArray[np.int64]
        Shape ``(rows, columns)`` of the plan's tiles.
    """
    extent = plan.extent
    rows = _owned(plan.ys, plan.tile_px, extent.height)
    columns = _owned(plan.xs, plan.tile_px, extent.width)
    down, across = _borders(first.ys, extent.height), _borders(first.xs, extent.width)
    counts = np.zeros(plan.keep.shape, dtype=np.int64)
    portion = max(1, _BLOCK // (extent.width * (image.channels or 1)))
    last: NDArray[np.uint8] | None = None
    for strip in extent.strips(_BAND_PX):
        band = image.read(strip, cached=False)
        for top in range(0, strip.height, portion):
            part = band[top : top + portion]
            span = slice(strip.y + top, strip.y + top + len(part))
            jumps = _jumps(part, last, down[span], across)
            sums = np.add.reduceat(jumps, columns, axis=1, dtype=np.int64)
            owner = np.searchsorted(rows, np.arange(span.start, span.stop), side="right") - 1
            np.add.at(counts, owner, sums)
            last = part[-1:]
    return counts


def _jumps(
    rows: NDArray[np.uint8],
    above: NDArray[np.uint8] | None,
    down: NDArray[np.bool_],
    across: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Whether pixels at a border differ from the one before, ``(h, width)``."""
    found = np.zeros(rows.shape[:2], dtype=bool)
    at = np.flatnonzero(across)
    found[:, at] |= _differ(rows[:, at], rows[:, at - 1])
    joined = rows if above is None else np.concatenate([above, rows])
    offset = len(joined) - len(rows)
    for row in np.flatnonzero(down):
        if row + offset > 0:
            found[row] |= _differ(rows[row], joined[row + offset - 1])
    return found


def _differ(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.bool_]:
    difference = np.abs(one.astype(np.int16) - other.astype(np.int16))
    differ: NDArray[np.bool_] = (difference > _JUMP).any(axis=-1)
    return differ


def _owned(starts: tuple[int, ...], tile_px: int, length: int) -> NDArray[np.int64]:
    """First pixel that belongs to each tile more than to any other."""
    weights = axis_weights(starts, tile_px, length=length, blend="crop")
    return np.asarray(starts, dtype=np.int64) + weights.argmax(axis=1)


def _borders(starts: tuple[int, ...], length: int) -> NDArray[np.bool_]:
    """Whether a tile of the first pass begins at each pixel of an axis, other than the first."""
    found = np.zeros(length, dtype=bool)
    found[[start for start in starts if 0 < start < length]] = True
    return found
