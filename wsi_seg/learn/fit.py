"""Owns one fit: training one network on one split, resumable at any batch."""

import logging
import signal
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import Strategy

from wsi_seg import __version__
from wsi_seg.config import Recipe
from wsi_seg.errors import CheckpointError, ConfigError, TrainingError
from wsi_seg.learn.callback import TrainingCallback
from wsi_seg.learn.history import History
from wsi_seg.learn.pace import training_precision
from wsi_seg.learn.patches import Patches, prepare_loading
from wsi_seg.learn.position_bias import POSITION_BIAS, measure_position_bias
from wsi_seg.learn.resume import LAST, Position, position_of
from wsi_seg.learn.split import Split
from wsi_seg.learn.task import SegmentationTask
from wsi_seg.learn.validate import BEST, TOP, Validation, top_name
from wsi_seg.models.card import ModelCard
from wsi_seg.models.checkpoint import read_card
from wsi_seg.models.foundation import Encoder, find_encoder
from wsi_seg.models.network import (
    NetworkSpec,
    Normalisation,
    build_network,
    current_encoder,
    published_normalisation,
    published_size,
    size_multiple,
)
from wsi_seg.models.training_network import EncoderTraining, TrainingNetwork
from wsi_seg.models.trial import require_trainable
from wsi_seg.predict.device import pick_device
from wsi_seg.progress import Progress
from wsi_seg.reading.view import View

logger = logging.getLogger(__name__)

# Batch size below which batch statistics are worse than those of the pretrained weights.
_SMALL_BATCH = 8


@dataclass(frozen=True, slots=True)
class Fitted:
    """Result of a fit.

    Parameters
    ----------
    best
        Checkpoint of the best network.
    top
        Checkpoints of the ``train.top_k`` best networks, best first.
    history
        Metrics of each epoch.
    parameters
        Number of weights of the network.
    """

    best: Path
    top: tuple[Path, ...]
    history: History
    parameters: int


def fit(
    recipe: Recipe,
    split: Split,
    out: Path,
    *,
    start: Path | None,
    progress: Progress,
    callbacks: Sequence[lightning.Callback] = (),
) -> Fitted:
    """Train once, or resume the same fit from its last saved state.

    The state of torch's global generator is restored.

    Parameters
    ----------
    recipe
        Recipe; its phases and folds are ignored.
    split
        Training slides, and held-out slides for choosing the best network.
    out
        Existing folder.
    start
        Checkpoint with the initial weights; None uses those of the recipe.
    progress
        Advanced by patches, and by tiles in validation.
    callbacks
        Additional Lightning callbacks, called after the built-in one.

    Raises
    ------
    ConfigError
        If the recipe does not match its slides.
    CheckpointError
        If the initial weights cannot be loaded, or ``last.ckpt`` is damaged.
    TrainingError
        If the loss is not finite, or the device has too little memory.
    OutputError
        If ``out`` cannot be written.
    """
    if recipe.schedule.name == "plateau" and not split.validation:
        raise ConfigError(
            "schedule plateau needs held-out slides, because it follows the validation score; set "
            "data.validation above 0, or use another schedule"
        )
    position = position_of(out)
    devices = [pick_device("auto")] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), _quiet_lightning():
        torch.manual_seed(recipe.seed)
        prepare_loading(recipe)
        learner, card = build_learner(recipe, split, start=start)
        patches = Patches(recipe, split, position or Position())
        task = SegmentationTask(
            learner,
            card,
            recipe,
            steps_per_epoch=patches.steps_per_epoch,
            augmenter=patches.augmenter,
        )
        validation = Validation(recipe, card, split.validation, out)
        callback = TrainingCallback(validation, patches.losses, progress=progress)
        _run(task, patches, [callback, *callbacks], recipe, out)
        _check_position(patches, out)
    top = callback.history.top(recipe.train.top_k)
    best = out / BEST
    return Fitted(
        best=best,
        top=tuple(out / TOP / f"{top_name(row)}.safetensors" for row in top)
        if recipe.train.top_k > 1
        else (best,),
        history=callback.history,
        parameters=sum(p.numel() for p in learner.network.parameters()),
    )


@rank_zero_only
def _check_position(patches: Patches, out: Path) -> None:
    """Measure the position bias of the best network, and warn about it."""
    found = measure_position_bias(out / BEST, patches.first(), pick_device("auto"))
    found.write(out / POSITION_BIAS)
    for warning in found.warnings():
        logger.warning("%s", warning)


