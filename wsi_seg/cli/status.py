"""Owns ``wsi-seg status``."""

import time
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def status(
    collection: Annotated[
        Path,
        typer.Argument(help="Collection that commands work on: of slides, or of predictions."),
    ] = Path("pred.zarr"),
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Print the status whenever it changes, until all is done."),
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, help="Seconds between checks with --watch.")
    ] = 5.0,
    json_mode: JsonFlag = False,
) -> None:
    """Show which slides are done, running, failed or left.

    For infer, and for tile, annotate, evaluate and export with --shard, it shows which processes
    work on which slides and since when, why slides failed, and how long the rest will take. It
    only reads, so it can run on any machine and at any time.

    For example:

      wsi-seg status pred.zarr
      wsi-seg status store.zarr --watch
      wsi-seg status pred.zarr --json
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.inference.status import read_status

        found = read_status(collection)
        terminal.say("\n".join(found.lines()))
        while watch and not found.is_complete:
            time.sleep(every)
            before, found = found, read_status(collection)
            if found.slides != before.slides:
                terminal.say("\n".join(["", *found.lines()]))
        return found.to_json()

    run_verb(body, json_mode)
