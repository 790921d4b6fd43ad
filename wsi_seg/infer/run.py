"""Owns a whole inference: slides in, prediction collection out, resumable, one slide at a time.

Each slide becomes a group with its probabilities (uint8, value / 255) as a pyramid and a label
map beside them. It is written under ``.partial`` and renamed when whole; finished strips are
recorded, so a rerun continues where the last one was stopped.
"""

import logging
import resource
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wsi_seg.errors import BatchError, WsiSegError
from wsi_seg.infer.plan import InferOptions, SlidePlan, plan_slide
from wsi_seg.infer.predictor import Predictor
from wsi_seg.infer.source import WindowReader
from wsi_seg.infer.stream import Job, run_jobs
from wsi_seg.models.checkpoint import ModelCard, digest_of, load_checkpoint
from wsi_seg.progress import Progress, Silent
from wsi_seg.store import (
    Collection,
    SlideStore,
    completed,
    create_collection,
    create_multiscale,
    discard,
    fill_pyramid,
    finish,
    write_strip,
)
from wsi_seg.store.journal import Journal

logger = logging.getLogger(__name__)

# Rows of a strip, and of a shard: 1,024 rows of a 100,000 px slide are 100 MB per class.
STRIP_PX = 1024

# Strips that may wait to be written while the model goes on.
_WRITES_WAITING = 1

LABEL = "prediction"


@dataclass(frozen=True, slots=True)
class SlideResult:
    """What happened to one slide."""

    slide: str
    height: int
    width: int
    mpp: float | None
    windows: int
    skipped: int
    quarantined: tuple[tuple[int, int, str], ...]
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

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        skipped = sum(slide.skipped for slide in self.slides)
        rate = f"{self.tiles} tiles in {self.seconds:.1f} s ({self.tiles_per_second:.1f} tiles/s)"
        memory = f"peak memory {self.peak_memory / 1e9:.2f} GB"
        lines = [
            f"{len(self.slides)} slides, {rate}, {skipped} tiles of background left out",
            f"{self.device}, {self.precision}, batch {self.batch}, {memory}",
        ]
        if self.precision != "fp32":
            lines.append(f"labels that differ from fp32 on first tiles: {self.label_change:.3%}")
        for slide in self.slides:
            lines += [f"{slide.slide}: {note}" for note in slide.notes]
            if slide.quarantined:
                lines.append(f"{slide.slide}: {len(slide.quarantined)} tiles unreadable, left at 0")
        return lines

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        return asdict(self) | {"tiles_per_second": self.tiles_per_second}


def infer_collection(
    collection: Collection,
    checkpoint: Path,
    out: Path,
    options: InferOptions,
    *,
    overwrite: bool = False,
    progress: Progress,
) -> InferReport:
    """Predict every slide of a collection with one checkpoint.

    Raises
    ------
    BatchError
        If some slides could not be predicted; all others are done.
    StoreError
        If ``out`` holds predictions or unfinished work made with other settings.
    """
    network, card = load_checkpoint(checkpoint)
    stores = [collection[name] for name in collection.names()]
    return infer_with(
        network,
        card,
        stores,
        out,
        options,
        digest=digest_of(checkpoint),
        overwrite=overwrite,
        progress=progress,
    )


def infer_with(
    network: nn.Module,
    card: ModelCard,
    stores: Sequence[SlideStore],
    out: Path,
    options: InferOptions,
    *,
    digest: str = "",
    overwrite: bool = False,
    progress: Progress,
) -> InferReport:
    """Predict these slides with a network in memory; see `infer_collection`."""
    predictor = Predictor(network, card, device=options.device, precision=options.precision)
    create_collection(out)
    results: dict[str, SlideResult] = {}
    failures: dict[str, str] = {}
    outputs: list[_SlideOutput] = []
    for store in stores:
        try:
            plan = plan_slide(store, card, options, strip_px=STRIP_PX)
            settings = _settings(plan, card, options, digest, predictor.precision)
            output = _SlideOutput(store, plan, card, out, settings, overwrite=overwrite)
        except WsiSegError as error:
            logger.info("%s failed: %s", store.name, error)
            failures[store.name] = str(error)
            continue
        outputs.append(output)
    report = _run(outputs, predictor, options, results, progress)
    if failures:
        raise BatchError(failures, done=len(results))
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
        "precision": precision,
        "skip_background": options.skip_background,
        "allow_mpp_mismatch": options.allow_mpp_mismatch,
        "level": plan.level,
        "height": plan.extent.height,
        "width": plan.extent.width,
        "classes": card.classes.to_json(),
    }


def _run(
    outputs: Sequence["_SlideOutput"],
    predictor: Predictor,
    options: InferOptions,
    results: dict[str, SlideResult],
    progress: Progress,
) -> InferReport:
    pending = [output for output in outputs if not output.complete]
    windows = sum(output.plan.windows_in(output.strips_left) for output in pending)
    tile_px = outputs[0].plan.tile_px if outputs else 1
    batch = min(options.batch or predictor.batch_for(tile_px), max(1, windows))
    started = time.perf_counter()
    change = _first_label_change(pending, predictor)
    progress.start("infer", windows, "tiles")
    with _Writer() as writer:
        jobs = [output.job(writer) for output in pending]
        for job, output in zip(jobs, pending, strict=True):
            output.quarantined = job.quarantined
        predicted = run_jobs(jobs, predictor, batch=batch, progress=progress)
    progress.finish()
    for output in outputs:
        results[output.store.name] = output.result()
    return InferReport(
        slides=tuple(results.values()),
        tiles=predicted,
        pixels=sum(output.plan.extent.area for output in pending),
        seconds=time.perf_counter() - started,
        peak_memory=peak_memory(),
        device=str(predictor.device),
        precision=predictor.precision,
        batch=batch,
        label_change=change,
    )


