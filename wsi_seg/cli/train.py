"""Owns ``wsi-seg train``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def train(
    recipe: Annotated[Path, typer.Argument(help="YAML file that says what to train.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("run"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change one setting, e.g. train.epochs=3; may be repeated."),
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Train a network by a recipe and keep the one that does best on the slides held out.

    Run it again after an interruption and it continues after the last whole epoch.

    For example:

      wsi-seg train recipe.yaml --out run
      wsi-seg train recipe.yaml --set train.epochs=3 --set optimizer.lr=3e-4
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.config import load_recipe
        from wsi_seg.learn.train import train as run

        report = run(load_recipe(recipe, settings or ()), out, progress=terminal.progress)
        terminal.say("\n".join(report.lines()))
        terminal.next_command("wsi-seg", "infer", "--checkpoint", report.checkpoint)
        return report.to_json()

    run_verb(body, json_mode)
