"""Owns ``wsi-seg froc``."""

from pathlib import Path
from typing import Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb


def froc(
    marks: Annotated[Path, typer.Argument(help="csv: seriesuid, coordX/Y/Z, probability.")],
    truth: Annotated[Path, typer.Option(help="csv: seriesuid, coordX/Y/Z, diameter_mm.")],
    scans: Annotated[
        Path | None, typer.Option(help="Text file of all scans, one a line; else those named.")
    ] = None,
    exclude: Annotated[
        Path | None, typer.Option(help="csv like the truth: marks there do not count.")
    ] = None,
    json_mode: JsonFlag = False,
) -> None:
    """Score marks in volumes as LUNA16 does: sensitivity at 1/8 to 8 false marks, and CPM.

    For example:

      wsi-seg froc marks.csv --truth annotations.csv --scans scans.txt
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
        found = froc_of_files(marks, truth, scans=names, exclude=exclude)
        terminal.say("\n".join(found.lines()))
        return found.to_json()

    run_verb(body, json_mode)
