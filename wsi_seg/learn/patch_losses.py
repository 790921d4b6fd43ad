"""Owns the losses of an epoch's patches: recording them, the worst patches, and replay.

Patches are identified by their index in the epoch, so only losses are stored.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_seg.data.dataset import EpochItems
from wsi_seg.files.atomic import write_atomic
from wsi_seg.sampling import Draws, GridSampler, PatchSampler
from wsi_seg.sampling.samplers import Layer

WORST = "worst.csv"

_WORST = 24


@dataclass(frozen=True, slots=True)
class WorstPatch:
    """A patch with a high loss: its slide, its centre in level-0 pixels, and its loss."""

    slide: str
    y: float
    x: float
    loss: float


class PatchLosses:
    """Losses of the patches of the current epoch, in training order.

    Parameters
    ----------
    items
        Order of the patches; its ``repeats`` are set for replay.
    sampler
        Sampler of the patches.
    slides
        Names of the sampler's slides.
    replay
        Fraction of an epoch that repeats the worst patches of the previous epoch.
    """

    def __init__(
        self,
        items: EpochItems,
        sampler: PatchSampler | GridSampler,
        slides: Sequence[str],
        *,
        replay: float,
    ) -> None:
        self._items, self._sampler, self._slides = items, sampler, tuple(slides)
        self._again = int(replay * len(sampler))
        self._losses: list[float] = []

    def state(self) -> dict[str, list[float] | list[int]]:
        """Return the state to save for resuming within an epoch."""
        return {"losses": self._losses, "repeats": list(self._items.repeats)}

    def load_state(self, state: dict[str, list[float] | list[int]]) -> None:
        """Restore a saved state."""
        self._losses = [float(loss) for loss in state["losses"]]
        self._items.repeats = tuple(int(item) for item in state["repeats"])

    def start(self) -> None:
        """Start an epoch."""
        self._losses = []

    def record(self, losses: torch.Tensor) -> None:
        """Record the losses of a step: ``(B,)``, or ``(ranks, B)`` with several ranks."""
        # Item i is processed by rank i modulo ranks.
        self._losses += (losses.T if losses.ndim == 2 else losses).flatten().tolist()

    def end(self, epoch: int) -> tuple[dict[str, float], list[WorstPatch]]:
        """Finish an epoch, and choose the patches to repeat in the next.

        Returns
        -------
        counts : dict
            Numbers of patches by layer, ``drawn_<layer>``, and of repeats, ``drawn_again``.
        worst : list of WorstPatch
            Patches with the highest loss, worst first.
        """
        # A run may stop in the middle of an epoch.
        draws, items = self._sampler.epoch(epoch), self._items.of(epoch)[: len(self._losses)]
        # Repeat a patch at most once; one with a wrong label would otherwise be repeated forever.
        fresh = np.flatnonzero(items >= epoch * len(self._sampler))
        losses = np.array(self._losses)[fresh]
        order = fresh[np.argsort(-losses, kind="stable")]
        counts = _counts(draws, len(items) - len(fresh))
        worst = [self._worst(draws, int(index)) for index in order[:_WORST]]
        self._items.repeats = tuple(np.sort(items[order[: self._again]]).tolist())
        return counts, worst

    def _worst(self, draws: Draws, index: int) -> WorstPatch:
        slide = self._slides[draws.slide[index]]
        return WorstPatch(slide, float(draws.y[index]), float(draws.x[index]), self._losses[index])


def _counts(draws: Draws, again: int) -> dict[str, float]:
    found: NDArray[np.int64] = np.bincount(draws.layer, minlength=len(Layer))
    counts = {f"drawn_{layer.name.lower()}": float(found[layer]) for layer in Layer if found[layer]}
    return counts | ({"drawn_again": float(again)} if again else {})


def write_worst(path: Path, worst: Sequence[WorstPatch]) -> None:
    """Write the worst patches as CSV, atomically.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["slide", "y", "x", "loss"])
    writer.writerows([w.slide, f"{w.y:.1f}", f"{w.x:.1f}", f"{w.loss:.6g}"] for w in worst)
    write_atomic(path, text.getvalue())
