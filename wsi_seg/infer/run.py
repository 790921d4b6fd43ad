"""Owns a whole inference: slides in, prediction collection out, resumable, in bounded memory.

Each slide becomes a group with its probabilities (uint8, value / 255) as a pyramid and a label
map beside them. It is written under ``.partial`` and renamed when whole; finished strips are
recorded, so a rerun continues where the last one was stopped.
"""

import logging
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wsi_seg.errors import BatchError, ConfigError, WsiSegError
from wsi_seg.infer.adaptive import infer_twice
from wsi_seg.infer.members import (
    Member,
    MemberPredictor,
    MemberPredictors,
    Model,
    read_model,
)
from wsi_seg.infer.memory import MemoryPlan
from wsi_seg.infer.output import SlideOutput, StripWriter, begun_strips
from wsi_seg.infer.plan import InferOptions, SlidePlan
from wsi_seg.infer.predictor import Change, Place, Predictor
from wsi_seg.infer.report import InferReport, SlideResult
from wsi_seg.infer.schedule import Refine, RunPlan, plan_run
from wsi_seg.infer.source import WindowReader
from wsi_seg.infer.together import Work, predict_works
from wsi_seg.models import ModelCard
from wsi_seg.progress import Progress, Silent
from wsi_seg.store import (
    Collection,
    SlideStore,
    create_collection,
    note_names,
    store_digest,
    tidy,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Produced:
    """What it took to produce what was left of slides.

    Parameters
    ----------
    tiles
        Tiles predicted.
    busy
        Seconds that devices computed; 0 where nobody measured it.
    change
        What the speed of the networks costs.
    """

    tiles: int
    busy: float
    change: Change


# Produces what is left of slides, with parts of these sizes.
Produce = Callable[[Sequence[SlideOutput], MemoryPlan], Produced]


@dataclass(frozen=True, slots=True)
class Workers:
    """Who produces slides, if not this process.

    Parameters
    ----------
    place
        Where their networks compute.
    produce
        Has them produce slides.
    """

    place: Place
    produce: Produce


def infer_collection(
    collection: Collection,
    checkpoint: Path | str | Model,
    out: Path | str,
    options: InferOptions = InferOptions(),  # noqa: B008 (frozen)
    *,
    overwrite: bool = False,
    cluster: str | None = None,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> InferReport:
    """Predict every slide of a collection.

    Parameters
    ----------
    collection
        The slides.
    checkpoint
        Model file, an ensemble's YAML file, or several as `members.read_model` gives them; with a
        cluster, all its workers must see them, the slides and ``out``.
    out
        Prediction collection to make, continue or add to.
    options
        What the user chose.
    overwrite
        Make predictions anew that exist; each stays until the new one is whole. Where that was
        stopped, the same without it goes on.
    cluster
        See `distribute.connected`; None predicts in this process.
    progress
        Advanced by tiles.

    Raises
    ------
    BatchError
        If some slides could not be predicted, or were predicted before with other settings; all
        others are done.
    OutputError
        If ``out`` cannot be written.
    """
    model = checkpoint if isinstance(checkpoint, Model) else read_model([Path(checkpoint)])
    stores = [collection[name] for name in collection.names()]
    run = partial(infer_with, model, stores, Path(out), overwrite=overwrite, progress=progress)
    if cluster is None:
        return run(options)
    from wsi_seg.infer.distribute import connected, workers_of

    with connected(cluster) as client:
        return run(options, workers=workers_of(client, model, options, progress=progress))


def infer_with(
    model: Model | tuple[nn.Module, ModelCard],
    stores: Sequence[SlideStore],
    out: Path,
    options: InferOptions,
    *,
    overwrite: bool = False,
    workers: Workers | None = None,
    progress: Progress,
) -> InferReport:
    """Predict these slides with a model, or a network and its card; see `infer_collection`.

    ``workers`` produce what is left of the slides; None does it here and now.
    """
    model = model if isinstance(model, Model) else Model.of(*model)
    run = partial(_infer, model, overwrite=overwrite, workers=workers, progress=progress)
    if options.overlap != "adaptive":
        return run(stores, out, options)
    return infer_twice(run, model, stores, out, options, overwrite=overwrite)


def _infer(
    model: Model,
    stores: Sequence[SlideStore],
    out: Path,
    options: InferOptions,
    *,
    overwrite: bool,
    workers: Workers | None,
    progress: Progress,
    refine: Refine | None = None,
) -> InferReport:
    """Predict in one pass; ``refine`` changes plans by what an earlier one found."""
    place = None if workers is None else workers.place
    begun = {} if overwrite else begun_strips(stores, out)
    plan = plan_run(stores, model, options, refine=refine, place=place, begun=begun)
    create_collection(out)
    failures = dict(plan.failures)
    if plan.memory is None:
        if not failures:
            raise ConfigError("got no slides to predict; expected at least one")
        raise BatchError(failures, done=0)
    produce: Produce
    if workers is None:
        build = partial(build_predictor, options=options)
        predictors = MemberPredictors(model, build, resident=plan.memory.resident).each()
        produce = partial(_in_turn, model=model, predictors=predictors, progress=progress)
    else:
        produce = workers.produce
    outputs = _begin(stores, plan, model, out, options, overwrite=overwrite, failures=failures)
    report = _run(outputs, plan, plan.memory, produce)
    tidy(out)
    note_names(out)
    if failures:
        raise BatchError(failures, done=len(outputs))
    return report


def _begin(
    stores: Sequence[SlideStore],
    plan: RunPlan,
    model: Model,
    out: Path,
    options: InferOptions,
    *,
    overwrite: bool,
    failures: dict[str, str],
) -> list[SlideOutput]:
    """Begin or continue the output of every planned slide; note those that refuse."""
    named = {store.name: store for store in stores}
    learned_from = model.learned_from
    outputs: list[SlideOutput] = []
    for plans in plan.slides:
        store = named[plans[0].slide]
        try:
            settings = _settings(plans, model, options, plan.precision)
            settings["slide_digest"] = store_digest(store.path)
            output = SlideOutput(store, plans, out, settings, overwrite=overwrite)
            if not output.complete:
                learned = {"learned_from_slide": store.name in learned_from}
                output.create(model.card, model.training | learned)
        except WsiSegError as error:
            logger.info("%s failed: %s", store.name, error)
            failures[store.name] = str(error)
            continue
        outputs.append(output)
    return outputs


def build_predictor(member: Member, options: InferOptions) -> Predictor:
    """Load a member and make it ready as the options say."""
    return Predictor(
        member.load(),
        member.card,
        device=options.device,
        precision=options.precision,
        tta=options.tta,
        compiled=options.compiled,
    )


def _settings(
    plans: Sequence[SlidePlan], model: Model, options: InferOptions, precision: str
) -> dict[str, object]:
    """Everything that decides the bytes of a prediction."""
    return {
        "checkpoint": model.identity(),
        "overlap": options.overlap,
        "blend": options.blend,
        "tta": options.tta,
        "precision": precision,
        "compiled": options.compiled,
        "skip_background": options.skip_background,
        "allow_mpp_mismatch": options.allow_mpp_mismatch,
        "strip_px": plans[0].shard_px,
        "classes": model.card.classes.to_json(),
    } | _each(
        {
            "tile_px": plan.tile_px,
            "fit": plan.view.fit,
            "neighbours": plan.view.neighbours,
            "level": plan.level,
            "height": plan.extent.height,
            "width": plan.extent.width,
        }
        for plan in plans
    )


def _each(rows: Iterable[dict[str, object]]) -> dict[str, object]:
    """Values of one plan as they are, those of several as lists."""
    found = list(rows)
    return found[0] if len(found) == 1 else {key: [row[key] for row in found] for key in found[0]}


def _run(
    outputs: Sequence[SlideOutput], plan: RunPlan, memory: MemoryPlan, produce: Produce
) -> InferReport:
    pending = [output for output in outputs if not output.complete]
    pixels = sum(output.task.pixels for output in pending)
    started = time.perf_counter()
    produced = produce(pending, memory) if pending else Produced(0, 0.0, Change())
    seconds = time.perf_counter() - started
    return InferReport(
        slides=tuple(_result(output) for output in outputs),
        tiles=produced.tiles,
        pixels=pixels,
        seconds=seconds,
        device_use=produced.busy / seconds,
        peak_memory=peak_memory(),
        device=plan.device,
        precision=plan.precision,
        label_change=produced.change.labels,
        value_change=produced.change.values,
        memory=memory,
    )


def _in_turn(
    outputs: Sequence[SlideOutput],
    memory: MemoryPlan,
    *,
    model: Model,
    predictors: Sequence[MemberPredictor],
    progress: Progress,
) -> Produced:
    """Produce what is left of the slides in this process: the oracle for every other way."""
    change = first_change(outputs, predictors)
    before = sum(predictor.busy for predictor in predictors)
    progress.start("infer", sum(output.task.windows for output in outputs), "tiles")
    with StripWriter() as writer:
        works = [_written_by(writer, output) for output in outputs]
        predicted = predict_works(works, model, predictors, memory, progress=progress)
    progress.finish()
    busy = sum(predictor.busy for predictor in predictors) - before
    return Produced(predicted, busy, change)


def _written_by(writer: StripWriter, output: SlideOutput) -> Work:
    """Work whose strips are written and recorded by the writer; the last one ends the slide."""
    task = output.task
    if not task.strips:
        writer.submit(output.finish)

    def write(index: int, rows: NDArray[np.uint8]) -> None:
        task.write(index, rows)
        output.record([index], work.quarantined)
        if not output.task.strips:
            output.finish()

    work = Work(task, lambda index, rows: writer.submit(lambda: write(index, rows)))
    return work


def _result(output: SlideOutput) -> SlideResult:
    plan, figures = output.plan, output.figures

    def number(name: str) -> float | None:
        value = figures.get(name)
        return float(value) if isinstance(value, int | float) else None

    quarantined = figures.get("quarantined")
    return SlideResult(
        slide=plan.slide,
        height=(plan.native or plan.extent).height,
        width=(plan.native or plan.extent).width,
        mpp=plan.mpp,
        windows=int(number("windows") or 0),
        skipped=int(number("windows_skipped") or 0),
        spared=int(number("windows_spared") or 0),
        quarantined=tuple(map(tuple, quarantined if isinstance(quarantined, list) else ())),
        seam_score=number("seam_score"),
        seam_score_first=number("seam_score_first"),
        notes=output.notes,
    )


def first_change(pending: Sequence[SlideOutput], predictors: Sequence[MemberPredictor]) -> Change:
    """Cost of speed: of the member that it changes most, on its first two tiles."""
    for output in pending:
        if not all(plan.keep.any() for plan in output.plans):
            continue
        try:
            first = [_first_tiles(output.store, plan) for plan in output.plans]
        except WsiSegError:
            continue  # the stream will meet the same tile, leave it out and report it
        found = [one.change(tiles) for one, tiles in zip(predictors, first, strict=True)]
        return Change(max(c.labels for c in found), max(c.values for c in found))
    return Change()


def _first_tiles(store: SlideStore, plan: SlidePlan) -> NDArray[np.uint8]:
    reader = WindowReader(plan.view.image(store), plan)
    places = np.argwhere(plan.keep)[:2].tolist()
    return np.stack([reader.read(row, column) for row, column in places])


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
