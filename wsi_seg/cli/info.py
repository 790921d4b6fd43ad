"""Owns ``wsi-seg info``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def info(
    slides: Annotated[list[Path], typer.Argument(help="Slide files, or folders of them.")],
    mpp: Annotated[
        float | None,
        typer.Option(
            help="Micrometres per pixel at level 0, overriding the files.",
            show_default="that of the files",
        ),
    ] = None,
    scene: Annotated[
        str | None,
        typer.Option(
            help="Number, from 1, or name of the image to read from files with several.",
            show_default="the only one",
        ),
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Show format, levels and mpp of slides before tiling.

    Also shows how `wsi-seg tile` would store each level.

    For example:

      wsi-seg info slide.svs
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.ingest.describe import describe_slides

        report = describe_slides(slides, mpp=mpp, scene=scene)
        terminal.show(report)
        report.require_whole()
        terminal.next_command("wsi-seg", "tile", *slides, "--out", "store.zarr")
        return report.to_json()

    run_verb(body, json_mode)
