"""Owns ``wsi-seg mine``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.options import LabelOption


def mine(
    predictions: Annotated[
        Path, typer.Argument(help="Predictions of slides that the model was not trained on.")
    ],
    slides: Annotated[Path, typer.Argument(help="Collection of those slides.")],
    label: LabelOption = "annotations",
    ring_um: Annotated[
        float, typer.Option(min=0, help="Width in um of a ring around the truth to exclude.")
    ] = 50.0,
    cap: Annotated[
        float,
        typer.Option(min=0, max=1, help="Largest fraction of a slide that becomes hard negative."),
    ] = 0.02,
    least: Annotated[
        float, typer.Option(min=0, max=1, help="Minimum probability of a false positive.")
    ] = 0.5,
    missed: Annotated[
        bool, typer.Option("--missed", help="Also mark structures that were missed.")
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Mine hard negatives: mark confident errors of the model.

    They are written as the label `hard_negatives`, for the next round of training. Set their
    fraction in the recipe, for example sampling.mix.hard_negatives=0.3. The result is
    deterministic.

    For example:

      wsi-seg infer store.zarr --checkpoint run/best.safetensors
      wsi-seg mine pred.zarr store.zarr
      wsi-seg train recipe.yaml --set sampling.mix.hard_negatives=0.3 --out run2
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluation.hard_negatives import HardRule
        from wsi_seg.evaluation.hard_negatives import mine as mine_slides
        from wsi_seg.store import open_collection, open_predictions

        report = mine_slides(
            open_predictions(predictions),
            open_collection(slides),
            label=label,
            ring_um=ring_um,
            cap=cap,
            rule=HardRule(least, missed),
            progress=terminal.progress,
        )
        terminal.show(report)
        report.require_whole()
        terminal.next_command(
            "wsi-seg",
            "train",
            "recipe.yaml",
            "--set",
            "sampling.mix.hard_negatives=0.3",
            "--out",
            "run2",
        )
        return report.to_json()

    run_verb(body, json_mode, writes=slides)
