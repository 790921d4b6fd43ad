"""Owns the plan of a run: plans of all slides and members, batch sizes and memory."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType

from wsi_seg.batch import SlidesReport, run_each
from wsi_seg.counts import counted
from wsi_seg.errors import ConfigError
from wsi_seg.files.object_path import object_path
from wsi_seg.inference.adaptive import require_adaptable, require_even_tile
from wsi_seg.inference.memory import LIMIT_SHARE, MemoryPlan, plan_memory
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.plan import PlannedSlide, SlidePlan, finest, plan_slide
from wsi_seg.predict.batch import batch_for
from wsi_seg.predict.device import Device
from wsi_seg.predict.ensemble import Model
from wsi_seg.progress import Silent

# Provisional strip height, before memory is planned.
_STRIP_PX = 1024

# Warn if --tile multiplies the number of tiles by this factor or more.
_MANY = 4

logger = logging.getLogger(__name__)

Refine = Callable[[PlannedSlide, SlidePlan], SlidePlan]

# Number of slides and notes to list in text.
_LISTED = 20


@dataclass(frozen=True, slots=True, eq=False)
class RunPlan(SlidesReport[tuple[SlidePlan, ...]]):
    """What a run will do, as plain, picklable data.

    Parameters
    ----------
    slides
        For each slide that can be predicted, the plans of all members of the model.
    memory
        Batch, strip and cache sizes, and their memory; None if no slide can be predicted.
    device
        Device and precision of the networks.
    first
        Tiles of the first pass of adaptive overlap; ``slides`` then contain the most tiles that
        both passes can predict. None for a fixed overlap.

    Examples
    --------
    >>> print(*plan_inference(list(slides), model, options).lines())  # doctest: +SKIP
    """

    memory: MemoryPlan | None
    device: Device
    first: int | None = None

    @property
    def tiles(self) -> int:
        """Number of tiles to predict, of all members."""
        return _tiles(self.slides)

    @property
    def skipped(self) -> int:
        """Number of tiles to skip, of all members."""
        return _skipped(self.slides)

    def lines(self) -> list[str]:
        """Format the plan as lines of text."""
        total = f"{counted(len(self.slides), 'slide')}, {counted(self.tiles, 'tile')}"
        total += f", {counted(self.skipped, 'background tile')} skipped"
        lines = [f"{total}; {self.device.name}, {self.device.precision}"]
        if self.first is not None:
            lines.append(
                f"adaptive overlap: {counted(self.first, 'tile')} first, all of them at most"
            )
        lines += [_slide_line(plans) for plans in self.slides[:_LISTED]]
        if len(self.slides) > _LISTED:
            lines.append(f"and {counted(len(self.slides) - _LISTED, 'more slide')}")
        notes = dict.fromkeys(note for plans in self.slides for one in plans for note in one.notes)
        lines += [f"note: {note}" for note in list(notes)[:_LISTED]]
        return lines + ([] if self.memory is None else self.memory.lines())

    def to_json(self) -> dict[str, object]:
        """Return the plan as JSON values."""
        return {
            "tiles": self.tiles,
            "tiles_first": self.first,
            "tiles_skipped": self.skipped,
            "device": self.device.name,
            "precision": self.device.precision,
            "slides": [_slide_row(plans) for plans in self.slides],
            "failures": self.failures,
            "memory": None if self.memory is None else self.memory.to_json(),
        }


def options_for(model: Model, options: InferOptions) -> InferOptions:
    """Return the options for a model; networks exported by other programs run unchanged.

    Raises
    ------
    ConfigError
        If options change how such a network runs.
    """
    if not any(member.is_foreign for member in model.members):
        return options
    if options.compiled == "on":
        raise ConfigError("got --compile on for a network that runs as it was exported; leave it")
    return replace(options, precision=model.precision(options.precision), compiled="off")


def plan_inference(
    stores: Sequence[PlannedSlide],
    model: Model,
    options: InferOptions,
    *,
    device: Device | None = None,
    refine: Refine | None = None,
    unfinished: Mapping[str, Mapping[str, object]] = MappingProxyType({}),
    out: Path | None = None,
) -> RunPlan:
    """Plan all slides with all members, and their memory, without predicting anything.

    Parameters
    ----------
    stores, model, options
        Slides, model and options of the run.
    device
        Device of the networks; None to choose one of this machine.
    refine
        Modifies a slide's plan given the result of an earlier pass.
    unfinished
        Settings of slides with unfinished output, see `output.unfinished_settings`; they keep
        their strips and batch, and memory is planned for these.
    out
        Prediction collection; in an object store, strips on their way there take memory.

    Returns
    -------
    RunPlan
        Its ``failures`` contain the slides that cannot be predicted.

    Raises
    ------
    ConfigError
        If an option is invalid, or ``max_ram`` is too small.

    Examples
    --------
    >>> plan = plan_inference(list(slides), model, InferOptions())  # doctest: +SKIP
    >>> plan.tiles, plan.memory.total  # doctest: +SKIP
    (54, 812000000)
    """
    options = options_for(model, options)
    adaptive = options.overlap == "adaptive"
    if adaptive:
        require_adaptable(model)
    device = device or Device.here(options.device, options.precision)
    slides, failures = _plan_slides(stores, model, options, refine)
    if refine is None:
        _warn_of_many(slides, model, options)
    memory = None
    if slides:
        memory = _plan_memory(slides, model, options, device, unfinished, out)
        strips = {slide[0].slide: memory.strip_px for slide in slides}
        strips |= {name: int(str(one["strip_px"])) for name, one in unfinished.items()}
        slides = [tuple(one.with_strips(strips[one.slide]) for one in slide) for slide in slides]
    first = None
    if adaptive and refine is None:
        once, _ = _plan_slides(stores, model, replace(options, overlap=0.0), None)
        first = _tiles(once)
    return RunPlan(tuple(slides), memory, device, first, failures=failures)


def _plan_slides(
    stores: Sequence[PlannedSlide], model: Model, options: InferOptions, refine: Refine | None
) -> tuple[list[tuple[SlidePlan, ...]], dict[str, str]]:
    """Return the plans of slides, and errors of slides that cannot be predicted."""
    named = {store.name: store for store in stores}
    cards = [member.card for member in model.members]

    def work(name: str) -> tuple[SlidePlan, ...]:
        store = named[name]
        plans = [plan_slide(store, card, options, strip_px=_STRIP_PX) for card in cards]
        if options.overlap == "adaptive":
            require_even_tile(plans[0])
        return tuple(refine(store, plan) if refine else plan for plan in plans)

    batch = run_each(named, work, title="plan", progress=Silent())
    return list(batch.results.values()), batch.failures


def _tiles(slides: Sequence[Sequence[SlidePlan]]) -> int:
    return sum(int(plan.keep.sum()) for slide in slides for plan in slide)


def _skipped(slides: Sequence[Sequence[SlidePlan]]) -> int:
    return sum(int((~plan.keep).sum()) for slide in slides for plan in slide)


def _warn_of_many(
    slides: Sequence[Sequence[SlidePlan]], model: Model, options: InferOptions
) -> None:
    """Warn if --tile takes many more tiles than the model's own tile size."""
    if options.tile_px is None or not slides:
        return
    own = max(member.card.tile_px for member in model.members)
    if (own / options.tile_px) ** 2 >= _MANY:
        logger.warning(
            "%s tiles of %d pixels; with the %d pixels of training there would be about %s, with "
            "more context around each object; leave out --tile to use them",
            f"{_tiles(slides):,}",
            options.tile_px,
            own,
            f"{max(1, round(_tiles(slides) * (options.tile_px / own) ** 2)):,}",
        )


