"""Owns predicting in one process: networks that are ready, their batch, and parts of a run."""

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

# Makes the predictor of a member: its network on the device, compiled or not.
Load = Callable[[Member, InferOptions, bool], TilePredictor]


def load_network(member: Member, options: InferOptions, compiled: bool) -> TilePredictor:
    """Load a member and make it ready as the options say."""
    return load_predictor(
        member,
        device=options.device,
        precision=options.precision,
        tta=options.tta,
        compiled=compiled,
    )


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was chosen at the start, for the whole run.

    Parameters
    ----------
    batches
        Tiles per forward pass of each member.
    compiled
        Whether networks are compiled.
    seconds, compile_seconds
        Time that loading, measuring and compiling took; and compiling alone.
    rates
        Tiles per second of the first member by batch, where that was measured.
    """

    batches: tuple[int, ...]
    compiled: bool
    seconds: float = 0.0
    compile_seconds: float = 0.0
    rates: Mapping[int, float] | None = None


@dataclass(frozen=True, slots=True)
class RunStats:
    """What it took to produce what was left of slides.

    Parameters
    ----------
    tiles
        Tiles predicted.
    drift
        How reduced precision changes the result.
    shares
        Shares of the time, see `Watch.shares`; empty where they were not measured.
    """

    tiles: int
    drift: PrecisionDrift
    shares: Mapping[str, float]


class Runner:
    """The members of a model in this process, loaded when they are first needed.

    Parameters
    ----------
    model
        What predicts.
    options
        What the user chose; precision must be that of the run.
    load
        Makes the predictor of a member.
    """

    def __init__(self, model: Model, options: InferOptions, load: Load = load_network) -> None:
        keep_freed_memory()
        self._model, self._options, self._load = model, options, load
        self._loaded: tuple[bool, int, list[MemberPredictor]] | None = None

    def predictors(self, memory: MemoryPlan, *, compiled: bool) -> list[MemberPredictor]:
        """Predictors of the members, loaded once."""
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
        """Load networks, and choose batch and compilation for the whole run.

        Unfinished work keeps its settings. On a CPU nothing is measured.
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
            progress.note("compiling the network: about a minute the first time")
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
        """Produce the strips of all jobs, into their sinks; ``written`` waits for these."""
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
    """Whether unfinished work was made by compiled networks; None if nothing is unfinished."""
    known = [settings["compiled"] for settings in unfinished.values() if "compiled" in settings]
    return bool(known[0]) if known else None


def _pays_to_compile(device: Device, tiles: int, tiles_per_second: float) -> bool:
    """Whether compiling saves time, and can be done; warn where it only would."""
    pays = should_compile(tiles, tiles_per_second)
    lacks = missing_compiler(device.name) if pays else ""
    if lacks:
        logger.warning(
            "networks run as they are: compiled they would be about twice as fast, but this "
            "machine lacks %s",
            lacks,
        )
    return pays and not lacks


def _on_cuda(device: Device) -> bool:
    return torch.device(device.name).type == "cuda"


def with_batches(memory: MemoryPlan, tuning: Tuning) -> MemoryPlan:
    """Memory plan with the batches that were chosen, which are not above those planned for."""
    return replace(memory, batches=tuning.batches)
