"""Owns prediction in one process: loads networks, chooses the batch size, and predicts strips."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from wsi_seg.allocator import keep_freed_memory
from wsi_seg.inference.ensemble import StripJob, predict_strip_jobs
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run_plan import RunPlan, unfinished_batches
from wsi_seg.inference.waits import WaitTimes
from wsi_seg.predict.batch import best_batch
from wsi_seg.predict.compiling import missing_compiler, require_compiler, should_compile
from wsi_seg.predict.device import Device, DeviceTimer
from wsi_seg.predict.ensemble import Member, Model
from wsi_seg.predict.members import MemberPredictor, MemberPredictors, load_predictor
from wsi_seg.predict.predictor import PrecisionDrift, TilePredictor
from wsi_seg.progress import Progress

logger = logging.getLogger(__name__)

UnfinishedSettings = Mapping[str, Mapping[str, object]]

# Loads a member's network on the device; the last argument is whether to compile it.
Load = Callable[[Member, InferOptions, bool], TilePredictor]


def load_network(member: Member, options: InferOptions, compiled: bool) -> TilePredictor:
    """Load a member's network with the device, precision and TTA of the options."""
    return load_predictor(
        member,
        device=options.device,
        precision=options.precision,
        tta=options.tta,
        compiled=compiled,
    )


@dataclass(frozen=True, slots=True)
class Tuning:
    """Settings that are chosen at the start of a run.

    Parameters
    ----------
    batches
        Tiles per forward pass of each member.
    compiled
        Whether networks are compiled.
    seconds, compile_seconds
        Total time of loading, measuring and compiling; time of compiling.
    rates
        Tiles per second of the first member by batch size; None if not measured.
    """

    batches: tuple[int, ...]
    compiled: bool
    seconds: float = 0.0
    compile_seconds: float = 0.0
    rates: Mapping[int, float] | None = None


@dataclass(frozen=True, slots=True)
class RunStats:
    """Statistics of predicting the remaining strips of slides.

    Parameters
    ----------
    tiles
        Tiles predicted.
    drift
        Change of the result by reduced precision.
    shares
        Shares of the time, see `WaitTimes.shares`; empty if they were not measured.
    """

    tiles: int
    drift: PrecisionDrift
    shares: Mapping[str, float]


class Runner:
    """Runs the members of a model in this process; loads them when they are first needed.

    Parameters
    ----------
    model
        One network or an ensemble.
    options
        Options of the run, with its actual precision.
    load
        Loads the predictor of a member.
    """

    def __init__(self, model: Model, options: InferOptions, load: Load = load_network) -> None:
        keep_freed_memory()
        self._model, self._options, self._load = model, options, load
        self._loaded: tuple[bool, int, list[MemberPredictor]] | None = None

    def predictors(self, memory: MemoryPlan, *, compiled: bool) -> list[MemberPredictor]:
        """Return the predictors of the members, loading them on the first call."""
        known = self._loaded
        if known is None or known[:2] != (compiled, memory.resident):
            members = MemberPredictors(
                self._model,
                lambda member: self._load(member, self._options, compiled),
                resident=memory.resident,
            )
            known = self._loaded = (compiled, memory.resident, members.each())
        return known[2]

    def tune(self, plan: RunPlan, unfinished: UnfinishedSettings, progress: Progress) -> Tuning:
        """Load networks, and choose the batch size and whether to compile for the whole run.

        Unfinished slides keep their settings. On a CPU nothing is measured.
        """
        memory, options = plan.memory, self._options
        assert memory is not None
        started = time.perf_counter()
        progress.note("loading the model")
        compiled = (
            _unfinished_compiled(unfinished)
            if options.compiled == "auto"
            else options.compiled == "on"
        )
        if compiled:
            require_compiler(plan.device.name)
        predictors = self.predictors(memory, compiled=False if compiled is None else compiled)
        tiles = [
            max(one[member].tile_px for one in plan.slides) for member in range(len(predictors))
        ]
        batches, rates = memory.batches, None
        if _on_cuda(plan.device) and not compiled:
            progress.note("measuring the batch")
            fixed = options.batch > 0 or unfinished_batches(unfinished, len(predictors)) is not None
            found = [
                best_batch(one, side, batch, tiles=0 if fixed else plan.tiles // len(batches))
                for one, side, batch in zip(predictors, tiles, batches, strict=True)
            ]
            batches, rates = tuple(batch for batch, _ in found), found[0][1]
            if compiled is None:
                compiled = _pays_to_compile(plan.device, plan.tiles, rates[batches[0]])
        seconds = 0.0
        if compiled:
            progress.note("compiling the network: about half a minute the first time")
            seconds = sum(
                one.warm_up(batch, side)
                for one, batch, side in zip(
                    self.predictors(memory, compiled=True), batches, tiles, strict=True
                )
            )
        total = time.perf_counter() - started
        return Tuning(batches, bool(compiled), total, seconds, rates)

    def produce(
        self,
        strip_jobs: Sequence[StripJob],
        memory: MemoryPlan,
        *,
        compiled: bool,
        progress: Progress,
        written: Callable[[], None] | None = None,
    ) -> RunStats:
        """Predict the strips of all jobs, then call ``written`` to wait until they are on disk."""
        predictors = self.predictors(memory, compiled=compiled)
        if predictors[0].device.type == "cuda":
            torch.cuda.set_device(predictors[0].device)
        tiles, pixels = (
            sum(getattr(one.task, name) for one in strip_jobs) for name in ("tiles", "pixels")
        )
        waits = WaitTimes(DeviceTimer(predictors[0].device), px_per_tile=pixels / max(1, tiles))
        predicted = predict_strip_jobs(
            strip_jobs, self._model, predictors, memory, progress=progress, waits=waits
        )
        if written is not None:
            with waits.writing():
                written()
        drift = PrecisionDrift.largest(one.drift for one in predictors)
        return RunStats(predicted, drift, waits.shares())


def _unfinished_compiled(unfinished: UnfinishedSettings) -> bool | None:
    """Whether unfinished slides used compiled networks; None if there are no such slides."""
    known = [settings["compiled"] for settings in unfinished.values() if "compiled" in settings]
    return bool(known[0]) if known else None


def _pays_to_compile(device: Device, tiles: int, tiles_per_second: float) -> bool:
    """Whether compiling saves time and is possible; warn if it is worthwhile but impossible."""
    pays = should_compile(tiles, tiles_per_second)
    lacks = missing_compiler(device.name) if pays else ""
    if lacks:
        logger.warning(
            "networks are not compiled, which would make them about twice as fast, because this "
            "machine lacks %s",
            lacks,
        )
    return pays and not lacks


def _on_cuda(device: Device) -> bool:
    return torch.device(device.name).type == "cuda"


def with_batches(memory: MemoryPlan, tuning: Tuning) -> MemoryPlan:
    """Return the memory plan with the chosen batch sizes, which never exceed the planned ones."""
    return replace(memory, batches=tuning.batches)