def _plan_memory(
    slides: Sequence[tuple[SlidePlan, ...]],
    model: Model,
    options: InferOptions,
    device: Device,
    unfinished: Mapping[str, Mapping[str, object]],
    out: Path | None,
) -> MemoryPlan:
    tiles = max(1, _tiles(slides))
    batches = unfinished_batches(unfinished, len(model.members))
    if batches is not None and 0 < options.batch < max(batches):
        batches = None  # refused later, with a message that names the difference
    fixed = options.batch > 0 or batches is not None
    if batches is None:
        sides = [
            member.memory(plan.tile_px).padded(plan.tile_px)
            for member, plan in zip(model.members, slides[0], strict=True)
        ]
        batches = tuple(min(options.batch or batch_for(device, side), tiles) for side in sides)
    max_ram = options.max_ram
    if max_ram is None and device.ram is not None:
        max_ram = int(device.ram * LIMIT_SHARE)
    strips = [int(str(settings["strip_px"])) for settings in unfinished.values()]
    found = plan_memory(
        slides,
        model.members,
        batches,
        fixed_batch=fixed,
        device=device,
        max_ram=max_ram,
        strip_px=max([options.strip_px or 0, *strips]) or None,
        sends=out is not None and object_path(out) is not None,
    )
    return replace(found, readers=options.readers or found.readers)


def unfinished_batches(
    unfinished: Mapping[str, Mapping[str, object]], members: int
) -> tuple[int, ...] | None:
    """Return the batch sizes of unfinished slides; None if there are no such slides."""
    for settings in unfinished.values():
        batches = settings.get("batch")
        if isinstance(batches, list) and len(batches) == members:
            return tuple(map(int, batches))
    return None


def _slide_line(plans: Sequence[SlidePlan]) -> str:
    """Describe one slide to the user."""
    plan = finest(plans)
    extent = plan.native or plan.extent
    return (
        f"{plan.slide}: {extent.height} x {extent.width} px from level {plan.level}, "
        f"{counted(_tiles([plans]), 'tile')} of {plan.tile_px} px, {_skipped([plans])} skipped, "
        f"{counted(len(plan.strips), 'strip')}"
    )


def _slide_row(plans: Sequence[SlidePlan]) -> dict[str, object]:
    """Describe one slide: sizes of the finest member, tiles of all members."""
    plan = finest(plans)
    return {
        "slide": plan.slide,
        **asdict(plan.native or plan.extent),
        "level": plan.level,
        "downsample": plan.downsample,
        "mpp": plan.mpp,
        "tile_px": plan.tile_px,
        "tiles": _tiles([plans]),
        "skipped": _skipped([plans]),
        "strips": len(plan.strips),
        "notes": [note for one in plans for note in one.notes],
    }
