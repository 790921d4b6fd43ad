"""Owns the run: recipe in, best checkpoint out; a rerun takes it up after the last whole epoch."""

import logging
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from wsi_seg import __version__
from wsi_seg.config import Recipe, load_recipe, save_recipe
from wsi_seg.data.dataset import EpochItems, PatchDataset, PatchSource
from wsi_seg.errors import CheckpointError, ConfigError, OutputError, TrainingError
from wsi_seg.infer.predictor import pick_device, pick_precision
from wsi_seg.learn.slides import Split, map_slides, split_slides
from wsi_seg.learn.task import Batch, SegmentationTask
from wsi_seg.learn.watch import BEST, METRICS, Watch
from wsi_seg.models.checkpoint import ModelCard, read_card
from wsi_seg.models.network import (
    NetworkSpec,
    Normalisation,
    build_network,
    published_normalisation,
    size_multiple,
)
from wsi_seg.progress import Progress
from wsi_seg.sampling import PatchSampler

logger = logging.getLogger(__name__)

RECIPE = "recipe.yaml"
LAST = "last.ckpt"

# Settings of the train section that may differ when a run is taken up again: they decide how
# fast and how long, not what is learned.
_MAY_CHANGE = {"workers", "max_minutes"}


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a run came to.

    Parameters
    ----------
    checkpoint
        Best network, with its model card.
    metrics
        Figures of each epoch.
    epochs, best_epoch
        Epochs done, and the one the checkpoint is from, counted from 1.
    val_dice
        Of that epoch: per-slide Dice averaged over slides and classes; None without validation.
    train_slides, validation_slides
        Numbers of slides.
    parameters
        Weights of the network.
    patches_per_second, data_wait
        Mean over the last epoch; share of the time that the network waited for patches.
    seconds
        Duration of this call.
    """

    checkpoint: Path
    metrics: Path
    epochs: int
    best_epoch: int
    val_dice: float | None
    train_slides: int
    validation_slides: int
    parameters: int
    patches_per_second: float
    data_wait: float
    seconds: float

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        score = "no slide was held out, so this is the last epoch"
        if self.val_dice is not None:
            score = f"validation Dice {self.val_dice:.4f} in epoch {self.best_epoch}"
        speed = f"{self.patches_per_second:.1f} patches/s, {self.data_wait:.0%} waiting for data"
        return [
            f"{self.epochs} epochs on {self.train_slides} slides in {self.seconds:.0f} s ({speed})",
            f"{self.checkpoint}: {score}",
        ]

    def to_json(self) -> dict[str, object]:
        """Figures as plain JSON values."""
        paths = {"checkpoint": str(self.checkpoint), "metrics": str(self.metrics)}
        return asdict(self) | paths


def train(recipe: Recipe, out: Path, *, progress: Progress) -> TrainReport:
    """Train by a recipe, or take the same run up where it was stopped.

    Writes ``best.safetensors`` (and its card as ``best.json``), ``last.ckpt`` (state of the last
    whole epoch), ``recipe.yaml`` (with all defaults) and ``metrics.csv``. torch's global
    generator is left as it was.

    Parameters
    ----------
    recipe
        From `load_recipe`.
    out
        Folder of the run.
    progress
        Is told of patches, and of tiles in validation.

    Raises
    ------
    ConfigError
        If the recipe does not fit its slides, or the folder holds a run of another recipe.
    CheckpointError
        If the weights to start from cannot be had, or ``last.ckpt`` is damaged.
    TrainingError
        If the loss is not finite, or the device has too little memory.
    OutputError
        If ``out`` cannot be written.
    """
    started = time.perf_counter()
    split = split_slides(recipe)
    _begin(recipe, out)
    devices = [pick_device("auto")] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), _quiet_lightning():
        torch.manual_seed(recipe.seed)
        network, card = _start(recipe, split)
        loader = _loader(recipe, split)
        task = SegmentationTask(network, card, recipe, steps=len(loader) * recipe.train.epochs)
        watch = Watch(recipe, card, split.validation, out=out, progress=progress)
        _fit(task, loader, watch, recipe, out)
    rows = watch.history.rows
    best = watch.history.best or rows[-1]
    return TrainReport(
        checkpoint=out / BEST,
        metrics=out / METRICS,
        epochs=len(rows),
        best_epoch=int(best["epoch"]),
        val_dice=best.get("val_dice"),
        train_slides=len(split.train),
        validation_slides=len(split.validation),
        parameters=sum(p.numel() for p in network.parameters()),
        patches_per_second=rows[-1]["patches_per_second"],
        data_wait=rows[-1]["data_wait"],
        seconds=time.perf_counter() - started,
    )


def _begin(recipe: Recipe, out: Path) -> None:
    """Make the folder, or make sure that it holds this very run."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make folder {out}: {error.strerror or error}") from error
    if (out / LAST).exists() and (out / RECIPE).exists():
        changed = _differences(load_recipe(out / RECIPE), recipe)
        if changed:
            raise ConfigError(
                f"{out} holds a run of another recipe; these differ: {', '.join(changed)}; choose "
                "another --out, or delete the folder"
            )
        logger.info("taking up the run in %s", out)
    save_recipe(recipe, out / RECIPE)