def _first_label_change(pending: Sequence["_SlideOutput"], predictor: Predictor) -> float:
    """Cost of the lower precision, measured on the first two tiles of the first slide."""
    for output in pending:
        rows, columns = np.nonzero(output.plan.keep)
        reader = WindowReader(output.store.image, output.plan)
        try:
            tiles = [
                reader.read(int(row), int(column))
                for row, column in list(zip(rows, columns, strict=True))[:2]
            ]
        except WsiSegError:
            continue  # the stream will meet the same tile, leave it out and report it
        return predictor.label_change(np.stack(tiles))
    return 0.0


class _SlideOutput:
    """The group one slide's prediction is written to: begun, continued, or already complete."""

    def __init__(
        self,
        store: SlideStore,
        plan: SlidePlan,
        card: ModelCard,
        out: Path,
        settings: Mapping[str, object],
        *,
        overwrite: bool,
    ) -> None:
        self.store, self.plan, self.card = store, plan, card
        self.quarantined: list[tuple[int, int, str]] = []
        self._final = out / store.name
        self._partial = out / ".partial" / store.name
        if overwrite:
            discard(self._final)
            discard(self._partial)
        self.complete = self._final.exists()
        kept = self._final if self.complete else self._partial
        self._journal = Journal(kept / "journal.jsonl", settings)
        self._attributes = {
            "kind": "prediction",
            "slide": store.name,
            "classes": card.classes.to_json(),
            "settings": dict(settings),
            "notes": list(plan.notes),
            "training": card.training,
        }
        if not self.complete:
            self._create()

    @property
    def strips_left(self) -> frozenset[int]:
        """Strips that are not on disk yet."""
        every = range(len(self.plan.strips))
        return frozenset(index for index in every if str(index) not in self._journal.done)

    def job(self, writer: "_Writer") -> Job:
        """Work that is left, writing through ``writer``; the last strip completes the group."""
        if not self.strips_left:
            writer.submit(self._finish)
        return Job(
            plan=self.plan,
            reader=WindowReader(self.store.image, self.plan),
            strips=self.strips_left,
            sink=lambda index, rows: writer.submit(lambda: self._write(index, rows)),
        )

    def result(self) -> SlideResult:
        """Figures of this slide."""
        keep = self.plan.keep
        return SlideResult(
            slide=self.store.name,
            height=self.plan.extent.height,
            width=self.plan.extent.width,
            mpp=self.plan.mpp,
            windows=int(keep.sum()),
            skipped=int(keep.size - keep.sum()),
            quarantined=tuple(self.quarantined),
            notes=self.plan.notes,
        )

    def _create(self) -> None:
        plan = self.plan
        extents = completed([plan.extent])
        base_mpp = self.store.pyramid.mpp
        create_multiscale(
            self._partial,
            extents=extents,
            channels=len(self.card.classes),
            mpp=base_mpp,
            downsample=plan.downsample,
            attributes=self._attributes,
            name=self.store.name,
            shard_px=STRIP_PX,
        )
        create_multiscale(
            self._partial / "labels" / LABEL,
            extents=extents,
            channels=None,
            mpp=base_mpp,
            downsample=plan.downsample,
            attributes={"kind": "label", "classes": self.card.classes.to_json()},
            name=LABEL,
            shard_px=STRIP_PX,
        )

    def _write(self, index: int, rows: NDArray[np.uint8]) -> None:
        y = self.plan.strips[index][0]
        write_strip(self._partial, 0, y, rows)
        write_strip(self._partial / "labels" / LABEL, 0, y, label_map(rows))
        self._journal.record(str(index))
        if not self.strips_left:
            self._finish()

    def _finish(self) -> None:
        fill_pyramid(self._partial, nearest=False, progress=Silent())
        fill_pyramid(self._partial / "labels" / LABEL, nearest=True, progress=Silent())
        finish(self._partial, self._final)


def label_map(probability: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class ids of uint8 probabilities: the likeliest class where it is above one half, else 0.

    Parameters
    ----------
    probability
        ``(H, W, C)`` uint8, value / 255; channel ``c`` belongs to class id ``c + 1``.

    Returns
    -------
    NDArray[np.uint8]
        ``(H, W)`` class ids. Of equal probabilities the first class wins.
    """
    if probability.shape[2] == 1:
        return (probability[:, :, 0] > 127).astype(np.uint8)
    likeliest = probability.argmax(axis=2)
    ids: NDArray[np.uint8] = np.where(probability.max(axis=2) > 127, likeliest + 1, 0).astype(
        np.uint8
    )
    return ids


class _Writer:
    """One thread that writes strips in order while the model goes on; its errors come back."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="wsi-write")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, write: Callable[[], None]) -> None:
        """Write soon; blocks while too many strips wait, so memory stays bounded."""
        self._waiting.append(self._pool.submit(write))
        while len(self._waiting) > _WRITES_WAITING:
            self._waiting.popleft().result()


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
