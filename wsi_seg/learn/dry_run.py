"""Owns the dry run: time and memory of a recipe, measured on batches of noise."""

import time
from dataclasses import asdict, dataclass

import psutil
import torch

from wsi_seg.config import Recipe
from wsi_seg.counts import counted
from wsi_seg.learn.fit import build_learner
from wsi_seg.learn.losses import SegmentationLoss
from wsi_seg.learn.losses.pixels import Pixels
from wsi_seg.learn.pace import training_precision
from wsi_seg.learn.sampler import patch_sampler
from wsi_seg.learn.split import split_slides
from wsi_seg.learn.task import class_options_of
from wsi_seg.models.training_network import TrainingNetwork
from wsi_seg.predict.device import pick_device
from wsi_seg.reading.view import View

# Batch sizes that are measured; BatchNorm needs more than one patch.
_SMALL, _LARGE = 2, 4

# Fraction of the free memory to plan with; loading patches needs some, too.
_USABLE = 0.85

# Copies of the weights in the state of each optimiser; 2 for all others.
_STATES = {"sgd": 1, "lion": 1, "ranger": 3}


@dataclass(frozen=True, slots=True)
class PhaseEstimate:
    """Estimated time and memory of one phase.

    Parameters
    ----------
    phase
        Name of the phase; empty if the recipe has no phases.
    train_slides, validation_slides
        Numbers of slides in the first fold.
    parameters
        Number of weights of the network.
    fixed_bytes
        Memory of weights, gradients, optimiser state and weight average.
    patch_bytes
        Memory of each additional patch in the batch.
    free_bytes
        Free memory of the device.
    batch_size
        Batch size of the recipe.
    largest_batch
        Largest batch size that fits into the free memory; 0 if none does.
    steps
        Number of optimiser steps, unless ``train.max_minutes`` stops the phase earlier.
    step_seconds
        Time of one step, without reading patches.
    max_minutes
        ``train.max_minutes`` of the recipe.
    """

    phase: str
    train_slides: int
    validation_slides: int
    parameters: int
    fixed_bytes: int
    patch_bytes: int
    free_bytes: int
    batch_size: int
    largest_batch: int
    steps: int
    step_seconds: float
    max_minutes: float | None

    @property
    def minutes(self) -> float:
        """Minutes for all steps, without validation and waiting for data."""
        minutes = self.steps * self.step_seconds / 60
        return minutes if self.max_minutes is None else min(minutes, self.max_minutes)

    @property
    def step_bytes(self) -> int:
        """Memory of a step with the recipe's batch size."""
        return self.fixed_bytes + self.batch_size * self.patch_bytes

    def lines(self) -> list[str]:
        """Summarise the estimate as lines of text."""
        name = f"phase {self.phase}: " if self.phase else ""
        patch, step = _gib(self.patch_bytes), _gib(self.step_bytes)
        pace = f"{counted(self.steps, 'step')} of {self.step_seconds:.2f} s"
        slides = counted(self.train_slides, "training slide")
        return [
            f"{name}{slides}, {self.validation_slides} held out",
            f"  {self.parameters:,} weights; a step takes {_gib(self.fixed_bytes)}",
            f"  with the recipe's {counted(self.batch_size, 'patch')}, {patch} each: {step}",
            f"  largest batch that fits into {_gib(self.free_bytes)}: {self.largest_batch}",
            f"  about {self.minutes:.1f} min: {pace}, without validation",
        ]

    def to_json(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return asdict(self) | {"step_bytes": self.step_bytes, "minutes": self.minutes}


def dry_run(recipe: Recipe) -> tuple[PhaseEstimate, ...]:
    """Check a recipe against its slides and measure each phase, without training or writing.

    On a GPU, the peak memory of real steps is measured, and the largest batch is tried. On a CPU,
    memory is that of the tensors saved by autograd, without the workspace of layers.

    Raises
    ------
    ConfigError
        If the recipe does not match its slides.
    CheckpointError
        If the initial weights cannot be loaded.
    """
    split = split_slides(recipe)[0]
    names = [phase.name for phase in recipe.phases] or [""]
    found = []
    for name, stage in zip(names, recipe.of_fold(0).stages, strict=True):
        step_patches = stage.train.batch_size * stage.train.devices * stage.train.nodes
        whole = step_patches * stage.train.accumulate
        patches = len(patch_sampler(split.train, stage, batch=whole))
        with torch.random.fork_rng(devices=[]):
            learner, _ = build_learner(stage, split, start=None)
        parameters = sum(p.numel() for p in learner.network.parameters())
        fixed, patch, free, largest = _measure(learner, stage)
        fitting = min(stage.train.batch_size, max(_SMALL, largest))
        seconds = _seconds(learner, stage, batch=fitting)
        found.append(
            PhaseEstimate(
                phase=name,
                train_slides=len(split.train),
                validation_slides=len(split.validation),
                parameters=parameters,
                fixed_bytes=fixed,
                patch_bytes=patch,
                free_bytes=free,
                batch_size=stage.train.batch_size,
                largest_batch=largest,
                steps=stage.train.epochs * patches // whole,
                step_seconds=seconds * stage.train.accumulate,
                max_minutes=stage.train.max_minutes,
            )
        )
    return tuple(found)


def _measure(learner: TrainingNetwork, recipe: Recipe) -> tuple[int, int, int, int]:
    """Measure fixed bytes, bytes per patch, free bytes and the largest batch."""
    device = pick_device("auto")
    step = _Step(learner.to(device).train(), recipe, device)
    weights = sum(p.numel() * p.element_size() for p in learner.parameters())
    copies = 2 + _STATES.get(recipe.optimizer.name, 2) + recipe.optimizer.lookahead
    averaged = recipe.train.ema is not None or recipe.train.swa_from is not None
    fixed = weights * (copies + averaged)
    small, large = step.peak(_SMALL), step.peak(_LARGE)
    patch = max(1, (large - small) // (_LARGE - _SMALL))
    free = _free_bytes(device)
    largest = max(0, int(free * _USABLE - fixed) // patch)
    while device.type == "cuda" and largest > 0 and not step.fits(largest):
        largest = largest * 9 // 10
    return fixed, patch, free, largest


def _seconds(learner: TrainingNetwork, recipe: Recipe, *, batch: int) -> float:
    """Measure the time of a forward and backward pass, scaled to the recipe's batch size."""
    device = pick_device("auto")
    step = _Step(learner, recipe, device)
    step.run(batch)  # warm-up
    started = time.perf_counter()
    step.run(batch)
    return (time.perf_counter() - started) * recipe.train.batch_size / batch


@dataclass(frozen=True, slots=True)
class _Step:
    """One forward and backward pass on noise."""

    learner: TrainingNetwork
    recipe: Recipe
    device: torch.device

    def run(self, batch: int) -> None:
        side, classes = self.recipe.patch_px, len(self.recipe.classes)
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(
            batch, View.of(self.recipe).channels, side, side, generator=generator
        ).to(self.device)
        label = torch.randint(0, classes + 1, (batch, side, side), generator=generator)
        bf16 = training_precision(self.recipe.train.precision, self.device) == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            outputs = self.learner(noise)
        px = Pixels.of(
            outputs.logits,
            label.byte().to(self.device),
            class_logits=outputs.class_logits,
            class_options=class_options_of(self.recipe),
        )
        loss = SegmentationLoss(self.recipe.loss)(px)
        loss = loss + sum(one.float().mean() for one in outputs.auxiliary)
        loss.backward()
        self.learner.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak(self, batch: int) -> int:
        """Measure the bytes that a step takes in addition to the fixed ones."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self.run(batch)
            return int(torch.cuda.max_memory_allocated(self.device) - before)
        kept: dict[int, int] = {
            p.untyped_storage().data_ptr(): 0 for p in self.learner.parameters()
        }

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept.setdefault(storage.data_ptr(), storage.nbytes())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.run(batch)
        return sum(kept.values())

    def fits(self, batch: int) -> bool:
        try:
            self.run(batch)
        except torch.OutOfMemoryError:
            self.learner.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            return False
        return True


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"
