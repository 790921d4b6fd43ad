"""Owns a whole inference: slides in, prediction collection out, resumable, in bounded memory.

Each slide becomes a group with its probabilities (uint8, value / 255) as a pyramid and a label
map beside them. It is written under ``.partial`` and renamed when whole; finished strips are
recorded, so a rerun continues where the last one was stopped.
"""

import logging
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wsi_seg.errors import BatchError, WsiSegError
from wsi_seg.infer.output import SlideOutput, StripWriter
from wsi_seg.infer.plan import InferOptions, SlidePlan, plan_slide
from wsi_seg.infer.predictor import Predictor
from wsi_seg.infer.source import WindowReader
from wsi_seg.infer.stream import Job, Quarantined, run_jobs
from wsi_seg.models import ModelCard, load_checkpoint
from wsi_seg.models.checkpoint import digest_of
from wsi_seg.progress import Progress
from wsi_seg.store import Collection, SlideStore, create_collection, note_names, tidy

logger = logging.getLogger(__name__)

# Produces what is left of slides, so many tiles per forward pass; returns the tiles predicted.
Execute = Callable[[Sequence[SlideOutput], int], int]

# Rows of a strip, and of a shard: 1,024 rows of a 100,000 px slide are 100 MB per class.
STRIP_PX = 1024


@dataclass(frozen=True, slots=True)
class SlideResult:
    """What happened to one slide; ``seam_score`` is explained in `infer.seams`."""

    slide: str
    height: int
    width: int
    mpp: float | None
    windows: int
    skipped: int
    quarantined: tuple[Quarantined, ...]
    seam_score: float | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InferReport:
    """Figures of one run.

    ``tiles`` counts the tiles predicted in this run and ``seconds`` the time from the first read
    to the last write; ``pixels`` is their output area. ``peak_memory`` is that of the whole
    process in bytes, ``label_change`` the share of px whose label differs from float32's,
    measured on the first tiles.
    """

    slides: tuple[SlideResult, ...]
    tiles: int
    pixels: int
    seconds: float
    peak_memory: int
    device: str
    precision: str
    batch: int
    label_change: float

    @property
    def tiles_per_second(self) -> float:
        """Tiles predicted per second, reading and writing included."""
        return self.tiles / self.seconds if self.seconds > 0 else 0.0

    @property
    def mpx_per_second(self) -> float:
        """Output area predicted per second in Mpx."""
        return self.pixels / 1e6 / self.seconds if self.seconds > 0 else 0.0

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        skipped = sum(slide.skipped for slide in self.slides)
        rate = f"{self.tiles} tiles in {self.seconds:.1f} s ({self.tiles_per_second:.1f} tiles/s"
        rate += f", {self.mpx_per_second:.1f} Mpx/s)"
        memory = f"peak memory {self.peak_memory / 1e9:.2f} GB"
        lines = [
            f"{len(self.slides)} slides, {rate}, {skipped} tiles of background left out",
            f"{self.device}, {self.precision}, batch {self.batch}, {memory}",
        ]
        if self.precision != "fp32":
            lines.append(f"labels that differ from fp32 on first tiles: {self.label_change:.3%}")
        scores = [s.seam_score for s in self.slides if s.seam_score is not None]
        if scores:
            worst = max(scores)
            lines.append(
                f"seam score {statistics.mean(scores):.2f}, worst {worst:.2f} (1: no seams)"
            )
        for slide in self.slides:
            lines += [f"{slide.slide}: {note}" for note in slide.notes]
            if slide.quarantined:
                lines.append(f"{slide.slide}: {len(slide.quarantined)} tiles unreadable, left at 0")
        return lines

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        rates = {"tiles_per_second": self.tiles_per_second, "mpx_per_second": self.mpx_per_second}
        return asdict(self) | rates


