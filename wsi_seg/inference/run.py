"""Owns inference from end to end: slides in, a prediction collection out, resumable.

Each slide becomes a group with its probabilities (uint8, value / 255) as a pyramid and a label
map next to them, in bounded memory. It is written under ``.partial`` and renamed when complete;
finished strips are recorded, so a rerun continues where the last one was stopped.
"""

import resource
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path

from torch import nn

from wsi_seg.batch import Batch, run_each
from wsi_seg.errors import BatchError, ConfigError
from wsi_seg.inference.adaptive import infer_twice
from wsi_seg.inference.executor import Executor, SerialExecutor
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.output import SlideOutput, overwriting, unfinished_settings
from wsi_seg.inference.plan import SlidePlan
from wsi_seg.inference.report import InferReport, SlideResult
from wsi_seg.inference.run_plan import Refine, RunPlan, options_for, plan_inference
from wsi_seg.inference.runner import (
    RunStats,
    Tuning,
    with_batches,
)
from wsi_seg.models import ModelCard
from wsi_seg.models.card_file import read_card_file
from wsi_seg.predict.ensemble import Model, read_model
from wsi_seg.predict.predictor import PrecisionDrift
from wsi_seg.progress import Progress, Silent
from wsi_seg.reading.intensity import PreparedImage, prepared_image
from wsi_seg.store import (
    Collection,
    SlideStore,
    create_collection,
    remove_if_empty,
    store_digest,
    update_names,
)


def infer(
    collection: Collection,
    model: Path | str | Model | nn.Module,
    out: Path | str = "pred.zarr",
    options: InferOptions = InferOptions(),  # noqa: B008 (frozen)
    *,
    card: ModelCard | Path | str | None = None,
    overwrite: bool = False,
    cluster: str | None = None,
    progress: Progress = Silent(),  # noqa: B008 (has no state)
) -> InferReport:
    """Predict every slide of a collection.

    Parameters
    ----------
    collection
        The slides.
    model
        Model file (ours, or ``.onnx`` or ``.pt2`` of another program), its address on the hub
        (``hf://OWNER/NAME@REVISION``), an ensemble's YAML file, several as
        `predict.ensemble.read_model` gives them, or a module of one's own, which maps normalised
        ``(B, C, H, W)`` float32 to ``(B, outputs, H, W)``, see `ClassTable.outputs`. With a
        cluster, all its workers must see files, slides and ``out``.
    out
        Prediction collection to make, continue or add to.
    options
        What the user chose.
    card
        With a module of one's own, or a file of another program: its classes, mpp, tile and
        normalisation, or a YAML or JSON file that says them.
    overwrite
        Predict again what exists; each stays until the new one is complete. After an
        interruption, repeat the command without it to continue.
    cluster
        See `distribute.connected`; None predicts in this process.
    progress
        Advanced by tiles.

    Returns
    -------
    InferReport
        Its `InferReport.require_whole` raises if some slides could not be predicted, or were
        predicted before with other settings; all others are done.

    Raises
    ------
    BatchError
        If no slide could be predicted.
    OutputError
        If ``out`` cannot be written.

    Examples
    --------
    >>> slides = open_collection("store.zarr")  # doctest: +SKIP
    >>> infer(slides, "run/best.safetensors", "pred.zarr").require_whole()  # doctest: +SKIP
    """
    model = _model(model, card)
    options = options_for(model, options)
    stores = [collection[name] for name in collection.names()]
    run = partial(infer_with, model, stores, Path(out), overwrite=overwrite, progress=progress)
    if cluster is None:
        return run(options)
    from wsi_seg.inference.distribute import DaskExecutor, connected

    with connected(cluster) as client:
        executor = DaskExecutor(client, model, options, progress=progress)
        return run(options, executor=executor)


def _model(model: Path | str | Model | nn.Module, card: ModelCard | Path | str | None) -> Model:
    """Find out what predicts, from any of the forms it may be given in."""
    card = Path(card) if isinstance(card, str) else card
    if isinstance(model, nn.Module):
        if card is None:
            raise ConfigError("got a module without a card; expected card=ModelCard(...) with it")
        return Model.of(model, read_card_file(card) if isinstance(card, Path) else card)
    if not isinstance(model, Model):
        return read_model([model], card=card)
    if card is not None:
        raise ConfigError(
            "got a card for a model that has its own; expected a module, or a file without one"
        )
    return model


def infer_with(
    model: Model | tuple[nn.Module, ModelCard],
    stores: Sequence[SlideStore],
    out: Path,
    options: InferOptions,
    *,
    overwrite: bool = False,
    executor: Executor | None = None,
    progress: Progress,
) -> InferReport:
    """Predict these slides with a model, or a network and its card; see `infer`.

    ``executor`` produces what is left of the slides; None is this process.
    """
    model = model if isinstance(model, Model) else Model.of(*model)
    options = options_for(model, options)
    executor = executor or SerialExecutor(model, options, progress=progress)
    run = partial(_infer, model, overwrite=overwrite, executor=executor)
    with overwriting(stores, out) if overwrite else nullcontext():
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
    executor: Executor,
    refine: Refine | None = None,
) -> InferReport:
    """Predict in one run; ``refine`` changes plans by what an earlier one found."""
    unfinished = {} if overwrite else unfinished_settings(stores, out)
    plan = plan_inference(
        stores, model, options, device=executor.device, refine=refine, unfinished=unfinished
    )
    create_collection(out)
    if plan.memory is None:
        if not plan.failures:
            raise ConfigError("got no slides to predict; expected at least one")
        raise BatchError(plan.failures, done=0)
    started = time.perf_counter()
    tuning = executor.tune(plan, unfinished)
    batch = _begin(stores, plan, model, out, options, tuning, overwrite)
    outputs = list(batch.results.values())
    memory = with_batches(plan.memory, tuning)
    begin = time.perf_counter() - started
    report = _run(outputs, plan, memory, executor, replace(tuning, seconds=begin))
    remove_if_empty(out)
    update_names(out)
    failures = {**plan.failures, **batch.failures}
    if not outputs:
        raise BatchError(failures, done=0)
    return replace(report, failures=failures)


