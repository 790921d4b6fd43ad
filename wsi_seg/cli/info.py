"""Owns ``wsi-seg info``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def info(
    slides: Annotated[list[Path], typer.Argument(help="Slide files, or folders of them.")],
    mpp: Annotated[
        float | None, typer.Option(help="Micrometres per px; replaces what the files say.")
    ] = None,
    scene: Annotated[
        str | None,
        typer.Option(help="Number or name of the image to take from a file with several."),
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Show format, levels and mpp of slides, and what `tile` would do with each level.

    For example:

      wsi-seg info slide.svs
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.ingest.describe import describe_slides

        report = describe_slides(slides, mpp=mpp, scene=scene)
        terminal.say(str(report))
        report.require_complete()
        terminal.next_command("wsi-seg", "tile", *slides, "--out", "store.zarr")
        return asdict(report)

    run_verb(body, json_mode)