def infer_collection(
    collection: Collection,
    checkpoint: Path,
    out: Path,
    options: InferOptions,
    *,
    overwrite: bool = False,
    cluster: str | None = None,
    progress: Progress,
) -> InferReport:
    """Predict every slide of a collection with one checkpoint.

    Parameters
    ----------
    collection
        The slides.
    checkpoint
        Model file; with a cluster, all its workers must see it, the slides and ``out``.
    out
        Prediction collection to make, continue or add to.
    options
        What the user chose.
    overwrite
        Discard predictions that exist.
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
    model = load_checkpoint(checkpoint)
    stores = [collection[name] for name in collection.names()]
    digest = digest_of(checkpoint)
    if cluster is None:
        return infer_with(
            model, stores, out, options, digest=digest, overwrite=overwrite, progress=progress
        )
    from wsi_seg.infer.distribute import connected, run_distributed

    with connected(cluster) as client:

        def execute(outputs: Sequence[SlideOutput], batch: int) -> int:
            return run_distributed(
                outputs, checkpoint, options, batch, client=client, progress=progress
            )

        return infer_with(
            model,
            stores,
            out,
            options,
            digest=digest,
            overwrite=overwrite,
            execute=execute,
            progress=progress,
        )


def infer_with(
    model: tuple[nn.Module, ModelCard],
    stores: Sequence[SlideStore],
    out: Path,
    options: InferOptions,
    *,
    digest: str = "",
    overwrite: bool = False,
    execute: Execute | None = None,
    progress: Progress,
) -> InferReport:
    """Predict these slides with a network in memory; see `infer_collection`.

    ``execute`` produces what is left of the slides, with this many tiles per forward pass, and
    returns how many tiles it predicted; None does it here and now.
    """
    network, card = model
    predictor = Predictor(
        network, card, device=options.device, precision=options.precision, tta=options.tta
    )
    create_collection(out)
    failures: dict[str, str] = {}
    outputs: list[SlideOutput] = []
    for store in stores:
        try:
            plan = plan_slide(store, card, options, strip_px=STRIP_PX)
            settings = _settings(plan, card, options, digest, predictor.precision)
            output = SlideOutput(store, plan, out, settings, overwrite=overwrite)
            if not output.complete:
                output.create(card)
        except WsiSegError as error:
            logger.info("%s failed: %s", store.name, error)
            failures[store.name] = str(error)
            continue
        outputs.append(output)
    if execute is None:
        execute = partial(_in_turn, predictor=predictor, progress=progress)
    report = _run(outputs, predictor, options, execute)
    tidy(out)
    note_names(out)
    if failures:
        raise BatchError(failures, done=len(outputs))
    return report


def _settings(
    plan: SlidePlan, card: ModelCard, options: InferOptions, digest: str, precision: str
) -> dict[str, object]:
    """Everything that decides the bytes of a prediction."""
    return {
        "checkpoint": digest,
        "overlap": options.overlap,
        "tile_px": plan.tile_px,
        "blend": options.blend,
        "tta": options.tta,
        "precision": precision,
        "skip_background": options.skip_background,
        "allow_mpp_mismatch": options.allow_mpp_mismatch,
        "fit": plan.view.fit,
        "neighbours": plan.view.neighbours,
        "level": plan.level,
        "height": plan.extent.height,
        "width": plan.extent.width,
        "classes": card.classes.to_json(),
    }


def _run(
    outputs: Sequence[SlideOutput],
    predictor: Predictor,
    options: InferOptions,
    execute: Execute,
) -> InferReport:
    pending = [output for output in outputs if not output.complete]
    windows = sum(output.task.windows for output in pending)
    tile_px = outputs[0].plan.tile_px if outputs else 1
    batch = min(options.batch or predictor.batch_for(tile_px), max(1, windows))
    started = time.perf_counter()
    change = _first_label_change(pending, predictor)
    predicted = execute(pending, batch)
    return InferReport(
        slides=tuple(_result(output) for output in outputs),
        tiles=predicted,
        pixels=sum(output.plan.extent.area for output in pending),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
        device=str(predictor.device),
        precision=predictor.precision,
        batch=batch,
        label_change=change,
    )


def _in_turn(
    outputs: Sequence[SlideOutput], batch: int, *, predictor: Predictor, progress: Progress
) -> int:
    """Produce what is left of the slides in this process: the oracle for every other way."""
    progress.start("infer", sum(output.task.windows for output in outputs), "tiles")
    with StripWriter() as writer:
        jobs = [_written_by(writer, output) for output in outputs]
        predicted = run_jobs(jobs, predictor, batch=batch, progress=progress)
    progress.finish()
    return predicted


def _written_by(writer: StripWriter, output: SlideOutput) -> Job:
    """Job whose strips are written and recorded by the writer; the last one ends the slide."""
    task = output.task
    if not task.strips:
        writer.submit(output.finish)

    def write(index: int, rows: NDArray[np.uint8]) -> None:
        task.write(index, rows)
        output.record([index], job.quarantined)
        if not output.task.strips:
            output.finish()

    job = task.job(lambda index, rows: writer.submit(lambda: write(index, rows)))
    return job


def _result(output: SlideOutput) -> SlideResult:
    plan = output.plan
    return SlideResult(
        slide=plan.slide,
        height=(plan.native or plan.extent).height,
        width=(plan.native or plan.extent).width,
        mpp=plan.mpp,
        windows=int(plan.keep.sum()),
        skipped=int(plan.keep.size - plan.keep.sum()),
        quarantined=output.quarantined,
        seam_score=output.seam_score if output.complete else None,
        notes=plan.notes,
    )


def _first_label_change(pending: Sequence[SlideOutput], predictor: Predictor) -> float:
    """Cost of the lower precision, measured on the first two tiles of the first slide."""
    if predictor.precision == "fp32":
        return 0.0
    for output in pending:
        places = np.argwhere(output.plan.keep)[:2].tolist()
        reader = WindowReader(output.plan.view.image(output.store), output.plan)
        try:
            tiles = [reader.read(row, column) for row, column in places]
        except WsiSegError:
            continue  # the stream will meet the same tile, leave it out and report it
        return predictor.label_change(np.stack(tiles))
    return 0.0


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
