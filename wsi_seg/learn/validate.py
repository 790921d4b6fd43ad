"""Owns validation on whole slides, and keeping the best networks.

Slides are predicted by the code of ``wsi-seg infer`` and scored by that of ``wsi-seg evaluate``, so
the best checkpoint is selected by the score that it has in use.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from wsi_seg.batch import require_none
from wsi_seg.config import Recipe
from wsi_seg.errors import TrainingError
from wsi_seg.evaluation.calibration import Reliability, slide_reliability
from wsi_seg.evaluation.compare import evaluate_slide
from wsi_seg.evaluation.scores import Measures, Scores
from wsi_seg.files.half_written import scratch_folder
from wsi_seg.inference.options import InferOptions
from wsi_seg.inference.run import infer_with
from wsi_seg.learn.history import History, Row
from wsi_seg.learn.monitor import figures
from wsi_seg.models.card import ModelCard
from wsi_seg.models.checkpoint import save_checkpoint
from wsi_seg.progress import Progress
from wsi_seg.store import SlideStore, open_predictions

BEST = "best.safetensors"
TOP = "top"


def infer_options(recipe: Recipe, device: str) -> InferOptions:
    """Return the inference options for held-out slides."""
    return InferOptions(
        overlap=recipe.train.validation_overlap,
        device=device,
        precision=recipe.train.precision,
        save="both",
    )


@dataclass(frozen=True, slots=True)
class Validation:
    """Held-out slides of a run, and its folder.

    Parameters
    ----------
    recipe, card
        Recipe of the run, and its card without scores.
    slides
        Held-out slides; may be empty.
    out
        Folder of the run.
    """

    recipe: Recipe
    card: ModelCard
    slides: tuple[SlideStore, ...]
    out: Path

    def score(self, network: nn.Module, device: str, progress: Progress) -> Row:
        """Score a network on the held-out slides.

        The result has the `figures` of all classes, and for each class the Dice of all pixels
        pooled, the mean over slides with its standard deviation (``_sd``), and the mean over tiles
        that contain it.

        Raises
        ------
        TrainingError
            If the monitored metric is undefined, because no held-out slide contains a class.
        """
        with scratch_folder(self.out / "validation") as folder:
            found = folder / "pred.zarr"
            report = infer_with(
                (network, self.card),
                self.slides,
                found,
                infer_options(self.recipe, device),
                progress=progress,
            )
            require_none(report.failures, done=len(report.slides))
            label = self.recipe.data.label
            scores = score_slides(found, self.slides, label, progress, tile_px=self.recipe.patch_px)
            values = _values(found, self.slides, label)
            row = figures(scores, values, exclusive=self.card.classes.is_exclusive)
        monitor = self.recipe.train.monitor
        if f"val_{monitor}" not in row:
            raise TrainingError(
                f"train.monitor is {monitor}, but no held-out slide contains any class; hold out "
                "one that does, or use another train.monitor"
            )
        for name in scores.class_names:
            mean, spread = scores.slide_dice(name)
            row[f"val_pooled_dice_{name}"] = scores.pooled(name).dice
            row[f"val_slide_dice_{name}"] = mean
            row[f"val_slide_dice_{name}_sd"] = spread
            tiles = [dice for score in scores.of(name) for dice in score.tile_dices or ()]
            if tiles:
                row[f"val_tile_dice_{name}"] = statistics.fmean(tiles)
        return row

    def keep(self, network: nn.Module, history: History) -> None:
        """Save the network of the last row if it is among the best, and delete any that are not."""
        row, top = history.rows[-1], history.top(self.recipe.train.top_k)
        scores = {name: value for name, value in row.items() if name.startswith("val_")}
        training = self.card.training | {"epoch": row["epoch"], "loss": row["loss"]}
        card = dataclasses.replace(self.card, scores=scores, training=training)
        if row is top[0]:
            save_checkpoint(self.out / BEST, network, card)
        if self.recipe.train.top_k == 1:
            return
        if any(row is one for one in top):
            save_checkpoint(self.out / TOP / f"{top_name(row)}.safetensors", network, card)
        kept = {top_name(one) for one in top}
        for path in (self.out / TOP).iterdir():
            if path.stem not in kept:
                path.unlink()


def top_name(row: Row) -> str:
    """Return the file name, without suffix, of the network of an epoch."""
    return f"epoch_{int(row['epoch']):04d}"


def _values(
    predictions: Path, slides: Sequence[SlideStore], label: str
) -> dict[str, dict[str, Reliability]]:
    found = open_predictions(predictions)
    return {
        store.name: slide_reliability(found[store.name], store, label=label) for store in slides
    }


def score_slides(
    predictions: Path,
    slides: Sequence[SlideStore],
    label: str,
    progress: Progress,
    *,
    tile_px: int | None = None,
) -> Scores:
    """Score predictions against the ground truth of the same slides."""
    found = open_predictions(predictions)
    measures = Measures(tile_px=tile_px)
    return Scores(
        tuple(
            score
            for store in slides
            for score in evaluate_slide(
                found[store.name], store, label=label, measures=measures, progress=progress
            )
        )
    )
