"""Owns the protocol of executors, and the executor that runs in this process."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from wsi_seg.files.object_folder import Objects
from wsi_seg.inference.ensemble import StripJob
from wsi_seg.inference.memory import MemoryPlan
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.output import SlideOutput
from wsi_seg.inference.run_plan import RunPlan
from wsi_seg.inference.runner import (
    Load,
    Runner,
    RunStats,
    Tuning,
    UnfinishedSettings,
    load_network,
)
from wsi_seg.inference.staged import staged
from wsi_seg.inference.strips import PendingStrip
from wsi_seg.inference.task import StripTask, StripWriter
from wsi_seg.inference.transfer import Budget
from wsi_seg.predict.device import Device
from wsi_seg.predict.ensemble import Model
from wsi_seg.progress import Progress, Silent


class Executor(Protocol):
    """Predicts strips, in this process or on the workers of a cluster."""

    @property
    def device(self) -> Device:
        """Device of the networks."""

    def tune(self, plan: RunPlan, unfinished: UnfinishedSettings) -> Tuning:
        """Choose the batch size and whether to compile; see `Runner.tune`."""

    def run(
        self, outputs: Sequence[SlideOutput], memory: MemoryPlan, *, compiled: bool
    ) -> RunStats:
        """Predict, write and record the remaining strips of slides, and finish each slide."""


class SerialExecutor:
    """Predicts strips in this process; the reference for all other executors.

    Parameters
    ----------
    model, options, load
        See `Runner`.
    progress
        Advanced by the number of tiles.
    """

    def __init__(
        self,
        model: Model,
        options: InferOptions,
        *,
        progress: Progress = Silent(),  # noqa: B008 (has no state)
        load: Load = load_network,
    ) -> None:
        self._stage = options.stage
        self.device = Device.here(options.device, options.precision)
        chosen = replace(options, precision=self.device.precision)
        self._runner, self._progress = Runner(model, chosen, load), progress

    def tune(self, plan: RunPlan, unfinished: UnfinishedSettings) -> Tuning:
        """Choose the batch size, and whether to compile; see `Runner.tune`."""
        return self._runner.tune(plan, unfinished, self._progress)

    def run(
        self, outputs: Sequence[SlideOutput], memory: MemoryPlan, *, compiled: bool
    ) -> RunStats:
        """Predict the remaining strips of slides; see `Executor.run`."""
        self._progress.start("infer", sum(output.task.tiles for output in outputs), "tiles")
        every = [output.task for output in outputs]
        with StripWriter(Budget(memory.sending)) as writer, staged(every, self._stage) as tasks:
            strip_jobs = [
                _strip_job(writer, output, task)
                for output, task in zip(outputs, tasks, strict=True)
            ]
            stats = self._runner.produce(
                strip_jobs,
                memory,
                compiled=compiled,
                progress=self._progress,
                written=writer.drain,
            )
        self._progress.finish()
        return stats


def _strip_job(writer: StripWriter, output: SlideOutput, task: StripTask) -> StripJob:
    """Return a job whose strips the writer writes and records; the last one finishes the slide."""
    saver = task.saver()
    left = set(task.strips)
    if not left:
        writer.submit(lambda _: output.finish)

    def write(strip: PendingStrip, objects: Objects) -> Callable[[], None]:
        found = saver.write(strip(), strip_job.quarantined, objects)

        def record() -> None:
            output.record([found])
            left.remove(found.index)
            if not left:
                output.finish()

        return record

    strip_job = StripJob(task, lambda strip: writer.submit(partial(write, strip)))
    return strip_job
