"""Owns ``wsi-seg pseudo``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.options import SetOption


def pseudo(
    predictions: Annotated[Path, typer.Argument(help="Predictions of slides without truth.")],
    collection: Annotated[Path, typer.Argument(help="Collection of those slides.")],
    recipe: Annotated[
        Path, typer.Option(help="Recipe of the run that will be trained on them.")
    ] = Path("recipe.yaml"),
    settings: SetOption = None,
    fold: Annotated[
        int | None,
        typer.Option(
            help="Number of the fold that will be trained on them, from 0.", show_default="any fold"
        ),
    ] = None,
    high: Annotated[
        float | None,
        typer.Option(
            help="Lowest probability, 0 to 1, at which a pixel gets a class.",
            show_default="0.7; with --soft all pixels count",
        ),
    ] = None,
    low: Annotated[
        float | None,
        typer.Option(
            help="Highest probability, 0 to 1, at which a pixel is background.",
            show_default="0.3; with --soft all pixels count",
        ),
    ] = None,
    foreground_only: Annotated[
        bool, typer.Option("--foreground-only", help="Ignore tiles without any class.")
    ] = False,
    soft: Annotated[
        bool, typer.Option("--soft", help="Train on the probabilities instead of class ids.")
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Turn confident predictions into pseudo-labels for training.

    Pixels with a probability between --low and --high are ignored; with --soft alone, the network
    is trained on the probability of every pixel. Slides that the run holds out are rejected, and
    manual labels are never overwritten: set data.label of the recipe to another name. The recipe's
    data.pseudo_weight is the weight of such slides.

    For example:

      wsi-seg pseudo pred.zarr unlabelled.zarr --recipe recipe.yaml
      wsi-seg pseudo pred.zarr unlabelled.zarr --fold 0 --high 0.9 --low 0.1
      wsi-seg pseudo pred.zarr store.zarr --soft --recipe student.yaml
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.config import load_recipe
        from wsi_seg.learn.pseudo import PseudoOptions, write_pseudo_labels
        from wsi_seg.store import open_collection, open_predictions

        report = write_pseudo_labels(
            open_predictions(predictions),
            open_collection(collection),
            load_recipe(recipe, settings or ()),
            PseudoOptions(high=high, low=low, foreground_only=foreground_only, soft=soft),
            fold=fold,
            progress=terminal.progress,
        )
        terminal.show(report)
        report.require_whole()
        chosen = [word for setting in settings or () for word in ("--set", setting)]
        terminal.next_command("wsi-seg", "train", recipe, *chosen, "--out", "run-pseudo")
        return report.to_json()

    run_verb(body, json_mode, writes=collection)