def _begin(
    stores: Sequence[SlideStore],
    plan: RunPlan,
    model: Model,
    out: Path,
    options: InferOptions,
    tuning: Tuning,
    overwrite: bool,
) -> Batch[SlideOutput]:
    """Begin or continue the output of every planned slide; note those that refuse."""
    named = {store.name: store for store in stores}
    planned = {plans[0].slide: plans for plans in plan.slides}
    learned_from = model.learned_from

    def work(name: str) -> SlideOutput:
        store, plans = named[name], planned[name]
        settings = _settings(plans, model, options, plan.device.precision, tuning)
        settings["slide_digest"] = store_digest(store.path)
        settings |= _measured(store, plans)
        save = options.saved(len(model.card.classes))
        mode = model.card.classes.mode
        output = SlideOutput(store, plans, out, settings, save=save, overwrite=overwrite, mode=mode)
        if not output.complete:
            learned = {"learned_from_slide": name in learned_from}
            output.create(model.card, model.training | learned)
        return output

    return run_each(planned, work, title="begin", progress=Silent())


def _settings(
    plans: Sequence[SlidePlan],
    model: Model,
    options: InferOptions,
    precision: str,
    tuning: Tuning,
) -> dict[str, object]:
    """Everything that decides the bytes of a prediction."""
    return {
        "checkpoint": model.identity(),
        "overlap": options.overlap,
        "blend": options.blend,
        "tta": options.tta,
        "precision": precision,
        "compiled": tuning.compiled,
        "batch": list(tuning.batches),
        "save": options.saved(len(model.card.classes)),
        "skip_background": options.skip_background,
        "allow_mpp_mismatch": options.allow_mpp_mismatch,
        "strip_px": plans[0].shard_px,
        "classes": model.card.classes.to_json(),
        "tiles": _tiles(plans),
    } | _each(
        {
            "tile_px": plan.tile_px,
            "resize": plan.view.resize,
            "context_slices": plan.view.context_slices,
            "context_step_mm": plan.view.context_step_mm,
            "level": plan.level,
            "height": plan.extent.height,
            "width": plan.extent.width,
        }
        for plan in plans
    )


def _measured(store: SlideStore, plans: Sequence[SlidePlan]) -> dict[str, object]:
    """Tell what each member's changes of grey values and colours have measured of a slide."""
    views = [plan.view for plan in plans if plan.view.intensity.is_on]
    found = [prepared_image(store, view.intensity) for view in views]
    measured = [image.measured for image in found if isinstance(image, PreparedImage)]
    return {"intensity": measured} if measured else {}


def _tiles(plans: Sequence[SlidePlan]) -> str | None:
    """Name the tiles that an earlier run decided on; None where the grid says all."""
    masks = [plan.keep.tobytes() for plan in plans if plan.first_pass is not None]
    return sha256(b"".join(masks)).hexdigest() if masks else None


def _each(rows: Iterable[dict[str, object]]) -> dict[str, object]:
    """Values of one plan as they are, those of several as lists."""
    found = list(rows)
    return found[0] if len(found) == 1 else {key: [row[key] for row in found] for key in found[0]}


def _run(
    outputs: Sequence[SlideOutput],
    plan: RunPlan,
    memory: MemoryPlan,
    executor: Executor,
    tuning: Tuning,
) -> InferReport:
    pending = [output for output in outputs if not output.complete]
    pixels = sum(output.task.pixels for output in pending)
    started = time.perf_counter()
    stats = RunStats(0, PrecisionDrift(), {})
    if pending:
        stats = executor.run(pending, memory, compiled=tuning.compiled)
    return InferReport(
        slides=tuple(_result(output) for output in outputs),
        tiles=stats.tiles,
        pixels=pixels,
        seconds=time.perf_counter() - started,
        start_seconds=tuning.seconds,
        compile_seconds=tuning.compile_seconds,
        shares=dict(stats.shares),
        peak_memory=peak_memory(),
        device=plan.device.name,
        precision=plan.device.precision,
        label_change=stats.drift.labels,
        value_change=stats.drift.values,
        saved=outputs[0].save if outputs else "both",
        memory=memory,
    )


def _result(output: SlideOutput) -> SlideResult:
    plan, info = output.plan, output.info
    return SlideResult(
        slide=plan.slide,
        height=(plan.native or plan.extent).height,
        width=(plan.native or plan.extent).width,
        mpp=plan.mpp,
        tiles=info.tiles or 0,
        skipped=info.tiles_skipped or 0,
        skipped_by_first_pass=info.tiles_skipped_by_first_pass or 0,
        quarantined=info.quarantined,
        seam_score=info.seam_score,
        seam_score_first=info.seam_score_first,
        notes=output.notes,
    )


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
