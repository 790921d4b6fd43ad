"""Owns ``wsi-seg train``."""

import os
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb, words_given
from wsi_seg.cli.options import SetOption


def train(
    context: typer.Context,
    recipe: Annotated[
        Path, typer.Argument(help="YAML file of the training; see `wsi-seg recipe`.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("run"),
    settings: SetOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print parameters, memory and the largest batch size, and exit."
        ),
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Train a network by a recipe, and save the best one.

    The best network has the highest score on the held-out slides. If interrupted, run the command
    again to continue with the next batch.

    For example:

      wsi-seg train recipe.yaml --out run
      wsi-seg train recipe.yaml --dry-run
      wsi-seg train recipe.yaml --set train.epochs=3 --set data.folds=5
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.config import load_recipe

        loaded = load_recipe(recipe, settings or ())
        if dry_run:
            from wsi_seg.learn.dry_run import dry_run as measure

            found = measure(loaded)
            terminal.say("\n".join(line for one in found for line in one.lines()))
            terminal.next_command(*words_given(context, without="dry_run"))
            return {"phases": [one.to_json() for one in found]}

        from wsi_seg.learn.train import train as run

        report = run(loaded, out, progress=terminal.progress)
        terminal.say("\n".join(report.lines()))
        terminal.next_command(
            "wsi-seg", "infer", loaded.data.stores[0], "--checkpoint", report.model
        )
        return report.to_json()

    # Further processes of a distributed training write to the folder that the first has locked.
    ranks = (os.environ.get(rank) for rank in ("LOCAL_RANK", "RANK", "SLURM_PROCID"))
    is_further = any(rank not in (None, "", "0") for rank in ranks)
    run_verb(body, json_mode, writes=None if dry_run or is_further else out, makes=True)
