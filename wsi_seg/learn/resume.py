"""Owns saving the state of a training run atomically, with its position in the epoch."""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning
import torch

from wsi_seg.errors import CheckpointError
from wsi_seg.files.atomic import atomic_path
from wsi_seg.files.half_written import partial_path

LAST = "last.ckpt"

_KEY = "position"


@dataclass(frozen=True, slots=True)
class Position:
    """Position in a run: number of finished epochs, and of finished batches in the next one."""

    epoch: int = 0
    batches: int = 0

    def put(self, checkpoint: dict[str, Any]) -> None:
        """Add the position to a state."""
        checkpoint[_KEY] = [self.epoch, self.batches]


def save_state(trainer: lightning.Trainer, out: Path) -> None:
    """Write the state of a run atomically; all ranks must call this.

    lightning moves the file from the temporary folder, which is not atomic between file systems.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if not trainer.is_global_zero:  # collective, but writes nothing
        trainer.save_checkpoint(partial_path(out / LAST))
        return
    with atomic_path(out / LAST) as partial:
        trainer.save_checkpoint(partial)


def position_of(out: Path) -> Position | None:
    """Return the saved position of the run in this folder; None if there is no saved state.

    Raises
    ------
    CheckpointError
        If the state is damaged.
    """
    last = out / LAST
    if not last.exists():
        return None
    try:
        state = torch.load(last, map_location="meta", weights_only=True)
        epoch, batches = state[_KEY]
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, UnpicklingError) as error:
        raise CheckpointError(
            f"cannot resume the run, because {last} is damaged "
            f"({' '.join(str(error).split())[:100]}); delete it to start again"
        ) from error
    return Position(int(epoch), int(batches))
