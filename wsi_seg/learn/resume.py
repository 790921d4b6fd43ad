"""Owns the state that a run is resumed from: written atomically, with its place in the epoch."""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning
import torch

from wsi_seg.atomic import atomic_path, partial_path
from wsi_seg.errors import CheckpointError

LAST = "last.ckpt"

_KEY = "position"


@dataclass(frozen=True, slots=True)
class Position:
    """Position in a run: epochs and batches of the next one, counted from 0, that are done."""

    epoch: int = 0
    batches: int = 0

    def put(self, checkpoint: dict[str, Any]) -> None:
        """Add the position to a state."""
        checkpoint[_KEY] = [self.epoch, self.batches]


def save_state(trainer: lightning.Trainer, out: Path) -> None:
    """Write the state of a run atomically; every rank has to call this.

    lightning's own write is a move from the folder for temporary files, which is a copy where
    that is another file system.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    if not trainer.is_global_zero:  # takes part, and writes nothing
        trainer.save_checkpoint(partial_path(out / LAST))
        return
    with atomic_path(out / LAST) as partial:
        trainer.save_checkpoint(partial)


def position_of(out: Path) -> Position | None:
    """Position that a run in this folder was saved at; None if it was not.

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
            f"cannot take the run up, because {last} is damaged "
            f"({' '.join(str(error).split())[:100]}); delete it to start afresh"
        ) from error
    return Position(int(epoch), int(batches))
