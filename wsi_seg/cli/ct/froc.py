"""Owns ``wsi-seg ct froc``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def froc(
    candidates: Annotated[
        Path, typer.Argument(help="csv of candidates: seriesuid, coordX/Y/Z, probability.")
    ],
    truth: Annotated[
        Path, typer.Option(help="csv of true findings: seriesuid, coordX/Y/Z, diameter_mm.")
    ],
    scans: Annotated[
        Path | None,
        typer.Option(
            help="Text file with the names of all scans, one per line.",
            show_default="the scans in the two files",
        ),
    ] = None,
    exclude: Annotated[
        Path | None,
        typer.Option(
            help="csv of irrelevant findings, in the format of the truth: candidates there are "
            "ignored.",
            show_default="no irrelevant findings",
        ),
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Score candidates as LUNA16 does: FROC and CPM.

    Prints the sensitivity at 1/8 to 8 false positives per scan, and their mean (CPM).

    For example:

      wsi-seg ct froc candidates.csv --truth annotations.csv --scans scans.txt
    """

    def body(terminal: Terminal) -> dict[str, object]:
        from wsi_seg.ct.froc import froc_of_files
        from wsi_seg.errors import ConfigError

        names = None
        if scans is not None:
            try:
                names = scans.read_text(encoding="utf-8").split()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{scans} cannot be read: {error}") from error
        found = froc_of_files(candidates, truth, scans=names, exclude=exclude)
        terminal.say("\n".join(found.lines()))
        terminal.next_command(
            "wsi-seg", "report", "pred.zarr", "--candidates", candidates, "--findings", truth
        )
        return found.to_json()

    run_verb(body, json_mode)
