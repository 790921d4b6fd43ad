"""Owns ``wsi-seg mine``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def mine(
    store: Annotated[Path, typer.Argument(help="Collection made by `wsi-seg tile`.")],
    prediction: Annotated[
        Path, typer.Argument(help="Predictions of slides that the model did not learn from.")
    ],
    label: Annotated[str, typer.Option(help="Label with the truth.")] = "annotations",
    ring_um: Annotated[
        float, typer.Option(min=0, help="Ring around truth that is left out, in um.")
    ] = 50.0,
    cap: Annotated[
        float,
        typer.Option(min=0, max=1, help="Largest share of a slide that becomes hard negatives."),
    ] = 0.02,
    json_mode: JsonFlag = False,
) -> None:
    """Write where the model was wrong as the layer `hard_negatives`, for the next training.

    Give the recipe a share of it, for example sampling.mix.hard_negatives=0.3. The same
    predictions give the same layer.

    For example:

      wsi-seg infer store.zarr --checkpoint run/best.safetensors
      wsi-seg mine store.zarr pred.zarr
      wsi-seg train recipe.yaml --set sampling.mix.hard_negatives=0.3 --out run2
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.evaluate.mining import mine as mine_slides
        from wsi_seg.store import open_collection

        report = mine_slides(
            open_collection(store),
            open_collection(prediction),
            label=label,
            ring_um=ring_um,
            cap=cap,
            progress=terminal.progress,
        )
        terminal.say("\n".join(report.lines()))
        terminal.next_command(
            "wsi-seg",
            "train",
            "recipe.yaml",
            "--set",
            "sampling.mix.hard_negatives=0.3",
            "--out",
            "run2",
        )
        return asdict(report)

    run_verb(body, json_mode, writes=store)
