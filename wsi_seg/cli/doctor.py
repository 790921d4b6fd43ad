"""Owns ``wsi-seg doctor``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb

# Padded with three spaces, so that texts start in the same column as without a terminal.
_TICKS: Mapping[Literal["ok", "note", "bad"], str] = {
    "ok": typer.style("✓", fg="green") + "   ",
    "note": typer.style("!", fg="yellow") + "   ",
    "bad": typer.style("✗", fg="red", bold=True) + "   ",
}


def doctor(
    folder: Annotated[
        Path, typer.Argument(help="Folder of stores and predictions, existing or planned.")
    ] = Path(),
    json_mode: JsonFlag = False,
) -> None:
    """Check this machine, and show the defaults of infer on it.

    Checks libraries, processor, memory, GPU and decoders, and writes a few temporary files to the
    folder. The exit code is 1 if a requirement is not met.

    For example:

      wsi-seg doctor
      wsi-seg doctor /shared/slides --json > machine.json
    """

    def body(terminal: Terminal) -> dict[str, object]:
        terminal.progress.note("checking")
        from wsi_seg.doctor import examine

        found = examine(folder)
        terminal.say("\n".join(found.lines(_TICKS) if terminal.is_live else found.lines()))
        status = {"status": "done" if found.works else "failed"}
        return status | found.to_json()

    run_verb(body, json_mode)
