"""Owns ``wsi-seg ensemble``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.choices import Mode
from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.numbers import numbers
from wsi_seg.cli.options import LabelOption, TruthOption


def ensemble(
    members: Annotated[
        list[Path], typer.Argument(help="Predictions of the members, one collection per member.")
    ],
    truth: TruthOption = Path("store.zarr"),
    label: LabelOption = "annotations",
    mode: Annotated[
        Mode,
        typer.Option(
            help="How to combine members: mean or weighted mean of probabilities, geometric (mean "
            "of logits), or majority vote."
        ),
    ] = "mean",
    weights: Annotated[
        str,
        typer.Option(
            help="Comma-separated weights of the members; only ratios matter.",
            show_default="all equal",
        ),
    ] = "",
    variance: Annotated[
        Path | None,
        typer.Option(
            help="Prediction of the whole ensemble, to which to add the variance between members "
            "as the label `variance`.",
            show_default="not written",
        ),
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Measure the contribution of each member to an ensemble.

    Prints the Dice of each member alone, of the ensemble without it, and its gain.

    For example:

      wsi-seg infer --checkpoint run/fold_0/best.safetensors --out pred_0.zarr
      wsi-seg ensemble pred_0.zarr pred_1.zarr pred_2.zarr --truth store.zarr
      wsi-seg ensemble pred_*.zarr --mode weighted --weights 2,1,1
      wsi-seg ensemble pred_0.zarr pred_1.zarr --variance pred.zarr
    """
    shares = numbers(weights)

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluation.ablation import ablate_members
        from wsi_seg.store import open_collection, open_predictions

        report = ablate_members(
            [open_predictions(path) for path in members],
            open_collection(truth),
            label=label,
            mode=mode,
            weights=shares or None,
            variance=None if variance is None else open_predictions(variance),
            progress=terminal.progress,
        )
        terminal.table(("class", "member", "alone", "without", "gain", "95 %"), report.rows())
        terminal.say("\n".join(report.lines()))
        if variance is not None:
            terminal.say(f"added the label variance to each slide in {variance}")
        terminal.next_command("wsi-seg", "infer", truth, "--checkpoint", "run/ensemble.yaml")
        return report.to_json()

    run_verb(body, json_mode, writes=variance)
