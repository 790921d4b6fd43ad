"""Owns resumable inference from end to end: reads slides, and writes a prediction collection.

Each slide is predicted in bounded memory to a group with a pyramid of probabilities (uint8, value /
255) and a label map. The group is written under ``.wsi_seg/partial`` and renamed when complete;
finished strips are recorded, so a rerun continues where the last one stopped.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn

from wsi_seg.errors import BatchError, ConfigError
from wsi_seg.files.object_path import object_path, place
from wsi_seg.inference.adaptive import infer_twice
from wsi_seg.inference.executor import Executor, SerialExecutor
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.plan import finest
from wsi_seg.inference.record import (
    RunRecord,
    agreed,
    begun_in_other_runs,
    concluded,
    read_record,
    run_name,
)
from wsi_seg.inference.report import InferReport, SlideResult
from wsi_seg.inference.run_plan import Refine, RunPlan, options_for, plan_inference
from wsi_seg.inference.runner import (
    Tuning,
    with_batches,
)
from wsi_seg.inference.settings import measured, settings_of
from wsi_seg.inference.share import Rounds, divide
from wsi_seg.inference.unfinished import overwriting, unfinished_settings
from wsi_seg.models import ModelCard
from wsi_seg.models.card_file import read_card_file
from wsi_seg.predict.ensemble import Model, read_model
from wsi_seg.predict.predictor import PrecisionDrift
from wsi_seg.progress import Progress, Silent
from wsi_seg.store import (
    Collection,
    SlideStore,
    create_collection,
    remove_if_empty,
    store_digest,
    update_names,
)
from wsi_seg.store.lock import locked, sharing
from wsi_seg.store.presence import Presence
from wsi_seg.store.slide_store import open_image

_VERB = "wsi-seg infer"


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

    Several processes, on one machine or many, can predict into the same ``out``: they divide the
    work, and the result is the same as that of one process.

    Parameters
    ----------
    collection
        The slides.
    model
        Path of a wsi_seg checkpoint, or of an ``.onnx`` or ``.pt2`` file of another program;
        address on the Hugging Face Hub (``hf://OWNER/NAME@REVISION``); path of an ensemble's YAML
        file; result of `predict.ensemble.read_model`; or custom module that maps normalised
        ``(B, C, H, W)`` float32 to ``(B, outputs, H, W)``, see `ClassTable.outputs`. With a
        cluster, all workers must be able to read the model and the slides, and to write ``out``.
    out
        Prediction collection to create, continue or add to.
    options
        Options of inference.
    card
        Classes, mpp, tile size and normalisation of a custom module or of another program's file,
        or path of a YAML or JSON file that contains them.
    overwrite
        Whether to replace existing predictions; each is kept until the new one is complete. To
        continue after an interruption, repeat the command without it.
    cluster
        See `distribute.connected`; None predicts in this process.
    progress
        Advanced by the number of tiles.

    Returns
    -------
    InferReport
        `InferReport.require_whole` raises if some slides could not be predicted, or were
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
    stores = list(iter(collection))
    if cluster is None:
        return infer_with(model, stores, Path(out), options, overwrite=overwrite, progress=progress)
    if options.stage is not None:
        raise ConfigError("got --stage with --cluster; expected one of them")
    from wsi_seg.inference.distribute import DaskExecutor, connected

    with (
        connected(cluster) as client,
        DaskExecutor(client, model, options, progress=progress) as executor,
    ):
        return infer_with(
            model,
            [_for_workers(store) for store in stores],
            _absolute(Path(out)),
            executor.options,
            overwrite=overwrite,
            executor=executor,
            progress=progress,
        )


def _absolute(path: Path) -> Path:
    """Return a path that does not depend on the working directory."""
    return path.absolute() if object_path(path) is None else path


def _for_workers(store: SlideStore) -> SlideStore:
    """Make the path of a slide absolute: workers may have another working directory."""
    path = _absolute(store.path)
    return store if path == store.path else SlideStore(path, store.name, open_image(path))


def _model(model: Path | str | Model | nn.Module, card: ModelCard | Path | str | None) -> Model:
    """Read or wrap the model; see `infer` for the accepted types."""
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
    """Predict slides with a model, or with a network and its card; see `infer`.

    ``executor`` predicts the unfinished strips; None predicts them in this process.
    """
    model, out = model if isinstance(model, Model) else Model.of(*model), place(out)
    options = options_for(model, options)
    adaptive, shard = options.overlap == "adaptive", options.shard
    if shard is not None and (overwrite or adaptive):
        raise ConfigError(
            f"got --shard {shard} with {'--overwrite' if overwrite else '--overlap adaptive'}; "
            "expected one without the other; "
            + ("choose another --out" if overwrite else "choose an overlap from 0 to 0.9")
        )
    executor = executor or SerialExecutor(model, options, progress=progress)
    run = partial(_infer, model, overwrite=overwrite, executor=executor, progress=progress)
    # The unfinished work of other processes must not be removed while they run.
    alone = locked(out, _VERB, make=True) if overwrite or adaptive else nullcontext()
    with alone, overwriting(stores, out) if overwrite else nullcontext():
        if adaptive:
            return infer_twice(run, model, stores, out, options, overwrite=overwrite)
        return run(stores, out, options)


def _infer(
    model: Model,
    stores: Sequence[SlideStore],
    out: Path,
    options: InferOptions,
    *,
    overwrite: bool,
    executor: Executor,
    progress: Progress,
    refine: Refine | None = None,
) -> InferReport:
    """Predict in one run; ``refine`` adapts the plans to the result of a first pass."""
    shard = options.shard
    share, name = None if shard is None else str(shard), run_name(model, options)
    with sharing(out, _VERB, shard=share, options=name) as presence:
        started = time.perf_counter()
        plan, tuning, record = _planned(
            model, stores, out, options, overwrite, executor, refine, presence
        )
        division = divide(plan.slides, shard)
        begin = _beginner(stores, plan, model, out, options, tuning, overwrite, presence)
        if shard is not None:  # other shards have begun slides that are not opened here
            for slide in begun_in_other_runs(out, name, record.slides.keys()):
                begin(slide, division.parts[slide])  # raises if its settings differ
        rounds = Rounds(
            out,
            lambda name: begin(name, division.parts[name]),
            {plans[0].slide: len(finest(plans).strips) for plans in plan.slides},
            division.share,
            whole=shard is None,
            progress=progress,
        )
        seconds = time.perf_counter() - started
        report = _run(rounds, plan, executor, replace(tuning, seconds=seconds), options, model)
        remove_if_empty(out)
        update_names(out)
        failures = {**plan.failures, **rounds.failures}
        concluded(out, presence, replace(record, slides={}, failures=rounds.failures))
        if failures and not rounds.outputs:
            raise BatchError(failures, done=0)
        return replace(report, failures=failures)


def _planned(
    model: Model,
    stores: Sequence[SlideStore],
    out: Path,
    options: InferOptions,
    overwrite: bool,
    executor: Executor,
    refine: Refine | None,
    presence: Presence,
) -> tuple[RunPlan, Tuning, RunRecord]:
    """Plan a run, with the batch sizes and compilation that its first process has chosen."""
    name = run_name(model, options)
    known = None if overwrite else read_record(out, name)
    while True:
        unfinished = {} if overwrite else unfinished_settings(stores, out)
        if known is not None:
            unfinished = {store.name: known.chosen for store in stores} | unfinished
        plan = plan_inference(
            stores,
            model,
            options,
            device=executor.device,
            refine=refine,
            unfinished=unfinished,
            out=out,
        )
        create_collection(out)
        if plan.memory is None:
            if not plan.failures:
                raise ConfigError("got no slides to predict; expected at least one")
            raise BatchError(plan.failures, done=0)
        tuning = executor.tune(plan, unfinished)
        record = RunRecord.of(name, plan, tuning)
        if overwrite:
            return plan, tuning, record
        found = agreed(out, presence, record)
        if known is not None or found.chosen == record.chosen:
            return plan, tuning, record
        known = found


def _beginner(
    stores: Sequence[SlideStore],
    plan: RunPlan,
    model: Model,
    out: Path,
    options: InferOptions,
    tuning: Tuning,
    overwrite: bool,
    presence: Presence,
) -> Callable[[str, Sequence[int]], SlideOutput]:
    """Return a function that starts or continues the output of a slide, or raises."""
    named = {store.name: store for store in stores}
    planned = {plans[0].slide: plans for plans in plan.slides}

    def begin(name: str, parts: Sequence[int]) -> SlideOutput:
        store, plans = named[name], planned[name]
        settings = settings_of(plans, model, options, plan.device.precision, tuning)
        settings["slide_digest"] = store_digest(store.path)
        settings |= measured(store, plans)
        output = SlideOutput(
            store,
            plans,
            out,
            settings,
            presence,
            save=options.saved(len(model.card.classes)),
            overwrite=overwrite,
            parts=parts,
        )
        output.begin(model.card, model.training | {"learned_from_slide": name in learned_from})
        return output

    learned_from = model.learned_from
    return begin


def _run(
    rounds: Rounds,
    plan: RunPlan,
    executor: Executor,
    tuning: Tuning,
    options: InferOptions,
    model: Model,
) -> InferReport:
    """Predict the unfinished strips, round by round."""
    assert plan.memory is not None
    memory = with_batches(plan.memory, tuning)
    started, pixels, each = time.perf_counter(), 0, []
    for outputs in rounds:
        pixels += sum(output.task.pixels for output in outputs)
        each.append(executor.run(outputs, memory, compiled=tuning.compiled))
    drift = PrecisionDrift.largest([PrecisionDrift(), *(stats.drift for stats in each)])
    done = [output for output in rounds.outputs.values() if output.complete]
    return InferReport(
        slides=tuple(_result(output) for output in done),
        elsewhere=len(rounds.left),
        tiles=sum(stats.tiles for stats in each),
        pixels=pixels,
        seconds=time.perf_counter() - started,
        start_seconds=tuning.seconds,
        compile_seconds=tuning.compile_seconds,
        shares=dict(each[0].shares) if each else {},
        peak_memory=peak_memory(),
        device=plan.device.name,
        precision=plan.device.precision,
        label_change=drift.labels,
        value_change=drift.values,
        saved=options.saved(len(model.card.classes)),
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
    """Return the peak resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
