"""Owns ``wsi-seg evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def evaluate(
    prediction: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg infer`.")],
    truth: Annotated[Path, typer.Option(help="Collection with the true labels.")] = Path(
        "store.zarr"
    ),
    label: Annotated[str, typer.Option(help="Name of the true label.")] = "annotations",
    json_mode: JsonFlag = False,
) -> None:
    """Score predictions: Dice and IoU of each class, per slide and pooled.

    Example:
      wsi-seg evaluate pred.zarr --truth store.zarr
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluate.scores import evaluate as score
        from wsi_seg.store import open_collection

        scores = score(
            open_collection(prediction),
            open_collection(truth),
            label=label,
            progress=terminal.progress,
        )
        terminal.table(
            ("slide", "class", "Dice", "IoU"),
            [
                (s.slide, s.class_name, f"{s.counts.dice:.4f}", f"{s.counts.iou:.4f}")
                for s in scores.slides
            ],
        )
        terminal.say("\n".join(scores.lines()))
        return scores.to_json()

    run_verb(body, json_mode)
