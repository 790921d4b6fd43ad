"""Owns ``wsi-seg ensemble``."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb
from wsi_seg.cli.numbers import numbers


class ModeName(enum.StrEnum):
    """Ways to combine members."""

    MEAN = "mean"
    WEIGHTED = "weighted"
    GEOMETRIC = "geometric"
    VOTE = "vote"


def ensemble(
    members: Annotated[list[Path], typer.Argument(help="Prediction of each member.")],
    truth: Annotated[Path, typer.Option(help="Collection with the true labels.")] = Path(
        "store.zarr"
    ),
    label: Annotated[str, typer.Option(help="Name of the true label.")] = "annotations",
    mode: Annotated[ModeName, typer.Option(help="How members are combined.")] = ModeName.MEAN,
    weights: Annotated[
        str, typer.Option(help="Weight of each member, with commas; empty: all alike.")
    ] = "",
    variance: Annotated[
        Path | None,
        typer.Option(help="The ensemble's own prediction: keep the label variance beside it."),
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Tell what each member of an ensemble is worth: Dice with it, without it, and of it alone.

    For example:

      wsi-seg infer --checkpoint run/fold_0/best.safetensors --out pred_0.zarr
      wsi-seg ensemble pred_0.zarr pred_1.zarr pred_2.zarr --truth store.zarr
      wsi-seg ensemble pred_*.zarr --mode weighted --weights 2,1,1
      wsi-seg ensemble pred_0.zarr pred_1.zarr --variance pred.zarr
    """
    shares = numbers(weights)

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluate.ablation import ablate_members
        from wsi_seg.store import open_collection

        collections = [open_collection(path) for path in members]
        report = ablate_members(
            collections,
            open_collection(truth),
            label=label,
            mode=mode.value,
            weights=shares or None,
            progress=terminal.progress,
        )
        terminal.table(("class", "member", "alone", "without", "gain", "95 %"), report.rows())
        terminal.say("\n".join(report.lines()))
        if variance is not None:
            from wsi_seg.evaluate.maps import write_variance

            for store in open_collection(variance):
                write_variance(store, [collection[store.name] for collection in collections])
            terminal.say(f"label variance of each slide in {variance}")
        return report.to_json()

    run_verb(body, json_mode, writes=variance)