def _differences(old: Recipe, new: Recipe) -> list[str]:
    drop = {"train": _MAY_CHANGE}
    before, after = old.model_dump(exclude=drop), new.model_dump(exclude=drop)
    return [key for key in before if before[key] != after[key]]


def _start(recipe: Recipe, split: Split) -> tuple[nn.Module, ModelCard]:
    """Network before the first step, and the card it will be saved with."""
    model = recipe.model
    spec = NetworkSpec(model.architecture, model.encoder, 3, len(recipe.classes))
    network = build_network(spec, weights=model.start)
    multiple = size_multiple(network)
    if recipe.patch_px % multiple:
        raise ConfigError(
            f"got patch_px {recipe.patch_px}; {model.architecture} with encoder {model.encoder} "
            f"needs a multiple of {multiple}"
        )
    normalisation = _normalisation(spec, model.start)
    card = ModelCard(
        architecture=spec.architecture,
        encoder=spec.encoder,
        in_channels=spec.in_channels,
        classes=recipe.class_table,
        mpp=recipe.mpp,
        tile_px=recipe.patch_px,
        mean=normalisation.mean,
        std=normalisation.std,
        training={
            "name": recipe.name,
            "recipe": recipe.model_dump(mode="json", exclude={"data": {"stores"}}),
            "train_slides": [store.name for store in split.train],
            "validation_slides": [store.name for store in split.validation],
            "versions": {
                "wsi_seg": __version__,
                "torch": torch.__version__,
                "lightning": lightning.__version__,
            },
        },
    )
    return network, card


def _normalisation(spec: NetworkSpec, start: str | Path | None) -> Normalisation:
    """Normalisation of the weights to start from: a checkpoint of ours states its own."""
    if isinstance(start, Path):
        try:
            card = read_card(start)
        except CheckpointError:
            logger.debug("%s has no card, so it holds published weights", start)
        else:
            return Normalisation(card.mean, card.std)
    return published_normalisation(spec, start)


def _loader(recipe: Recipe, split: Split) -> DataLoader[Batch]:
    sources = [
        PatchSource.of(store, recipe.data.label, classes=recipe.class_table, mpp=recipe.mpp)
        for store in split.train
    ]
    sampler = PatchSampler(
        map_slides(split.train, recipe),
        recipe.sampling.mix,
        patches_per_epoch=recipe.sampling.patches_per_epoch,
        batch=recipe.train.batch_size,
        seed=recipe.seed,
    )
    dataset = PatchDataset(
        sources, sampler, augment=recipe.augment, patch_px=recipe.patch_px, seed=recipe.seed
    )
    workers = recipe.train.workers
    return DataLoader(
        dataset,
        batch_size=recipe.train.batch_size,
        sampler=EpochItems(len(sampler)),
        num_workers=workers,
        persistent_workers=workers > 0,
        # A forked child would inherit locks of the threads that read slides.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def _fit(
    task: SegmentationTask, loader: DataLoader[Batch], watch: Watch, recipe: Recipe, out: Path
) -> None:
    device = pick_device("auto")
    bf16 = pick_precision(recipe.train.precision, device) == "bf16"
    keep_last = ModelCheckpoint(
        dirpath=out, filename=Path(LAST).stem, save_top_k=1, enable_version_counter=False
    )
    trainer = lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if bf16 else "32-true",
        max_epochs=recipe.train.epochs,
        callbacks=[watch, keep_last],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=out,
    )
    last = out / LAST
    if last.exists():
        _require_whole(last)
    try:
        trainer.fit(task, loader, ckpt_path=last if last.exists() else None, weights_only=True)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{device} has too little memory for {recipe.train.batch_size} patches of "
            f"{recipe.patch_px} px; lower train.batch_size or patch_px"
        ) from error
    except SystemExit as stop:
        # lightning's answer to Ctrl-C; what to do about that is for the caller to say.
        raise KeyboardInterrupt from stop


def _require_whole(last: Path) -> None:
    """Raise CheckpointError unless a run can be taken up from this file."""
    try:
        torch.load(last, map_location="meta", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
        raise CheckpointError(
            f"cannot take the run up, because {last} is damaged "
            f"({' '.join(str(error).split())[:100]}); delete it to start afresh"
        ) from error


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep lightning's banners and advice to itself, and Ctrl-C working after it."""
    owner = logging.getLogger("lightning.pytorch")
    before = owner.level
    interrupt = signal.getsignal(signal.SIGINT)
    owner.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            yield
    finally:
        owner.setLevel(before)
        if signal.getsignal(signal.SIGINT) is not interrupt:
            signal.signal(signal.SIGINT, interrupt)