def build_learner(
    recipe: Recipe, split: Split, *, start: Path | None
) -> tuple[TrainingNetwork, ModelCard]:
    """Build the network with its initial weights, and the card for its checkpoints."""
    model, classes = recipe.model, recipe.class_table
    known = find_encoder(model.encoder)
    own = known.weights if known and model.weights == "imagenet" else None
    weights = start or own or model.start
    spec = _network_spec(recipe, known)
    network = build_network(spec, weights=weights)
    multiple = size_multiple(network)
    if recipe.patch_px % multiple:
        raise ConfigError(
            f"got patch_px {recipe.patch_px}; {model.architecture} with encoder {model.encoder} "
            f"needs a multiple of {multiple}"
        )
    keep_norm = _keeps_norm(recipe, weights)
    require_trainable(
        network,
        spec.in_channels,
        patch_px=recipe.patch_px,
        batch_size=recipe.train.batch_size,
        keep_norm=keep_norm,
        expected=f"set patch_px to {size}, or use an encoder that accepts any size"
        if (size := published_size(spec))
        else "use another patch_px or encoder",
    )
    learner = TrainingNetwork(
        network,
        classes=len(classes),
        outputs=classes.outputs,
        head=model.head,
        dropout=model.dropout,
        auxiliary=model.deep_supervision > 0,
        patch_px=recipe.patch_px,
        encoder_training=EncoderTraining(model.encoder_training, model.lora_rank, keep_norm),
    )
    return learner, _card(recipe, split, spec, _normalisation(spec, weights, known))


def _card(
    recipe: Recipe, split: Split, spec: NetworkSpec, normalisation: Normalisation
) -> ModelCard:
    return ModelCard(
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
            "train_slides": [slide.name for slide in split.train],
            "validation_slides": [store.name for store in split.validation],
            "icc": sorted({s.store.info.icc for s in split.train if s.store.info.icc is not None}),
            "versions": {
                "wsi_seg": __version__,
                "torch": torch.__version__,
                "lightning": lightning.__version__,
            },
        },
        decoder_attention=spec.decoder_attention,
        resize=recipe.resize,
        resize_px=recipe.resize_px,
        context_slices=recipe.data.context_slices,
        context_step_mm=recipe.data.context_step_mm,
        intensity=recipe.intensity,
        full_resolution_skip=spec.full_resolution_skip,
        encoder_args=dict(spec.encoder_args),
    )


def _network_spec(recipe: Recipe, known: Encoder | None) -> NetworkSpec:
    """Build the network specification; ``known`` is the encoder's preset, if any."""
    model = recipe.model
    arguments = (known.arguments if known else {}) | model.encoder_args
    return NetworkSpec(
        architecture=model.architecture,
        encoder=f"tu-{known.name}" if known else current_encoder(model.encoder),
        in_channels=View.of(recipe).channels,
        classes=recipe.class_table.outputs,
        decoder_attention=model.decoder_attention,
        full_resolution_skip=model.full_resolution_skip,
        encoder_args=tuple(sorted(arguments.items())),
    )


def _keeps_norm(recipe: Recipe, start: str | Path | None) -> bool:
    """Return whether the encoder's BatchNorm keeps the statistics of the initial weights."""
    if recipe.model.encoder_norm != "auto":
        return recipe.model.encoder_norm == "kept"
    return start is not None and recipe.train.batch_size < _SMALL_BATCH


def _normalisation(
    spec: NetworkSpec, start: str | Path | None, known: Encoder | None
) -> Normalisation:
    """Return the normalisation of the initial weights, from their card if they have one."""
    if isinstance(start, Path):
        try:
            card = read_card(start)
        except CheckpointError:
            logger.debug("%s has no card; using the published normalisation", start)
        else:
            return Normalisation(card.mean, card.std)
    if known and known.mean and known.std and spec.in_channels == len(known.mean):
        return Normalisation(known.mean, known.std)
    return published_normalisation(spec, start)


def _run(
    task: SegmentationTask,
    patches: Patches,
    callbacks: list[lightning.Callback],
    recipe: Recipe,
    out: Path,
) -> None:
    device = pick_device("auto")
    bf16 = training_precision(recipe.train.precision, device) == "bf16"
    trainer = lightning.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=recipe.train.devices,
        num_nodes=recipe.train.nodes,
        strategy=_strategy(recipe),
        precision="bf16-mixed" if bf16 else "32-true",
        max_epochs=recipe.train.epochs,
        accumulate_grad_batches=recipe.train.accumulate,
        callbacks=callbacks,
        logger=_board(recipe, out),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=out,
    )
    last = out / LAST
    try:
        trainer.fit(task, patches, ckpt_path=last if last.exists() else None, weights_only=True)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{device} has too little memory for {recipe.train.batch_size} patches of "
            f"{recipe.patch_px} pixels; saved states are intact; `wsi-seg train --dry-run` prints "
            "the largest train.batch_size that fits (train.accumulate makes up for a smaller one)"
        ) from error
    except SystemExit as stop:
        # lightning turns Ctrl-C into SystemExit.
        raise KeyboardInterrupt from stop


def _strategy(recipe: Recipe) -> str | Strategy:
    if recipe.train.devices * recipe.train.nodes == 1:
        return "auto"
    # The parameters of a frozen encoder get no gradients.
    frozen = recipe.model.freeze_encoder_epochs > 0
    return "ddp_find_unused_parameters_true" if frozen else "ddp"


def _board(recipe: Recipe, out: Path) -> TensorBoardLogger | bool:
    if not recipe.train.tensorboard:
        return False
    try:
        return TensorBoardLogger(out, name="", version="tensorboard")
    except ModuleNotFoundError as error:
        raise ConfigError(
            "train.tensorboard is true, but TensorBoard is not installed; run "
            "`pip install tensorboard`, or set it to false (metrics.csv has the same metrics)"
        ) from error


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence lightning's banners and warnings, and restore the handler of Ctrl-C."""
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
